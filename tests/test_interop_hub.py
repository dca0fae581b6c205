"""Vectors go to the hub with a card in one commit and come back from the commit they were asked at; the hub is a folder here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.interop import from_pretrained, push_to_hub
from steerlab.interop.hub import pull
from steerlab.vectorset import load_set, save_set
from tests.made import made_vector

COMMIT = "a" * 40


class Hub:
    """The calls of `HfApi` that are used, on a folder."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        self.folder, self.error, self.calls = folder, error, list[tuple[str, dict[str, Any]]]()

    def create_repo(self, repo_id: str, **named: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **named}))
        if self.error:
            raise self.error

    def upload_folder(self, folder_path: Path, **named: Any) -> None:
        self.calls.append(("upload_folder", named))
        shutil.copytree(folder_path, self.folder / named["repo_id"], dirs_exist_ok=True)

    def repo_info(self, repo_id: str, revision: str | None) -> Any:
        self.calls.append(("repo_info", {"revision": revision}))
        if self.error:
            raise self.error
        return SimpleNamespace(sha=COMMIT)

    def snapshot_download(self, repo_id: str, **named: Any) -> str:
        self.calls.append(("snapshot_download", named))
        return str(self.folder / repo_id)


def test_vectors_come_back_from_the_hub_at_a_commit(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    vectors = {"jv": made_vector(1), "su": made_vector(2)}
    assert push_to_hub(vectors, "me/vecs", licence="cc-by-4.0", api=hub) == "https://huggingface.co/me/vecs"
    assert hub.calls[0][1] == {"repo_id": "me/vecs", "repo_type": "model", "private": True, "exist_ok": True}
    found, commit = from_pretrained("me/vecs", api=hub)
    assert commit == COMMIT and all(found[key].equals(vector) for key, vector in vectors.items())
    assert hub.calls[-1] == (
        "snapshot_download",
        {"revision": COMMIT, "allow_patterns": ["*.safetensors", "vectors.json"]},
    )
    from_pretrained("me/vecs", revision="b" * 40, api=hub)
    assert [name for name, _ in hub.calls].count("repo_info") == 1  # a commit needs no asking
    assert hub.calls[-1][1]["revision"] == "b" * 40
    assert pull("me/vecs", tmp_path / "out", api=hub) == COMMIT
    assert list(load_set(tmp_path / "out")) == ["jv", "su"]


def test_the_card_says_what_the_vectors_were_fitted_on(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    own = made_vector(1)
    own = replace(own, provenance=replace(own.provenance, model="org/base", method="a|b <script>"))
    best = replace(own, choice=Choice((2,), 0.5))
    push_to_hub({"jv": best, "su": own}, "me/vecs", licence="apache-2.0", api=hub)
    card = (tmp_path / "me" / "vecs" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0\n" in card and 'base_model: ["org/base"]' in card
    assert 'from_pretrained("me/vecs")' in card and "`00ff`" in card
    assert (
        "| jv | org/base, abc | a\\|b &lt;script> | resid_post, 0, 2, 5 | 101 / 50 | add at layers 2, strength 0.5 residual |"
        in card
    )
    assert "| not measured |" in card


def test_what_the_hub_refuses_or_is_no_set_gives_one_sentence(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    for named, because in (
        ({"vectors": {}}, "no vectors"),
        ({"licence": "CC BY"}, "licence 'CC BY'"),
        ({"repo_id": "me"}, "'me' is no repository"),
        ({"repo_id": "../me"}, "is no repository"),
        ({"api": Hub(tmp_path, ValueError("401 who are you.\nmore"))}, "could not be uploaded \\(401 who are you\\)"),
    ):
        options: dict[str, Any] = {
            "vectors": {"jv": made_vector()},
            "repo_id": "me/vecs",
            "licence": "other",
            "api": hub,
        }
        with pytest.raises(SteerlabError, match=because) as caught:
            push_to_hub(**{**options, **named})
        assert "\n" not in str(caught.value)
    assert hub.calls == []
    with pytest.raises(SteerlabError, match="could not be fetched \\(404\\)"):
        from_pretrained("me/vecs", api=Hub(tmp_path, OSError("404")))
    (tmp_path / "me" / "vecs").mkdir(parents=True)
    with pytest.raises(SteerlabError, match="no readable set"):
        from_pretrained("me/vecs", api=hub)


def test_an_index_from_elsewhere_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    save_set({"jv": made_vector()}, tmp_path)
    inside = tmp_path / "set"
    inside.mkdir()
    for key in ("../jv", str(tmp_path / "jv"), ".", 3):
        (inside / "vectors.json").write_text(json.dumps({"vectors": [key]}))
        with pytest.raises(SteerlabError, match="no plain file name"):
            load_set(inside)


def test_a_pull_puts_nothing_over_other_files(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    push_to_hub({"jv": made_vector()}, "me/vecs", licence="other", api=hub)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(SteerlabError, match="holds other files"):
        pull("me/vecs", tmp_path / "out", api=hub)

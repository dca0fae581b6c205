"""A data set loads as it was written, whole or not at all, and replaces nothing of others; a push sends it as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from steerlab import dataset
from steerlab.datacard import described
from steerlab.dataset import RECORD, Choice, choose, export, push, read_samples
from steerlab.errors import SteerlabError
from steerlab.tasks import TOPIC
from tests.labelled_run import LABELS, STEERED, labelled_run, loaded, rows
from tests.small_run import content


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return labelled_run(tmp_path / "run")


def test_a_data_set_loads_as_it_was_written(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out", Choice())
    assert made.counts == {"topic-jv": {"train": 24}, "topic-su": {"train": 24}} and made.dropped == {}
    assert datasets.get_dataset_config_names(str(tmp_path / "out")) == ["topic-jv", "topic-su"]
    found = loaded(tmp_path / "out", "topic-su")
    assert list(found) == ["train"]
    wanted = [row for row in rows() if row["language"] == "su"]
    train = found["train"]
    assert train["text"] == [row["text"] for row in wanted] and train["condition"] == [
        row["condition"] for row in wanted
    ]
    assert isinstance(train.features["label"], datasets.ClassLabel)
    assert train.features["label"].names == list(TOPIC.labels)
    assert [train.features["label"].int2str(i) for i in train["label"]] == [row["label"] for row in wanted]
    assert set(train["steering"]) == {"none", described([STEERED])}
    assert len(set(train["id"])) == 24 and train["id"][1] == f"topic/su/plain/{LABELS[0]}/1"
    assert loaded(tmp_path / "out")["train"]["language"][0] == "jv"  # the first configuration is the default


def test_filters_choose_and_count_what_they_drop(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out", Choice(("steered",), ("jv",), ("topic",)))
    assert made.counts == {"topic-jv": {"train": 12}}
    assert made.dropped == {"another condition": 24, "another language": 12, "another task": 0}
    assert set(loaded(tmp_path / "out")["train"]["condition"]) == {"steered"}
    for choice, words in (
        (Choice(("nothing",)), "no sample has the condition 'nothing': choose among plain, steered"),
        (Choice(languages=("am",)), "language 'am'"),
        (Choice(tasks=("sentiment",)), "task 'sentiment'"),
    ):
        with pytest.raises(SteerlabError, match=words):
            export(run, tmp_path / "none", choice)
    assert not (tmp_path / "none").exists()


def test_texts_in_another_language_are_dropped_on_request() -> None:
    mixed = rows(("de",), 1)
    for row in mixed[:4]:
        row["text"] = "Der Hund läuft heute Morgen durch den Garten und bellt"
    kept, dropped = choose(mixed, Choice(in_language=True))
    assert kept == mixed[:4] and dropped == {"not in the language": 2}
    assert choose(mixed, Choice())[0] == mixed
    with pytest.raises(SteerlabError, match="no sample of 2 is left"):
        choose(mixed[4:], Choice(in_language=True))


def test_a_validation_split_is_stratified_seeded_and_keeps_slots_together(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", Choice(validation=0.25, seed=1))
    found = loaded(tmp_path / "out", "topic-jv")
    assert {split: len(part) for split, part in found.items()} == {"train": 18, "validation": 6}
    slots = {split: {name.split("/", 3)[3] for name in part["id"]} for split, part in found.items()}
    assert not slots["train"] & slots["validation"] and len(slots["validation"]) == 3
    assert sorted(found["validation"]["label"]) == [0, 0, 1, 1, 2, 2]
    assert sorted(found["validation"]["condition"]) == ["plain"] * 3 + ["steered"] * 3
    ids = []
    for seed in (1, 2):
        own = [row for row in rows() if row["language"] == "jv"]
        parts = dataset.configurations(own, Choice(validation=0.25, seed=seed))
        ids.append(parts["topic-jv"]["validation"]["id"])
    assert ids[0] == found["validation"]["id"] != ids[1]
    with pytest.raises(SteerlabError, match="below 1"):
        Choice(validation=1.0)


def test_the_same_export_writes_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = content(export(run, tmp_path / "a", Choice(validation=0.25)).path)
    again = content(export(run, tmp_path / "b", Choice(validation=0.25)).path)
    assert first == again and len(first) == 6
    record = json.loads(first[RECORD])
    assert set(record["files"]) == set(first) - {RECORD}


def test_another_data_set_is_not_replaced_and_other_files_never_are(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, out, Choice())
    before = content(out)
    export(run, out, Choice())  # the same one may be written again
    assert content(out) == before
    with pytest.raises(SteerlabError, match="holds another data set: give another folder, or --force"):
        export(run, out, Choice(languages=("su",)))
    assert content(out) == before
    export(run, out, Choice(languages=("su",)), force=True)
    assert content(out) != before and not (out / "topic-jv").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    export(run, mine, Choice())  # an empty folder is free
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("my notes")
    for there in (tmp_path / "notes", tmp_path / "notes" / "README.md", run):
        with pytest.raises(SteerlabError, match="no data set that was exported here"):
            export(run, there, Choice(), force=True)
    assert (tmp_path / "notes" / "README.md").read_text() == "my notes"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_failure_leaves_the_old_data_set_whole(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export(run, out, Choice())
    before = content(out)

    def broken(*words: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "replace", broken)
    for place in (out, tmp_path / "new"):
        with pytest.raises(SteerlabError, match="no space is left"):
            export(run, place, Choice(languages=("su",)), force=True)
    assert content(out) == before and not (tmp_path / "new").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    monkeypatch.undo()
    out.rename(tmp_path / ".out.old")  # killed between the two renames
    with pytest.raises(SteerlabError, match="another data set"):
        export(run, out, Choice(languages=("su",)))
    assert content(out) == before


class _Hub:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repo_id: str, **named: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **named}))
        if self.error:
            raise self.error

    def upload_folder(self, **named: Any) -> None:
        self.calls.append(("upload_folder", named))


def test_a_push_uploads_the_folder_as_it_is(run: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "out", Choice()).path
    hub = _Hub()
    assert push(out, "me/texts", api=hub) == "https://huggingface.co/datasets/me/texts"
    (create, made), (upload, sent) = hub.calls
    assert (create, upload) == ("create_repo", "upload_folder")
    assert made == {"repo_id": "me/texts", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["folder_path"], sent["repo_type"]) == ("me/texts", out, "dataset")
    public = _Hub()
    push(out, "me/texts", private=False, api=public)
    assert public.calls[0][1]["private"] is False


def test_a_push_needs_an_export_a_licence_and_a_hub_that_agrees(run: Path, tmp_path: Path) -> None:
    hub = _Hub()
    with pytest.raises(SteerlabError, match="no data set that was exported here"):
        push(run, "me/texts", api=hub)
    (tmp_path / "mine.jsonl").write_text((run / "samples.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    bare = export(tmp_path / "mine.jsonl", tmp_path / "bare", Choice()).path
    with pytest.raises(SteerlabError, match="states no licence"):
        push(bare, "me/texts", api=hub)
    assert hub.calls == []
    licensed = export(tmp_path / "mine.jsonl", tmp_path / "bare", Choice(), licence="cc-by-4.0", force=True).path
    with pytest.raises(SteerlabError, match="could not be uploaded \\(401 who are you\\)") as error:
        push(licensed, "me/texts", api=_Hub(ValueError("401 who are you.\nmore")))
    assert "\n" not in str(error.value)


def test_a_licence_is_a_word_of_the_hub(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="licence 'CC BY 4.0'"):
        export(run, tmp_path / "out", Choice(), licence="CC BY 4.0")


def _broken(change: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    found = rows(("jv",), 1)
    change(found[2])
    return found


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([], "has no samples"),
        (_broken(lambda row: row.pop("label")), "row 3 of .* has no text as 'label'"),
        (_broken(lambda row: row.update(text=" ")), "row 3 of .* has no text as 'text'"),
        (_broken(lambda row: row.update(label="sport")), "row 3 of .*: label 'sport' is not one of task 'topic'"),
        (_broken(lambda row: row.update(task="a/b")), "'a/b-jv' cannot name a folder"),
    ],
)
def test_rows_that_are_no_samples_are_told(tmp_path: Path, broken: list[dict[str, Any]], words: str) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in broken), encoding="utf-8")
    with pytest.raises(SteerlabError, match=words) as error:
        export(tmp_path / "rows.jsonl", tmp_path / "out", Choice())
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    with pytest.raises(SteerlabError, match="does not exist"):
        read_samples(tmp_path / "nothing")

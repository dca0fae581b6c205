"""`steerlab similarity`: tables per layer, matrices, curves against one vector, noise ceilings from texts, figures, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from steerlab.commands import similarity as command
from steerlab.commands.similarity_cli import similarity
from steerlab.errors import SteerlabError
from steerlab.similarity import cosine_matrix
from steerlab.vectors import SteeringVector
from steerlab.vectorset import save_set
from tests.tiny import tiny

WORDS = ["a river", "the old town", "we sang", "rain again", "seven small stones", "no more", "it went on", "salt"]
CODES = ("cs", "sk", "pl", "de", "nl", "jv")


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Means of six languages over two layers, West Slavic and Germanic close to their own kind."""
    rng = np.random.default_rng(0)
    centre = {"slavic": rng.standard_normal(32), "germanic": rng.standard_normal(32), "jv": rng.standard_normal(32)}
    kind = {"cs": "slavic", "sk": "slavic", "pl": "slavic", "de": "germanic", "nl": "germanic", "jv": "jv"}
    rows = {c: np.stack([centre[kind[c]] + 0.3 * rng.standard_normal(32) for _ in range(2)]) for c in CODES}
    file = tmp_path_factory.mktemp("means") / "means.safetensors"
    save_file({code: torch.from_numpy(own).float() for code, own in rows.items()}, file)
    return file


def _run(*words: str | Path) -> Any:
    app = typer.Typer()
    app.command()(similarity)
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def _rows(*words: str | Path) -> list[dict[str, Any]]:
    said = _run(*words, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.output)


def _refused(*words: str | Path) -> str:
    said = _run(*words)
    assert isinstance(said.exception, SteerlabError), said.output
    return str(said.exception)


def test_layers_show_cosines_beside_chance_and_the_families(means: Path) -> None:
    rows = _rows("--means", means)
    assert [row["layer"] for row in rows] == [0, 1]
    for row in rows:
        pair = {name.removeprefix("language-") for name in row["closest"].split()}
        assert pair < {"cs", "sk", "pl"} or pair == {"de", "nl"}
        assert row["tree and genera (ARI)"] == 1.0 and row["permuted genera, up to"] < 1.0 and row["p"] < 0.1
        assert row["mean cosine"] == pytest.approx(-1 / 5, abs=0.05)  # centred vectors: not 0
        low, high = map(float, row["random directions (95 %)"].split(" to "))
        assert low < -1 / 5 < high < 0.3 < row["cosine"]
        assert row["noise ceiling"] is None
    assert command.NO_CEILING in " ".join(_run("--means", means).output.split())


def test_the_matrix_stands_in_the_order_of_its_tree(means: Path) -> None:
    rows = _rows("--means", means, "--layer", "1")
    order = [row["vector"] for row in rows]
    slavic = sorted(order.index(f"language-{code}") for code in ("cs", "sk", "pl"))
    assert slavic[2] - slavic[0] == 2
    vectors = command.saved([], means, "*").vectors
    want = cosine_matrix([vectors[name].select((1,)) for name in order])[0]
    got = torch.tensor([[row[name] for name in order] for row in rows], dtype=torch.float64)
    torch.testing.assert_close(got, want)
    assert all(row["nearest"] != row["vector"] and row["cosine"] == row[row["nearest"]] for row in rows)
    wide = [{"vector": "v", "nearest": "w", "cosine": 1.0, **{str(i): 0.0 for i in range(20)}}] * 20
    assert list(command.narrow(wide)[0]) == ["vector", "nearest", "cosine"] and command.narrow(rows) == rows


def test_saved_vectors_are_compared_with_one_of_them_at_every_shared_layer(tmp_path: Path) -> None:
    raw = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    first = SteeringVector.from_raw("language-jv", raw, (0, 1, 2))
    other = SteeringVector.from_raw("quality-jv", -2 * raw, (0, 1, 2))
    save_set({"language-jv": first, "quality-jv": other}, tmp_path / "set")
    first.select((0, 2)).save(tmp_path / "late" / "language-jv.safetensors")
    rows = _rows(
        tmp_path / "set", tmp_path / "late" / "language-jv.safetensors", "--only", "*-jv", "--against", "quality-jv"
    )
    assert [row["vector"] for row in rows[:2]] == ["language-jv", "late/language-jv"]
    for row in rows[:2]:
        assert row["layer 0"] == pytest.approx(-1) and row["layer 2"] == pytest.approx(-1) and "layer 1" not in row
    assert rows[2]["layer 0"] < 0 < rows[3]["layer 0"] == -rows[2]["layer 0"]


def test_texts_are_fitted_here_and_bring_their_noise_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load", lambda name: tiny("llama"))
    given: list[str | Path] = []
    for code, change in (("cs", str.upper), ("sk", str.title), ("jv", lambda w: f"{w[::-1]}?")):
        (tmp_path / f"{code}.txt").write_text("\n".join(change(w) for w in WORDS), encoding="utf-8")
        given += ["-t", f"{code}={tmp_path / code}.txt"]
    rows = _rows(*given, "--splits", "3", "-q")
    assert len(rows) == tiny("llama").n_layers
    assert all(0 < row["noise ceiling"] <= 1 for row in rows)
    again = _rows(*given, "--splits", "3", "-q")
    other = _rows(*given, "--splits", "3", "-q", "--seed", "9")
    assert again == rows and [r["noise ceiling"] for r in other] != [r["noise ceiling"] for r in rows]
    assert [r["cosine"] for r in other] == [r["cosine"] for r in rows]


def test_the_matrix_is_saved_as_a_figure_with_its_table(means: Path, tmp_path: Path) -> None:
    said = _run("--means", means, "--layer", "0", "--out", tmp_path / "f")
    assert said.exit_code == 0, said.output
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        f"similarity_layer0.{e}" for e in ("csv", "json", "pdf", "png")
    ]
    table = pd.read_csv(tmp_path / "f" / "similarity_layer0.csv", index_col=0)
    want = command.frame(command.saved([], means, "*"), 0)
    np.testing.assert_allclose(table.to_numpy(), want.to_numpy(), atol=1e-5)
    assert list(table.columns) == list(want.columns)
    assert json.loads((tmp_path / "f" / "similarity_layer0.json").read_text())["layer"] == 0


def test_the_bundled_vectors_are_the_default() -> None:
    found = command.saved([], None, "language-*")
    assert len(found.vectors) == 12
    rows = command.by_layer(found)
    assert all(-1 <= row["cosine"] <= 1 and math.isnan(row["noise ceiling"]) for row in rows)


def test_what_can_not_be_compared_is_refused_in_a_sentence(means: Path, tmp_path: Path) -> None:
    assert "two or more are needed" in _refused("--means", means, "--only", "nothing-*")
    assert "give one of the two" in _refused(tmp_path, "--means", means)
    assert "saved vectors or means were given as well" in _refused("-t", "a=b.txt", "--means", means)
    assert "give --layer as well" in _refused("--means", means, "--out", tmp_path)
    assert "they share 0, 1" in _refused("--means", means, "--layer", "7")
    assert "--against 'x' is not among the vectors" in _refused("--means", means, "--against", "x")
    assert "is not NAME=FILE" in _refused("-t", "only.txt")
    assert "--splits is 0" in _refused("-t", f"a={_file(tmp_path)}", "-t", f"b={_file(tmp_path)}", "--splits", "0")


def _file(folder: Path) -> Path:
    (folder / "w.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return folder / "w.txt"

"""`steerlab probe`: curves from files and data sets with their controls, saved figures and vectors, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from steerlab.commands import probe as command
from steerlab.commands.probe_cli import probe
from steerlab.errors import SteerlabError
from steerlab.vectorset import load_set
from tests.command import Command
from tests.tiny import tiny

WORDS = [
    "a river",
    "the old town",
    "we sang",
    "rain again",
    "seven stones",
    "no more",
    "it went on",
    "salt",
    "by day",
    "so it is",
]
QUICK = ("--folds", "2", "--resamples", "50", "--kind", "diff_of_means")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny model instead of the named one; the list of names that were asked for."""
    asked: list[str] = []

    def load(name: str, **_: Any) -> Any:
        asked.append(name)
        return tiny("llama")

    monkeypatch.setattr(command, "load", load)
    return asked


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, ...]:
    """Two classes of ten texts, lower case, and upper case that begins with X."""
    for name, change in (("low", str.lower), ("high", lambda w: "X" + w.upper()[1:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(change(w) for w in WORDS), encoding="utf-8")
    return "-t", f"low={tmp_path}/low.txt", "-t", f"high={tmp_path}/high.txt"


def _run(*words: str | Path) -> Any:
    app = typer.Typer()
    app.command()(probe)
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def _rows(*words: str | Path) -> list[dict[str, Any]]:
    said = _run(*words, *QUICK, "--json")
    assert said.exit_code == 0, (said.output, said.exception)
    return json.loads(said.output)


def test_every_layer_stands_beside_its_controls_and_baselines(sides: tuple[str, ...]) -> None:
    rows = _rows(*sides)
    assert [row["layer"] for row in rows] == [0, 1, 2, 3, None, None, None]
    assert [row["probe"] for row in rows[4:]] == ["bag of embeddings", "character n-grams", "length"]
    assert rows[0]["AUROC"] > 0.85 and rows[5]["AUROC"] > 0.85 and rows[6]["AUROC"] < 0.7
    assert [row["selectivity"] is None for row in rows] == [False] * 4 + [True] * 3
    assert _rows(*sides) == rows and _rows(*sides, "--seed", "5") != rows
    assert [row["layer"] for row in _rows(*sides, "--layer", "2")] == [2, None, None, None]
    said = _run(*sides, *QUICK)
    assert "10 groups of texts (rows: low 10, high 10)" in " ".join(said.output.split())


def test_the_sample_set_by_language_by_label_and_by_quality() -> None:
    languages = _rows("--source", "sample", "-l", "jv", "-l", "su", "-l", "am", "--most", "8", "--pooling", "tokens")
    assert "macro-F1" in languages[0] and len(languages) == 7
    given = command.from_source("sample", ["jv", "su"], "language", "", None, 8)
    assert given.groups is not None and given.groups["jv"] == given.groups["su"]
    labels = command.from_source("sample", ["jv"], "label", "sentiment", None, None)
    assert set(labels.texts) == {"positive", "negative"}
    quality = command.from_source("sample", ["sl"], "quality", "", None, None)
    assert list(quality.texts) == ["human", "degraded"] and len(quality.texts["human"]) == 12
    assert all(text[0] == text[0].lower() for own in quality.texts.values() for text in own)
    assert quality.groups is not None and quality.groups["human"] == quality.groups["degraded"]
    assert quality.groups["human"] == [f"contrast-{number:02d}" for number in range(1, 13)]
    assert len(_rows("--source", "sample", "-l", "sl", "--by", "quality")) == 7


def test_figure_table_and_vectors_are_saved(sides: tuple[str, ...], tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "vectors"
    said = _run(*sides, *QUICK, "--out", out, "--vectors", folder)
    assert said.exit_code == 0, (said.output, said.exception)
    assert sorted(p.name for p in out.iterdir()) == [f"probe.{ending}" for ending in ("csv", "json", "pdf", "png")]
    table: Any = pd.read_csv(out / "probe.csv")
    assert len(table) == 7 and table["layer"].notna().sum() == 4 and str(folder) in said.output
    record = json.loads((out / "probe.json").read_text())
    assert record["kind"] == "diff_of_means" and record["classes"] == {"low": 10, "high": 10}
    vectors = load_set(folder)
    assert list(vectors) == ["probe-low", "probe-high"]
    low, high = vectors.values()
    assert low.layers == (0, 1, 2, 3) and float(low.at(1) @ high.at(1)) == pytest.approx(-1, abs=1e-5)
    assert low.norm_at(0) > 0 and low.provenance.method == "probe(diff_of_means)"
    given = command.from_files([word for word in sides if "=" in word], "text", None)
    curve = command.run(given, "m", command.ProbeOptions("lda", folds=2, resamples=20), "float32", None)
    assert float(curve.vector("high").at(1) @ high.at(1)) > 0


def test_what_can_not_be_probed_is_refused_in_a_sentence(
    sides: tuple[str, ...], tmp_path: Path, model: list[str]
) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    sample = ("--source", "sample", "-l", "jv")
    for words, because in (
        ((), "one of the two"),
        ((*sides, *sample), "one of the two"),
        ((*sides, "-l", "jv"), "leave it out"),
        (("--source", "sample"), "no language of sample"),
        (sides[:2], "texts of 1 class were given"),
        ((*sides[:2], "-t", f"b={tmp_path}/empty.txt"), "is empty"),
        ((*sides[:2], "-t", f"b={tmp_path}/absent.txt"), "does not exist"),
        ((*sides[:2], "-t", "only.txt"), "is not NAME=FILE"),
        ((*sides[:2], *sides[:2]), "a NAME of its own"),
        ((*sides, "--kind", "svm"), "kind 'svm' is not known"),
        ((*sides, "--pooling", "max"), "pooling 'max' is not known"),
        ((*sides, "--folds", "1"), "--folds is 1"),
        ((*sides, "--resamples", "0"), "--resamples is 0"),
        ((*sides, "--most", "-1"), "--most is -1"),
        ((*sample,), "texts of 1 class"),
        ((*sample, "--by", "mood"), "--by 'mood' is not known"),
        ((*sample, "-l", "su", "--by", "label"), "probes the texts of one"),
        (("--source", "sib200", "-l", "jv", "--by", "quality"), "no human and degraded pairs"),
        (("--source", "sample", "-l", "xx", "-l", "jv"), "xx"),
        (("--source", "nosuch", "-l", "jv"), "nosuch"),
    ):
        said = _run(*words)
        assert isinstance(said.exception, SteerlabError), (words, said.output)
        assert because in str(said.exception), (words, str(said.exception))
    assert model == []  # all of it before a model is loaded
    for words, because in ((("--folds", "50"), "50 folds need at least 50"), (("--layer", "40"), "40")):
        said = _run(*sides, *words)
        assert isinstance(said.exception, SteerlabError) and because in str(said.exception)


def test_the_command_line_says_it_in_one_line_and_teaches(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    steerlab = Command(monkeypatch, capsys)
    steerlab.refused("probe", "--source", "sample", "-l", "jv", because="texts of 1 class were given")
    told = " ".join(steerlab("probe", "--help").out.split())
    assert "steerlab probe --source sample -l jv -l su -l id --pooling tokens" in told and "--vectors" in told

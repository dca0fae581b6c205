"""`steerlab sweep`: a run folder with table, figure and choice, the same after an interruption, and one sentence for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steerlab import store
from steerlab.ablation.selection import recommended
from steerlab.commands import sweep as command
from steerlab.commands.synthesize import Steering, interventions
from steerlab.disk import fingerprint
from steerlab.errors import SteerlabError
from steerlab.records import pretty, sealed
from steerlab.vectors import SteeringVector
from tests import swept
from tests.swept import model_at, sweep_rows, sweep_run

place, vector, quick = swept.place, swept.vector, swept.quick  # fixtures


def _refused(*words: str | Path) -> str:
    said = sweep_run(*words)
    assert isinstance(said.exception, SteerlabError), said.output
    return str(said.exception)


def test_a_sweep_leaves_a_whole_folder_and_names_an_arm(place: Path, vector: Path, tmp_path: Path) -> None:
    before = vector.read_bytes()
    (row,) = sweep_rows(place, vector, "--out", tmp_path / "run")
    assert row["layer"] in (0, 2) and row["operator"] in ("add", "rotate") and "[" in row["log_perplexity change"]
    store.verify(tmp_path / "run")
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert names >= {
        "sweep.csv",
        "outcomes.csv",
        "sweep.png",
        "choices.json",
        "manifest.json",
        "candidates/0-language-jv.csv",
    }
    samples = store.read_rows(tmp_path / "run" / "samples.jsonl")
    assert len(samples) == 4 * 2 * (1 + 2 * 2 * (1 + 1))
    table = pd.read_csv(tmp_path / "run" / "sweep.csv")
    assert set(table["arm"]) == {"unsteered", "vector", "random"} and set(table["against"]) == {
        "nothing",
        "unsteered",
        "random",
    }
    assert set(table["measure"]) >= {"kl", "distinct_2", "in_target", "log_perplexity"}
    choice = json.loads((tmp_path / "run" / "choices.json").read_text())["vectors"][str(vector)]["chosen"]
    assert choice["layers"] == [row["layer"]] and choice["operator"] == row["operator"]
    assert vector.read_bytes() == before  # --choose was not given


def test_choose_writes_the_header(place: Path, vector: Path, tmp_path: Path) -> None:
    (row,) = sweep_rows(place, vector, "--out", tmp_path / "run", "--choose")
    chosen = SteeringVector.load(vector).choice
    assert chosen is not None and chosen.layers == (row["layer"],) and chosen.operator == row["operator"]
    model = model_at(str(place / "model"))
    (one,) = interventions(Steering(str(vector)), ("jv",), model, 0)["jv"]  # what synthesize steers with by default
    assert one.to_json() == recommended(SteeringVector.load(vector)).to_json() and one.operator == row["operator"]
    (other,) = interventions(Steering(str(vector), layer=1, strength=0.5), ("jv",), model, 0)["jv"]
    assert (other.at, other.strength, other.operator) == ((1,), 0.5, "add")
    again = sweep_rows(place, vector, "--out", tmp_path / "run", "--choose")  # the header is no part of what was asked
    assert again == [row]


@pytest.mark.slow
def test_an_interrupted_sweep_continues_and_ends_with_the_same_bytes(
    place: Path, vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sweep_rows(place, vector, "--out", tmp_path / "whole", "--batch-rows", "16")
    written = command.generate_batches

    def stops(*given: Any, **more: Any) -> Any:
        for done, batch in enumerate(written(*given, **more)):
            if done == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command, "generate_batches", stops)
    with pytest.raises(AssertionError):
        sweep_rows(place, vector, "--out", tmp_path / "cut", "--batch-rows", "16")
    assert len(store.read_rows(tmp_path / "cut" / "samples.jsonl")) == 32
    monkeypatch.setattr(command, "generate_batches", written)
    assert sweep_rows(place, vector, "--out", tmp_path / "cut", "--batch-rows", "16") == rows
    for name in ("samples.jsonl", "sweep.csv", "outcomes.csv", "choices.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_finished_sweep_is_repeated_and_compared(place: Path, vector: Path, tmp_path: Path) -> None:
    sweep_rows(place, vector, "--out", tmp_path / "run")
    said = sweep_run("--reproduce", tmp_path / "run", "--out", tmp_path / "again", "--json", "-q")
    assert said.exit_code == 0, (said.output, said.exception)
    rows = json.loads(said.output)
    assert {row["measure"] for row in rows} >= {"kl", "distinct_2"} and all(
        row["largest difference"] == 0 for row in rows
    )
    other = _repeated(tmp_path / "run", tmp_path / "other")
    assert other.exit_code == 1 and not all(row["same"] for row in json.loads(other.output))
    assert "was changed after the run finished" in _refused(
        "--reproduce", tmp_path / "run", "--out", tmp_path / "third"
    )


def _repeated(run: Path, out: Path) -> Any:
    """Repeated after someone changed a number of the old table (and its manifest): the repetition does not agree."""
    table = run / "sweep.csv"
    text = table.read_text()
    table.write_text(text.replace(",tokens,vector,nothing,", ",tokens,vector,nothing,1", 1))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"]["sweep.csv"] = fingerprint(table)
    (run / "manifest.json").write_bytes(pretty(sealed(manifest)))
    said = sweep_run("--reproduce", run, "--out", out, "--json", "-q")
    table.write_text(text)
    return said


def test_bad_input_is_refused_in_a_sentence_before_anything_is_written(
    place: Path, vector: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "run", "-m", place / "model")
    assert "say --out" in _refused(vector)
    assert "no vectors were given" in _refused(*out)
    assert "there is no vector file" in _refused("jv", *out)
    assert "is no number and not OPERATOR:NUMBER" in _refused(vector, *out, "-s", "much")
    assert "operator 'push' is not known" in _refused(vector, *out, "-s", "push:1")
    assert "no direction at layer 9" in _refused(vector, *out, "-l", "9")
    assert "unit 'metre' is not known" in _refused(vector, *out, "--unit", "metre")
    assert "measures ['beauty'] are not known" in _refused(vector, *out, "--effect", "beauty")
    assert "languages ['xx'] are not known" in _refused(vector, *out, "--language", "xx")
    assert "2 languages and 1 vectors" in _refused(vector, *out, "--language", "jv", "--language", "su")
    nameless = tmp_path / "v.safetensors"
    SteeringVector.from_raw("v", SteeringVector.load(vector).direction, (0, 1, 2, 3)).save(nameless)
    assert "tell no language" in _refused(nameless, *out)
    (tmp_path / "one.txt").write_text("Only one.\n", encoding="utf-8")
    assert "so give two or more" in _refused(vector, *out, "--prompts", tmp_path / "one.txt")
    assert "holds no finished run" in _refused("--reproduce", tmp_path, "--out", tmp_path / "x")
    assert not (tmp_path / "run").exists()

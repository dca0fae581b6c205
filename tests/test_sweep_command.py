"""`steerlab sweep`: a run folder with table, figure and choice, the same after an interruption, and one sentence for bad input."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from steerlab import store
from steerlab.ablation.selection import recommended
from steerlab.commands import sweep as command
from steerlab.commands import sweep_parts
from steerlab.commands.sweep_cli import sweep
from steerlab.commands.synthesize import Steering, interventions
from steerlab.errors import SteerlabError
from steerlab.fitting import fit_language_vectors
from steerlab.loading import load
from steerlab.vectors import SteeringVector
from tests.command import save_model
from tests.small_run import content

SIDES = {"jv": ["aku mangan sega", "kowe turu"], "su": ["abdi tuang sangu", "anjeun bobo"]}
_load = cache(load)
PROMPTS = ("Tell me of the river.", "Say it again.", "Now the town.", "And the rain?")
ARMS = ("-l", "0", "-l", "2", "-s", "0.05", "-s", "rotate:0.1", "--directions", "1")
QUICK = (*ARMS, "-n", "2", "--max-new-tokens", "20", "--effect", "distinct_2", "--json", "-q")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a vector of it, and texts."""
    folder = tmp_path_factory.mktemp("sweep")
    save_model(folder / "model")
    vectors = fit_language_vectors(_load(str(folder / "model")), {"texts": SIDES})
    vectors["jv"].save(folder / "language-jv.safetensors")
    (folder / "texts.txt").write_text("the river is wide\na town\n", encoding="utf-8")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return folder


@pytest.fixture
def vector(place: Path, tmp_path: Path) -> Path:
    """A copy of the vector that may be written to."""
    copy = tmp_path / "language-jv.safetensors"
    copy.write_bytes((place / "language-jv.safetensors").read_bytes())
    return copy


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load", _load)
    monkeypatch.delenv("STEERLAB_DATA", raising=False)


def _run(*words: str | Path) -> Any:
    app = typer.Typer()
    app.command()(sweep)
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def _rows(place: Path, *words: str | Path) -> list[dict[str, Any]]:
    given = ("-m", place / "model", "--texts", place / "texts.txt", "--prompts", place / "prompts.txt")
    said = _run(*words, *given, *QUICK)
    assert said.exit_code == 0, (said.output, said.exception)
    return json.loads(said.stdout)


def _refused(*words: str | Path) -> str:
    said = _run(*words)
    assert isinstance(said.exception, SteerlabError), said.output
    return str(said.exception)


def test_a_sweep_leaves_a_whole_folder_and_names_an_arm(place: Path, vector: Path, tmp_path: Path) -> None:
    before = vector.read_bytes()
    (row,) = _rows(place, vector, "--out", tmp_path / "run")
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
    (row,) = _rows(place, vector, "--out", tmp_path / "run", "--choose")
    chosen = SteeringVector.load(vector).choice
    assert chosen is not None and chosen.layers == (row["layer"],) and chosen.operator == row["operator"]
    model = _load(str(place / "model"))
    (one,) = interventions(Steering(str(vector)), ("jv",), model, 0)["jv"]  # what synthesize steers with by default
    assert one.to_json() == recommended(SteeringVector.load(vector)).to_json() and one.operator == row["operator"]
    (other,) = interventions(Steering(str(vector), layer=1, strength=0.5), ("jv",), model, 0)["jv"]
    assert (other.at, other.strength, other.operator) == ((1,), 0.5, "add")
    again = _rows(place, vector, "--out", tmp_path / "run", "--choose")  # the header is no part of what was asked
    assert again == [row]


def test_an_interrupted_sweep_continues_and_ends_with_the_same_bytes(
    place: Path, vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(place, vector, "--out", tmp_path / "whole", "--batch-rows", "16")
    written = command.generate_batches

    def stops(*given: Any, **more: Any) -> Any:
        for done, batch in enumerate(written(*given, **more)):
            if done == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command, "generate_batches", stops)
    with pytest.raises(AssertionError):
        _rows(place, vector, "--out", tmp_path / "cut", "--batch-rows", "16")
    assert len(store.read_rows(tmp_path / "cut" / "samples.jsonl")) == 32
    monkeypatch.setattr(command, "generate_batches", written)
    assert _rows(place, vector, "--out", tmp_path / "cut", "--batch-rows", "16") == rows
    for name in ("samples.jsonl", "sweep.csv", "outcomes.csv", "choices.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture(scope="module")
def single(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep one process wrote, in batches of 16, by a vector at a place that stays."""
    out = tmp_path_factory.mktemp("single") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STEERLAB_DATA", raising=False)
        _rows(place, place / "language-jv.safetensors", "--out", out, "--batch-rows", "16")
    return out


def _again(place: Path, out: Path, *words: str | Path) -> list[dict[str, Any]]:
    return _rows(place, place / "language-jv.safetensors", "--out", out, "--batch-rows", "16", *words)


def _bytes(out: Path) -> dict[str, bytes]:
    """What must be the same whoever wrote it."""
    return {name: data for name, data in content(out).items() if not name.startswith(".shards/")}


def _kill_one(parts: Path, killed: list[int]) -> None:
    """Kill a worker as soon as some part is written."""
    while not killed:
        workers = multiprocessing.active_children()
        if workers and list(parts.glob("*/*.jsonl")):
            killed.append(workers[0].pid or 0)
            workers[0].kill()
        time.sleep(0.01)


@pytest.mark.slow
def test_two_workers_one_killed_write_what_one_process_does(place: Path, single: Path, tmp_path: Path) -> None:
    killed: list[int] = []
    watcher = threading.Thread(target=_kill_one, args=(tmp_path / "run" / ".shards", killed), daemon=True)
    watcher.start()
    _again(place, tmp_path / "run", "--workers", "2")
    assert killed and _bytes(tmp_path / "run") == _bytes(single)
    assert not list((tmp_path / "run" / ".shards").glob("*/*.jsonl"))


def test_shards_of_two_machines_are_gathered(place: Path, single: Path, tmp_path: Path) -> None:
    for i in (1, 2):
        (row,) = _again(place, tmp_path / f"part{i}", "--shard", f"{i}/2")
        assert row == {"shard": f"{i}/2", "parts": 3 - i // 2, "of": 5}
        assert not (tmp_path / f"part{i}" / "manifest.json").exists()
    _again(place, tmp_path / "all", "--gather", tmp_path / "part1", "--gather", tmp_path / "part2")
    assert _bytes(tmp_path / "all") == _bytes(single)
    with pytest.raises(AssertionError, match="holds no shard of this sweep"):
        _again(place, tmp_path / "other", "--gather", tmp_path / "part1", "--seed", "1")


def test_launched_processes_share_a_folder_and_the_first_ends_it(
    place: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    (row,) = _again(
        place, tmp_path / "run", "--shard", "auto"
    )  # the first is late, so the second does its part as well
    assert row["parts"] == row["of"] == 5 and not (tmp_path / "run" / "manifest.json").exists()
    monkeypatch.setenv("RANK", "0")
    _again(place, tmp_path / "run", "--shard", "auto")
    assert _bytes(tmp_path / "run") == _bytes(single)


def test_an_interrupted_sweep_goes_on_in_parts(
    place: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = command.generate_batches

    def stops(*given: Any, **more: Any) -> Any:
        for done, batch in enumerate(written(*given, **more)):
            if done == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command, "generate_batches", stops)
    with pytest.raises(AssertionError):
        _again(place, tmp_path / "run")
    numbers: list[int] = []
    parts = sweep_parts.generate_batches

    def noted(*given: Any, **more: Any) -> Any:
        for batch in parts(*given, **more):
            numbers.append(batch[0])
            yield batch

    monkeypatch.setattr(sweep_parts, "generate_batches", noted)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    _again(place, tmp_path / "run", "--shard", "auto")
    assert sorted(numbers) == [2, 3, 4] and _bytes(tmp_path / "run") == _bytes(single)


def test_a_finished_sweep_is_repeated_and_compared(place: Path, vector: Path, tmp_path: Path) -> None:
    _rows(place, vector, "--out", tmp_path / "run")
    said = _run("--reproduce", tmp_path / "run", "--out", tmp_path / "again", "--json", "-q")
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
    manifest["files"]["sweep.csv"] = store.fingerprint(table)
    (run / "manifest.json").write_text(json.dumps(manifest))
    said = _run("--reproduce", run, "--out", out, "--json", "-q")
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

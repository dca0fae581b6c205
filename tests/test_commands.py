"""The commands do what the functions do, leave whole run folders, and end with the same bytes however often they were killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steerlab import store
from steerlab.commands import demo as demo_command
from steerlab.commands import synthesize as synthesize_command
from steerlab.commands.synthesize import Steering, interventions
from steerlab.fitting import fit_contrast_vector, fit_language_vectors
from steerlab.generation import Request, Settings, generate
from steerlab.loading import load
from steerlab.tasks import postprocess, prompt
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set
from tests.command import QUICK, Command, save_model
from tests.small_run import content
from tests.tiny import CHAT, tokenizer, vector

SIDES = {"jv": ["aku mangan sega", "kowe turu"], "su": ["abdi tuang sangu", "anjeun bobo"], "id": ["saya makan nasi"]}
FILES = ("metrics.csv", "metrics.json", "report.md", "samples.jsonl", store.CONFIG, store.MANIFEST)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def _rows(folder: Path) -> list[dict[str, Any]]:
    return store.read_rows(folder / "samples.jsonl")


def _texts(folder: Path) -> list[str]:
    return [str(row["text"]) for row in _rows(folder)]


def _write(command: Command, model: Path, out: Path, *more: str | Path) -> list[dict[str, Any]]:
    """Three samples a label, and the metric rows that were printed."""
    said = command("synthesize", "-l", "jv", "-m", model, "-n", "3", "--out", out, "--json", *QUICK, *more)
    assert said.code == 0 and said.err == "", said
    return json.loads(said.out)


@pytest.fixture
def vectors(command: Command, model: Path, tmp_path: Path) -> Path:
    """Language vectors fitted by the command, one file in each format."""
    (tmp_path / "jv.txt").write_text("\n".join(SIDES["jv"]), encoding="utf-8")
    (tmp_path / "su.csv").write_text("satz\n" + "\n".join(SIDES["su"]) + "\n", encoding="utf-8")
    (tmp_path / "id.jsonl").write_text("".join(json.dumps({"satz": t}) + "\n" for t in SIDES["id"]), encoding="utf-8")
    named = [word for name in ("jv.txt", "su.csv", "id.jsonl") for word in ("-t", f"{name[:2]}={tmp_path / name}")]
    said = command("vectors", "fit", *named, "-m", model, "--column", "satz", "--out", tmp_path / "vectors", "-q")
    assert said.code == 0 and said.err == "" and "3 vectors over 4 layers" in said.out
    return tmp_path / "vectors"


def test_fit_saves_what_the_function_finds(command: Command, vectors: Path, model: Path) -> None:
    found, wanted = load_set(vectors), fit_language_vectors(load(str(model)), {"texts": SIDES})
    assert list(found) == ["language-jv", "language-su", "language-id"]
    for name, one in found.items():
        other = wanted[name.removeprefix("language-")]
        assert torch.equal(one.direction, other.direction) and torch.equal(one.raw_norm, other.raw_norm)
        assert one.provenance.model == str(model) and one.provenance.method == "language_vectors"


def test_fit_takes_positions_weighting_and_a_quality_contrast(command: Command, model: Path, tmp_path: Path) -> None:
    good, bad = ["Rumah itu besar.", "Dia membaca buku"], ["\u201cRumah besar itu\u201d", "dia buku membaca ."]
    (tmp_path / "good.txt").write_text("\n".join(good), encoding="utf-8")
    (tmp_path / "bad.txt").write_text("\n".join(bad), encoding="utf-8")
    words = ("vectors", "fit", "-t", f"positive={tmp_path / 'good.txt'}", "-t", f"negative={tmp_path / 'bad.txt'}")
    traced = load(str(model))
    choices: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        ((), {}),
        (("--no-surface",), {"surface": False}),
        (("--positions", "last:3", "--weighting", "text"), {"positions": "last:3", "weighting": "text"}),
    ]
    for extra, options in choices:
        kind = ("--kind", "quality", "--name", "quality-id", "-m", model, "--out", tmp_path / "v", "-q")
        assert command(*words, *kind, *extra).code == 0
        (found,) = load_set(tmp_path / "v").values()
        wanted = fit_contrast_vector(traced, good, bad, name="quality-id", kind="quality", **options)
        assert torch.equal(found.direction, wanted.direction) and found.provenance.method == "quality_vector"
        assert found.provenance == wanted.provenance


def test_show_lists_files_folders_and_the_bundled_set(command: Command, vectors: Path, model: Path) -> None:
    rows = json.loads(command("vectors", "show", vectors, "--json").out)
    assert [row["vector"] for row in rows] == ["language-jv", "language-su", "language-id"]
    assert {row["model"] for row in rows} == {str(model)} and rows[0]["layers"] == 4
    (row,) = json.loads(command("vectors", "show", vectors / "language-su.safetensors", "--json").out)
    assert row == {**rows[1], "vector": "language-su"}
    bundled = {row["vector"]: row for row in json.loads(command("vectors", "show", "--json").out)}
    assert {f"language-{c}" for c in ("am", "jv", "su")} | {"quality-jv", "quality-sl-backtranslated"} <= bundled.keys()
    assert {row["model"] for row in bundled.values()} == {"polyglot-mini"}
    table = command("vectors", "show").out
    assert all(name in table for name in bundled)  # names are not cut short where the output is no terminal


def test_synthesize_writes_a_whole_run(command: Command, model: Path, tmp_path: Path) -> None:
    printed = _write(command, model, tmp_path / "run", "--seed", "4")
    run = tmp_path / "run"
    store.verify(run)
    assert set(FILES) <= content(run).keys()
    assert [row["label"] for row in _rows(run)] == ["positive"] * 3 + ["negative"] * 3
    assert json.loads((run / "metrics.json").read_text())["metrics"] == printed
    for row in printed:
        assert (row["low"] is not None and row["low"] <= row["high"]) or row["reason"]
    report = (run / "report.md").read_bytes().decode()
    assert "jv/sentiment/none" in report
    assert all((row["text"] in report) == (row["index"] < 2) for row in _rows(run))  # two of each label
    asked = store.read_config(run)
    assert (asked["per_label"], asked["settings"]["seed"], asked["model"]) == (3, 4, str(model))


def test_the_samples_are_those_of_generate(command: Command, model: Path, tmp_path: Path) -> None:
    _write(command, model, tmp_path / "run", "--seed", "4", "--temperature", "0.5")
    rows = _rows(tmp_path / "run")
    asked = [Request(prompt("sentiment", r["label"], "jv"), tuple(r["key"])) for r in rows]
    wanted = generate(load(str(model)), asked, Settings(max_new_tokens=8, temperature=0.5, seed=4), batch_rows=5)
    assert [row["text"] for row in rows] == [postprocess(sample.text) for sample in wanted]


def test_the_same_command_again_changes_no_byte(command: Command, model: Path, tmp_path: Path) -> None:
    first = _write(command, model, tmp_path / "run")
    before = content(tmp_path / "run")
    assert _write(command, model, tmp_path / "run") == first
    assert content(tmp_path / "run") == before
    _write(command, model, tmp_path / "rows", "--batch-rows", "1")
    assert _texts(tmp_path / "rows") == _texts(tmp_path / "run")
    _write(command, model, tmp_path / "seed", "--seed", "1")
    assert _texts(tmp_path / "seed") != _texts(tmp_path / "run")


def test_synthesize_steers_by_a_fitted_folder_or_file(
    command: Command, model: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --layer and --strength by the defaults: what suits the bundled model's vectors says nothing about these."""
    monkeypatch.setattr(synthesize_command, "recommended", lambda name: (3, 9.0))
    _write(command, model, tmp_path / "plain")
    _write(command, model, tmp_path / "folder", "-v", vectors)
    (steered,) = _rows(tmp_path / "folder")[0]["interventions"]
    assert (steered["vector"], steered["layers"], steered["strength"]) == ("language-jv", [1], 0.5)
    assert steered["unit"] == "residual"
    _write(command, model, tmp_path / "file", "-v", vectors / "language-jv.safetensors")
    assert _texts(tmp_path / "file") == _texts(tmp_path / "folder") != _texts(tmp_path / "plain")
    _write(command, model, tmp_path / "zero", "-v", vectors, "--strength", "0")
    assert _texts(tmp_path / "zero") == _texts(tmp_path / "plain")
    _write(command, model, tmp_path / "raw", "-v", vectors, "--layer", "2", "--strength", "7", "--unit", "raw")
    (steered,) = _rows(tmp_path / "raw")[0]["interventions"]
    assert (steered["layers"], steered["strength"], steered["unit"]) == ([2], 7.0, "raw")


def _bundled(monkeypatch: pytest.MonkeyPatch, model: Path) -> dict[str, SteeringVector]:
    """The tiny model in the place of the bundled one, with vectors for Javanese."""
    traced = load(str(model))
    record = replace(vector(0).provenance, model=traced.name, revision=traced.revision)
    names = ("language-jv", "quality-jv")
    found = {name: replace(vector(k), name=name, provenance=record) for k, name in enumerate(names)}
    monkeypatch.setattr(synthesize_command, "BUNDLED", traced.name)
    monkeypatch.setattr(synthesize_command, "bundled_vectors", lambda: found)
    return found


def test_the_bundled_vectors_act_where_they_were_found_best(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, traced = _bundled(monkeypatch, model), load(str(model))
    best = {"language-jv": (2, 0.75), "quality-jv": (3, 0.25)}
    monkeypatch.setattr(synthesize_command, "recommended", best.get)
    for kind, name in (("language", "language-jv"), ("quality", "quality-jv"), ("random", "language-jv")):
        (one,) = interventions(Steering(kind), ("jv",), traced, seed=3)["jv"]
        assert (one.at, one.strength, one.unit) == ((best[name][0],), best[name][1], "residual")
        same = torch.equal(one.vector.direction, found[name].direction)
        assert same == (kind != "random")
        assert torch.equal(one.vector.raw_norm, found[name].raw_norm)
    (one,) = interventions(Steering("language", layer=0, strength=2.0), ("jv",), traced, seed=3)["jv"]
    assert (one.at, one.strength) == ((0,), 2.0)
    assert interventions(Steering(), ("jv",), traced, seed=3) == {}


def test_leakage_is_reported_or_why_it_is_not(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bundled(monkeypatch, model)
    (tmp_path / "data").mkdir()
    _write(command, model, tmp_path / "run", "-v", "language", "--data", tmp_path / "data")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["leakage"]
    assert found["clean"] is None and "ntrex" in found["reason"]
    assert "not checked: the data folder" in (tmp_path / "run" / "report.md").read_text()
    test = "Panggonane resik lan pelayanane ramah banget, aku seneng."
    texts: dict[str, dict[str, list[str]]] = {"own": {"jv": [test], "su": ["abdi tuang sangu di imah"]}}
    monkeypatch.setattr(synthesize_command, "vector_texts", lambda root: texts)
    _write(command, model, tmp_path / "clean", "-v", "language", "--data", tmp_path / "data")
    assert json.loads((tmp_path / "clean" / "metrics.json").read_text())["leakage"]["clean"] is True
    from steerlab.evaluation.human import human_texts

    texts["own"]["jv"] = list(human_texts("sentiment", "jv", source="sample").test_texts[:1])
    _write(command, model, tmp_path / "leaky", "-v", "language", "--data", tmp_path / "data")
    assert json.loads((tmp_path / "leaky" / "metrics.json").read_text())["leakage"]["clean"] is False
    assert "clean: False" in (tmp_path / "leaky" / "report.md").read_text()


def test_a_model_without_chat_template_or_pad_token_writes(command: Command, model: Path, tmp_path: Path) -> None:
    """Without a template the plain instruction is used; padding with EOS changes no text."""
    bare = save_model(tmp_path / "bare", chat=False)
    _write(command, bare, tmp_path / "plain")
    rows = _rows(tmp_path / "plain")
    asked = [Request(prompt("sentiment", r["label"], "jv"), tuple(r["key"])) for r in rows]
    traced = load(str(model), template="plain")
    assert [r["text"] for r in rows] == [
        postprocess(s.text) for s in generate(traced, asked, Settings(max_new_tokens=8))
    ]
    padded = save_model(tmp_path / "padded", pad=False)
    assert load(str(padded)).pad_id == load(str(padded)).tokenizer.eos_token_id == 2
    for folder, out in ((model, "own"), (padded, "eos")):
        _write(command, folder, tmp_path / out)
    assert _texts(tmp_path / "own") == _texts(tmp_path / "eos") != _texts(tmp_path / "plain")
    assert tokenizer(chat=False).chat_template is None and CHAT


def test_evaluate_repeats_the_metrics_of_the_run(command: Command, model: Path, tmp_path: Path) -> None:
    printed = _write(command, model, tmp_path / "run")
    said = command("evaluate", tmp_path / "run", "-m", model, "--source", "sample", "--json")
    assert said.code == 0 and json.loads(said.out) == printed
    file = tmp_path / "elsewhere.jsonl"
    file.write_text((tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    rows = json.loads(command("evaluate", file, "-m", "none", "--seeds", "2", "--source", "sample", "--json").out)
    by_metric = {row["metric"]: row for row in printed}
    names = {row["metric"] for row in rows}
    assert {"language_share", "distinct_2", "macro_f1"} <= names and "log_perplexity" not in names
    assert "log_perplexity" in by_metric
    assert all(row == by_metric[row["metric"]] for row in rows if row["metric"] in ("language_share", "distinct_2"))
    table = command("evaluate", file, "-m", "none", "--source", "sample").out
    assert "language_share" in table and "macro_f1_ceiling" in table


def _start(model: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["synthesize", "-l", "jv", "-l", "su", "-m", str(model), "-n", "12", "--out", str(out), "--batch-rows", "2"]
    command = [sys.executable, "-m", "steerlab.cli", *words, *QUICK, "--max-new-tokens", "60"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_three_times_and_repeated_it_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """SIGKILL once a random number of bytes of drafts stands, in the second half of the first round at the latest."""
    with _start(model, tmp_path / "whole") as process:
        assert process.wait() == 0
    whole, draw = content(tmp_path / "whole"), random.Random(5)
    moments = sorted(draw.randrange(len(whole["drafts.jsonl"]) * 3 // 4) for _ in range(3))
    drafts = tmp_path / "killed" / "drafts.jsonl"
    for moment in moments:
        with _start(model, tmp_path / "killed") as process:
            while not drafts.exists() or drafts.stat().st_size <= moment:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.005))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed" / store.MANIFEST).exists()
    with _start(model, tmp_path / "killed") as process:
        assert process.wait() == 0
    assert content(tmp_path / "killed") == whole
    store.verify(tmp_path / "killed")


@pytest.mark.slow
def test_the_demo_writes_measures_and_draws(command: Command, tmp_path: Path) -> None:
    said = command("demo", "-n", "1", "--out", tmp_path / "demo", "--json", "-q")
    assert said.code == 0, said
    rows = json.loads(said.out)
    assert [row["condition"] for row in rows] == list(demo_command.NAMES.values())
    shares = np.array([row["language_share"] for row in rows], dtype=float)
    assert ((shares >= 0) & (shares <= 1)).all()
    store.verify(tmp_path / "demo")
    assert {f"figures/demo.{e}" for e in ("png", "pdf", "csv", "json")} <= content(tmp_path / "demo").keys()
    samples = _rows(tmp_path / "demo")
    assert {row["language"] for row in samples} == {"am", "jv", "su"}
    assert {row["condition"] for row in samples} == set(demo_command.NAMES)

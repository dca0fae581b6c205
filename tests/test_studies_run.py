"""A whole study on tiny models: every preset through every stage, killed and continued, sharded and merged, and judged."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab import data, store
from steerlab.commands import study as command
from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import train_and_test
from steerlab.studies import directions, memory, writing
from steerlab.studies.judging import Judge
from steerlab.studies.presets import PRESETS, find_study
from tests.command import Command, save_model
from tests.small_run import content

TINY = """
preset = "{preset}"
languages = ["jv", "da"]
tasks = ["sentiment"]
seeds = [0, 1]
per_label = {{ topic = 1, sentiment = 3 }}
shots = 2
max_new_tokens = 6
source = "sample"
texts = "{texts}"
classifier = ""
classifier_seeds = 2
[[models]]
name = "{model}"
template = {template}
dtype = "{dtype}"
device = "cpu"
strengths = [0.5]
layers = {{ early = 0, late = 2 }}
vectors = "fit"
batch_rows = 16
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some text in two languages that stands in no test set."""
    folder = tmp_path_factory.mktemp("texts")
    for code, words in (
        ("jv", "aku kowe dheweke mangan turu lunga teka omah kali gunung"),
        ("da", "jeg du han spiser sover går kommer hus å bjerg"),
    ):
        own = random.Random(code)
        lines = [" ".join(own.choices(words.split(), k=8)) + f" {i}" for i in range(12)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _config(
    folder: Path,
    texts: Path,
    family: str = "llama",
    preset: str = "polyglot-mini",
    dtype: str = "float32",
    changes: str = "",
) -> Path:
    """A TOML file for a study of a tiny model, with the preset's own prompts."""
    model = save_model(folder / family, family, max_position_embeddings=1024)
    template = json.dumps(PRESETS[preset].models[0].template)
    text = TINY.format(preset=preset, texts=texts, model=model, template=template, dtype=dtype)
    path = folder / "study.toml"
    head, models = text.split("[[models]]")
    path.write_text(head + changes + "\n[[models]]" + models, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study that nothing interrupted, and its configuration."""
    folder = tmp_path_factory.mktemp("whole")
    config = _config(folder, texts)
    command.run(str(config), folder / "out", None, progress=False)
    return config, folder / "out"


def _bytes(out: Path) -> dict[str, bytes]:
    """What must be the same whatever happened on the way: samples, judgements, tables and the page."""
    kept = ("units/", "judged/", "tables/", "vectors/", "report.md", "leakage.json")
    return {name: text for name, text in content(out).items() if name.startswith(kept) and ".lock" not in name}


def test_every_cell_is_written_judged_and_reported(whole: tuple[Path, Path]) -> None:
    config, out = whole
    study = find_study(str(config))
    cells: Any = pd.read_csv(out / "tables" / "cells.csv")
    assert len(cells) == 2 * 2 * 2 * (1 + 4 * 2)  # languages, modes, seeds, arms
    assert set(cells["kind"]) == set(study.kinds) and (cells["n"] <= 6).all()
    assert cells["drafts"].ge(cells["n"]).all() and cells["tokens"].gt(0).all()
    few = cells[cells["mode"] == "few-shot"]["prompt_tokens"].sum()
    assert few > 1.5 * cells[cells["mode"] == "zero-shot"]["prompt_tokens"].sum()
    claim = pd.read_csv(out / "tables" / "claim.csv")
    assert {"share", "share_low", "share_high", "gain", "p", "vs_random"} <= set(claim.columns)
    assert set(claim["strengths"]) == {"every", "chosen"}
    page = (out / "report.md").read_text(encoding="utf-8")
    for heading in ("claims on this model", "What a text costs", "Floor and ceiling"):
        assert heading in page
    for name in ("claim", "strength-zero-shot", "strength-few-shot", "trade", "cosine"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 10_000
        assert f"figures/{name}.png" in page
    for unit in (out / "units").iterdir():
        store.verify(unit)


def test_arms_share_their_noise_and_the_steered_differ(whole: tuple[Path, Path]) -> None:
    unit = sorted((whole[1] / "units").glob("*jv*zero*-0-*"))[0]
    drafts = [json.loads(line) for line in (unit / "drafts.jsonl").read_text(encoding="utf-8").splitlines()]
    first = [row for row in drafts if row["attempt"] == 0]
    by_arm: dict[str, list[tuple[str, str]]] = {}
    for row in first:
        by_arm.setdefault(row["condition"], []).append((str(row["key"]), row["text"]))
    keys = {arm: [k for k, _ in rows] for arm, rows in by_arm.items()}
    assert len(set(map(tuple, keys.values()))) == 1 and len(by_arm) == 9
    plain = by_arm["none"]
    assert all(rows != plain for arm, rows in by_arm.items() if arm != "none")


def test_the_numbers_of_a_cell_are_those_of_its_texts_alone(whole: tuple[Path, Path]) -> None:
    config, out = whole
    unit = sorted((out / "units").glob("*da*few*-1-*"))[0]
    rows = [json.loads(line) for line in (unit / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [row for row in rows if row["condition"] == "quality/early/0.5"]
    judge = Judge(find_study(str(config)), "da", "sentiment", None)
    alone = train_and_test([r["text"] for r in own], [r["label"] for r in own], *judge.test, seeds=[1, 2])
    cells: Any = pd.read_csv(out / "tables" / "cells.csv")
    cell = cells[
        (cells["language"] == "da")
        & (cells["mode"] == "few-shot")
        & (cells["seed"] == 1)
        & (cells["kind"] == "quality")
        & (cells["group"] == "early")
    ].iloc[0]
    assert cell["macro_f1"] == pytest.approx(np.mean(alone.per_seed), abs=1e-5)
    assert cell["n"] == len(own)


def test_few_shot_examples_are_never_tested_on(whole: tuple[Path, Path]) -> None:
    study = find_study(str(whole[0]))
    judge = Judge(study, "jv", "sentiment", None)
    shown = {t for texts in directions.shots_of(study, "jv", "sentiment", None).values() for t in texts}
    assert len(shown) == 4 and not shown & set(judge.human.test_texts)
    report = json.loads((whole[1] / "leakage.json").read_text(encoding="utf-8"))
    assert report["clean"] and set(report["sizes"]) == {"vector texts", "few-shot examples", "test texts"}


def test_leaked_texts_stop_the_study_before_anything_is_written(texts: Path, tmp_path: Path) -> None:
    leaky = tmp_path / "leaky"
    shutil.copytree(texts, leaky)
    tested = data.load("sample", "jv", split="sentiment").texts[-1]
    (leaky / "jv.txt").write_text((leaky / "jv.txt").read_text(encoding="utf-8") + tested + "\n", encoding="utf-8")
    with pytest.raises(SteerlabError, match="share 1 exact"):
        command.run(str(_config(tmp_path, leaky)), tmp_path / "out", None, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("preset", "family", "dtype"),
    [
        ("gemma-2-9b-it", "gemma2", "bfloat16"),
        ("llama-3.1-8b-instruct", "llama", "bfloat16"),
        ("polyglot-mini", "qwen2", "float32"),
    ],
)
@pytest.mark.slow
def test_presets_run_through_every_stage(preset: str, family: str, dtype: str, texts: Path, tmp_path: Path) -> None:
    changes = 'kinds = ["none", "language+quality"]'
    config = _config(tmp_path, texts, family, preset, dtype, changes)
    rows = command.run(str(config), tmp_path / "out", None, progress=False)
    assert {row["kind"] for row in rows} == {"language+quality"} and {row["mode"] for row in rows} == {
        "zero-shot",
        "few-shot",
    }
    unit = json.loads(next((tmp_path / "out" / "units").glob("*/config.json")).read_text(encoding="utf-8"))
    assert unit["template"] == PRESETS[preset].models[0].template and unit["dtype"] == dtype


@pytest.mark.slow
def test_a_study_may_fine_tune_a_transformer_instead(texts: Path, tmp_path: Path) -> None:
    """The paper's classifier, here the tiny model itself: the ceiling and every cell come from it, and differ from the n-grams'."""
    changes = 'kinds = ["none", "quality"]\nmodes = ["zero-shot"]'
    config = _config(tmp_path, texts, changes=changes)
    command.run(str(config), tmp_path / "out", None, progress=False)
    text = config.read_text(encoding="utf-8").replace('classifier = ""', f'classifier = "{tmp_path / "llama"}"')
    config.write_text(
        text.replace("classifier_seeds = 2", "classifier_seeds = 1").replace("seeds = [0, 1]", "seeds = [0]"),
        encoding="utf-8",
    )
    quick: Any = pd.read_csv(tmp_path / "out" / "tables" / "cells.csv")
    command.run(str(config), tmp_path / "out", None, progress=False)
    slow: Any = pd.read_csv(tmp_path / "out" / "tables" / "cells.csv")
    assert len(slow) == len(quick) / 2 and slow["macro_f1"].between(0, 1).all()
    quick = quick[quick["seed"] == 0].reset_index(drop=True)
    assert (slow["distinct_2"] == quick["distinct_2"]).all() and (slow["macro_f1"] != quick["macro_f1"]).any()


@pytest.mark.slow
def test_two_shards_merged_equal_the_whole(whole: tuple[Path, Path], tmp_path: Path) -> None:
    config, out = whole
    for i in (1, 2):
        command.run(str(config), tmp_path / f"part{i}", None, shard=f"{i}/2", stage="write", progress=False)
        written = list((tmp_path / f"part{i}" / "units").iterdir())
        assert len(written) == 4
    command.merge(str(config), tmp_path / "all", [tmp_path / "part1", tmp_path / "part2"], None, progress=False)
    assert _bytes(tmp_path / "all") == _bytes(out)
    damaged = next((tmp_path / "part1" / "units").glob("*/samples.jsonl"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(SteerlabError):
        command.merge(str(config), tmp_path / "again", [tmp_path / "part1"], None, progress=False)
    with pytest.raises(SteerlabError, match="no finished units"):
        writing.merge(tmp_path / "again", [tmp_path / "nothing"])


def _start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "steerlab.cli", "study", "low-resource", str(config), "--out", str(out), "-q"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_in_three_stages_it_ends_with_the_same_bytes(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """SIGKILL while vectors are fitted, while a unit is written, and while units are judged; then two processes finish it."""
    config, out = whole
    killed = tmp_path / "killed"
    seen = {
        "vectors": lambda: (
            any((killed / "vectors").glob("**/.new/*")) or any((killed / "vectors").glob("*/vectors.json"))
        ),
        "units": lambda: len(list((killed / "units").glob("*/manifest.json"))) >= 3,
        "judged": lambda: len(list((killed / "judged").glob("*.jsonl"))) >= 2,
    }
    for reached in seen.values():
        with _start(config, killed) as process:
            while not reached():
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not (killed / "report.md").exists()
    assert command.run(str(config), killed, None, progress=False)
    assert _bytes(killed) == _bytes(out)


@pytest.mark.slow
def test_two_processes_share_one_folder(whole: tuple[Path, Path], tmp_path: Path) -> None:
    config, out = whole
    shared = tmp_path / "shared"
    with _start(config, shared) as first, _start(config, shared) as second:
        assert [first.wait(), second.wait()] == [0, 0], [p.stderr.read() for p in (first, second) if p.stderr]
    assert _bytes(shared) == _bytes(out)


def test_a_dry_run_writes_nothing_and_says_what_it_would_take(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (row,) = command.dry_run(str(whole[0]), None)
    assert (row["units"], row["cells"], row["texts"]) == (8, 8 * 9, 8 * 9 * 6)
    assert row["new_tokens_at_most"] == 8 * 9 * 6 * 6 and row["prompt_tokens"] > row["texts"]
    assert row["hours_at_most"] >= 0 and row["seconds_per_new_token_step"] > 0
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_why_a_model_cannot_be_used_here(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: (24e9, "one small card"))
    (row,) = command.dry_run("llama-3.1-70b-instruct", shared)
    assert row["memory_gb"] > 100 and row["hours_at_most"] is None and "one small card has 24 GB" in row["note"]
    assert row["units"] == 108 and row["cells"] == 108 * 49


def test_the_command_refuses_in_one_sentence(command_line: Command, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    command_line.refused("study", "low-resource", "polyglot-mni", *out, because="did you mean 'polyglot-mini'")
    command_line.refused("study", "low-resource", "polyglot-mini", "--shard", "3/2", *out, because="is not i/n")
    command_line.refused("study", "low-resource", "polyglot-mini", "--stage", "cook", *out, because="stage 'cook'")
    assert not (tmp_path / "out").exists()
    said = command_line("study", "presets", "--json")
    assert {row["preset"] for row in json.loads(said.out)} == set(PRESETS)
    assert command_line("study", "presets", "polyglot-mini").out.startswith('preset = "polyglot-mini"')


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)

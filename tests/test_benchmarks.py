"""Every benchmark runs from its command line and writes what it found; how fast anything is, is not for a test to say."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import Report, Row

NAMES = {
    path.stem
    for path in (Path(timing.__file__).parent).glob("*.py")
    if "timing.main(" in path.read_text(encoding="utf-8")
} - {"vllm"}  # which runs in an environment of its own: tests/test_engines.py
ROW = set(Row.__dataclass_fields__) | {"met"}


@pytest.fixture(autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_benchmarks_are_found() -> None:
    names = {"capture", "economy", "generate", "gpu", "growth", "guided", "instructions", "sweep", "memory", "study"}
    assert names == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_quick_run_writes_its_table(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    argv = ["--quick", "--out", str(tmp_path), "--threads", "1"]
    path = timing.main(name, module.Config(), module.QUICK, module.measure, argv)
    assert path == tmp_path / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["benchmark"] == name and record["quick"] is True
    assert record["config"]["threads"] == 1
    assert {"cores", "threads", "torch", "transformers", "nnsight"} <= set(record["machine"])
    assert record["rows"]
    for row in record["rows"]:
        assert set(row) == ROW
        numbers = [row[k] for k in ("ratio", "low", "high", "value", "base_value")]
        assert all(math.isfinite(x) and x > 0 for x in numbers)
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["met"] is None or isinstance(row["met"], bool)
    assert any(row["target"] is not None for row in record["rows"])
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 1 + len(record["rows"]) and "mean nothing" in printed
    differing = {k: v for k, v in record["facts"].items() if "tokens differ" in k}
    assert len(differing) == (name in ("generate", "guided", "instructions", "sweep")) and not any(differing.values())


def test_a_ratio_is_the_median_of_ratios_within_a_repetition() -> None:
    seconds = {"ours": [2.0, 9.0, 3.0], "plain": [1.0, 3.0, 2.0]}
    row = timing.compare(seconds, "ours", "plain", 2.5)
    assert (row.ratio, row.low, row.high) == (2.0, 1.5, 3.0)  # the ratio of the medians is 1.5
    assert (row.value, row.base_value, row.repetitions, row.met) == (3.0, 2.0, 3, True)
    assert timing.compare(seconds, "ours", "plain", 2.5, "at least").met is False
    assert timing.compare(seconds, "ours", "plain").met is None


def test_repetitions_interleave_the_cases_in_turning_order() -> None:
    order: list[str] = []
    seconds = timing.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(some) for some in seconds.values()] == [3, 3]


def test_options_override_the_quick_values_and_nothing_is_dated(tmp_path: Path) -> None:
    sweep = importlib.import_module("benchmarks.sweep")
    seen: list[object] = []

    def measure(config: object) -> Report:
        seen.append(config)
        return Report("nothing")

    argv = ["--quick", "--layers", "5", "--out", str(tmp_path), "--threads", "1"]
    first = timing.main("sweep", sweep.Config(), sweep.QUICK, measure, argv).read_bytes()
    assert seen == [sweep.Config(**{**sweep.QUICK, "layers": 5, "threads": 1})]
    assert timing.main("sweep", sweep.Config(), sweep.QUICK, measure, argv).read_bytes() == first


def test_a_quick_run_replaces_no_measurement() -> None:
    assert timing.QUICK_RESULTS != timing.RESULTS

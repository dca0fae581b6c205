"""The page of the low-resource study comes from a finished study's folder once, and from the committed tables ever after."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import analyses.__main__ as every
from analyses import _harness
from steerlab.studies import draw, report
from tests.small_run import content
from tests.test_studies_claims import LANGUAGES, cells
from tests.walls import ROOT

SCRIPT = ROOT / "analyses" / "04_low_resource.py"
low: Any = importlib.import_module("analyses.04_low_resource")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """What a finished study leaves, with an effect that is known."""
    arms = {
        (k, g, s): e for k, e in (("quality", 0.05), ("random", 0.0)) for g in ("early", "late") for s in (0.3, 1.0)
    }
    table = cells(arms, seeds=2, noise=0.01, modes=("zero-shot", "few-shot"))
    table["distinct_2"] = 0.9 - 0.05 * table["strength"] + np.linspace(0, 0.01, len(table))
    for metric in set(report.METRICS) - set(table.columns):
        table[metric] = np.nan
    table["macro_f1_seeds"] = [[value, value + 0.01] for value in table["macro_f1"]]
    top = {"ceiling": 0.8, "ceiling_low": 0.7, "ceiling_high": 0.9, "ceiling_texts": 100}
    facts = {"task": "topic", "test_texts": 50, "source": "made up", "floor": 0.1, **top}
    references = pd.DataFrame([{"language": code, **facts} for code in LANGUAGES])
    angles = pd.DataFrame(
        [{"model": "m", "language": c, "group": g, "cosine": -0.2} for c in LANGUAGES for g in ("early", "late")]
    )
    worth = pd.DataFrame(columns=["model", "language", "task", "what", "measure", "k", "value"])
    for name in ("tables", "figures", "units/a", "units/b"):
        (tmp_path / "study" / name).mkdir(parents=True)
    report.write_tables(report.tables(table, references, angles, worth), tmp_path / "study" / "tables")
    for name in ("a", "b"):
        (tmp_path / "study" / "units" / name / "config.json").write_text('{"model_revision": "weights-7"}')
        (tmp_path / "study" / "units" / name / "samples.jsonl").write_text(name)
        (tmp_path / "study" / "units" / name / "manifest.json").write_text("{}")
    (tmp_path / "study" / "units" / "begun").mkdir()
    (tmp_path / "study" / "units" / "begun" / "config.json").write_text('{"model_revision": "weights-7"}')
    return tmp_path / "study"


def _finish(study: Path) -> None:
    record = {"config": {"seeds": [0]}, "config_key": "k", "strength_unit": "fraction of the residual norm"}
    (study / "figures" / "claim.json").write_text(json.dumps(record))


def test_a_study_that_has_not_ended_is_passed_over(study: Path, tmp_path: Path) -> None:
    found = every.run(SCRIPT, ["--study", str(study), "--out", str(tmp_path / "out")])
    assert found.state == "not there yet" and "holds no finished study: run `steerlab study low-resource" in found.why
    assert not (tmp_path / "out").exists()
    again = every.run(SCRIPT, ["--redraw", "--out", str(tmp_path / "out")])
    assert again.state == "not there yet"


@pytest.mark.slow
def test_its_tables_are_taken_once_and_redrawn_without_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _finish(study)
    monkeypatch.setattr(_harness, "FOLDER", tmp_path / "figures")  # pages go with the committed figures only
    monkeypatch.setattr(_harness, "ROOT", tmp_path)
    monkeypatch.setattr(_harness, "CACHE", tmp_path / "cache")
    out = ["--out", str(tmp_path / "figures")]
    assert every.run(SCRIPT, ["--study", str(study), *out]).state == "done"
    made = content(tmp_path / "figures")
    for name in ("claim", "cells", "by-strength", "references"):
        assert made[f"low-resource/{name}.csv"] == (study / "tables" / f"{name}.csv").read_bytes()
    drawn = {"claim", "strength-zero-shot", "strength-few-shot", "trade", "cosine"}
    assert {f"low_resource_{name}.{end}" for name in drawn for end in ("csv", "png", "pdf")} <= made.keys()
    record = json.loads(made["low_resource.json"])
    assert record["model_revision"] == "weights-7" and record["facts"]["config_key"] == "k"
    page = (tmp_path / "docs" / "results" / "low-resource.md").read_text(encoding="utf-8")
    assert "**Held.** Quality vectors at early blocks" in page and "(../../figures/low_resource_trade.png)" in page
    assert "generation seeds [0, 1] (zero-shot) and [0, 1] (few-shot)" in page
    assert "not written whole yet: seed 2, zero-shot: 0 of " in page and "; seed 2, few-shot: 0 of " in page
    before, text = record["data"], (study / "units" / "b" / "samples.jsonl")
    text.write_text("other")
    assert every.run(SCRIPT, ["--study", str(study), *out]).state == "done"  # nothing is kept from before
    assert json.loads((tmp_path / "figures" / "low_resource.json").read_text())["data"] != before
    made = content(tmp_path / "figures")
    (study / "figures" / "claim.json").unlink()
    assert every.run(SCRIPT, ["--redraw", *out]).state == "done"
    assert content(tmp_path / "figures") == made


def _headline(claim: pd.DataFrame) -> str:
    figure, _ = draw.claim(claim)
    text = figure.get_suptitle()
    labels = figure.legends[0].get_texts()
    assert "half of the cases" in {label.get_text() for label in labels}  # what the dashed line is
    draw.figures.plt.close(figure)
    return " ".join(text.split())


def test_the_title_of_the_claim_is_the_papers_claim_and_not_the_best_cell() -> None:
    claim = pd.read_csv(ROOT / "figures" / "low-resource" / "claim.csv")
    page = (ROOT / "docs" / "results" / "low-resource.md").read_text(encoding="utf-8")
    assert (
        "Quality vectors at early blocks raise macro-F1 in most cases (paper: 79.54 %): 22 % [12, 35] of cases" in page
    )
    want = "22 % [12, 35] of cases; a random direction in 24 %; the paper reports 79.54 %"
    assert _headline(claim) == f"zero-shot: quality vectors at early blocks raise macro-F1 in {want}"
    early: Any = claim[(claim["kind"] == "language") & (claim["group"] == "early")]
    told = _headline(early)  # another study: its first cell, without the paper's number and without a control
    assert told == "zero-shot: language vectors at early blocks raise macro-F1 in 25 % [14, 42] of cases"

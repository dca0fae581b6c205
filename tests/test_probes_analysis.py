"""The probe analysis keeps sentences together across languages and draws titles from its tables."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from analyses import _probe_data as texts
from analyses import _probe_draw as drawing
from analyses._harness import FOLDER, committed
from steerlab import data
from steerlab.probes import layerwise
from steerlab.probing import ProbeRows, read_rows
from tests.tiny import tiny

script: Any = import_module("analyses.05_probe_curves")


def _rows(names: tuple[str, ...], n: int = 40) -> ProbeRows:
    """Rows whose class k lies 3 further along axis k of layer 1."""
    y, groups = torch.arange(n * len(names)) // n, torch.arange(n * len(names)) % n
    x = torch.randn(len(y), 3, 8, generator=torch.Generator().manual_seed(0))
    x[torch.arange(len(y)), 1, y] += 3.0
    some = read_rows(tiny("llama"), {"x": ["a"], "y": ["b"]}).provenance
    return ProbeRows(
        x, x[:, 0], y, groups, groups, tuple("a" for _ in y), names, (0, 1, 2), x.norm(dim=-1).mean(0), "tokens", some
    )


def test_every_language_has_its_auroc_against_the_rest() -> None:
    for names in (("en", "jv"), ("en", "jv", "su")):
        rows = _rows(names)
        real = layerwise(rows.x[:, 1:2], rows.y, rows.groups, "lda", shuffles=0, resamples=20)[0]
        found = script._each("NusaX", rows, 1, real, script.Config(resamples=20))
        assert [own["language"] for own in found] == list(names)
        assert all(own["value"] > 0.75 and own["low"] <= own["value"] <= own["high"] for own in found)
        assert found[0]["value"] == pytest.approx(found[-1]["value"], abs=0.1)


def test_domains_hold_two_languages_and_share_no_sentence() -> None:
    tokens = {
        texts.NUSAX: _rows(("en", "id", "jv", "su")),
        texts.WRITES: _rows(("jv", "su")),
        texts.TOPICS: _rows(("jv", "su")),
    }
    found = script._domains(tokens, 1)
    assert [len(own.y) for own in found.values()] == [80, 80, 80]
    assert all(torch.bincount(own.y).tolist() == [40, 40] for own in found.values())
    groups = [set(own.groups.tolist()) for own in found.values()]
    assert not groups[0] & groups[1] and not groups[1] & groups[2] and len(groups[0]) == 40
    first = found[texts.NUSAX]
    assert first.x[first.y == 1, 3].mean() > first.x[first.y == 0, 3].mean() + 2  # su was the fourth class


def test_group_numbers_mean_the_same_in_every_set() -> None:
    one = texts.Sentences(
        {"degraded": ["a", "b"], "human": ["c", "d"]}, {"degraded": ["k1", "k2"], "human": ["k1", "k2"]}
    )
    two = texts.Sentences(
        {"degraded": ["e", "f"], "human": ["g", "h"]}, {"degraded": ["k2", "k3"], "human": ["k2", "k3"]}
    )
    model = tiny("llama")
    found = texts.shared_numbers({"x": (one, one.rows(model, "mean", 1)), "y": (two, two.rows(model, "mean", 1))})
    assert found["x"].groups.tolist() == [0, 1, 0, 1] and found["y"].groups.tolist() == [1, 2, 1, 2]


def test_the_data_are_parallel_held_out_and_differ_in_every_pair(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERLAB_DATA", str(shared))
    spoken = texts.languages(texts.NTREX, 50)
    assert len(spoken.texts) == 10 and len({tuple(own) for own in spoken.keys.values()}) == 1
    fitted = {e.id for e in data.load("ntrex", "cs", split="vectors").examples}
    assert not fitted & {key[1] for key in spoken.keys["cs"]}  # type: ignore[index]
    topics = texts.languages(texts.TOPICS, 20)
    assert not set(topics.keys["jv"]) & set(topics.keys["su"])
    pairs = texts.quality(0.3, 0, 30, 40)
    assert list(pairs)[:2] == list(texts.BACK.values()) and len(pairs) == 14
    for own in pairs.values():
        assert all(a != b for a, b in zip(own.texts["human"], own.texts["degraded"], strict=True))
        assert own.keys["human"] == own.keys["degraded"]
    assert set(pairs["cs"].keys["human"]) & set(pairs["de"].keys["human"])
    assert not set(pairs["cs"].keys["human"]) & set(pairs["jv"].keys["human"])


def test_titles_are_computed_from_the_tables() -> None:
    if not (FOLDER / "probe_curves.json").is_file():
        pytest.skip("figures/probe_curves.json is not computed yet")
    result = committed("05_probe_curves.py")
    before = drawing.draw(result)
    assert set(before) == {drawing.LANGUAGE, drawing.QUALITY, drawing.TRANSFER, drawing.TRANSFER_LAYERS}
    for name in (drawing.LANGUAGE, drawing.QUALITY):
        table: Any = result.tables[name]
        table["value"] = table["value"] * 0.9
        changed = drawing.draw(result)[name]
        assert changed.get_suptitle() != before[name].get_suptitle()
        assert any(char.isdigit() for char in changed.get_suptitle())
    plt.close("all")


def test_a_row_says_what_was_probed_and_leaves_gaps_where_nothing_was() -> None:
    rows = _rows(("en", "jv"))
    real = layerwise(rows.x[:, :1], rows.y, rows.groups, "lda", shuffles=1, resamples=20)[0]
    own = pd.DataFrame([script._row("tokens", "NusaX", 0, real)]).iloc[0]
    assert (own["set"], own["kind"], own["metric"], own["classes"]) == ("NusaX", "lda", "auroc", 2)
    assert own["value"] == real.value and pd.isna(own["control"]) and pd.isna(own["selectivity_value"])

"""A rule's worth is measured on base queries that had no say in its choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.following.crossfit import compare_rules, cross_fit
from steerlab.following.paper_rule import paper_rule
from steerlab.following.shrunken_rule import shrunken_rule
from steerlab.following.trials import Cell, TrialTable
from tests.planted_trials import CELLS, planted, shared_peak


def test_no_base_query_chooses_for_itself_in_any_instruction() -> None:
    tables = planted(shared_peak(3, peak=4), 20, 0, per_group=2)
    seen: list[set[str]] = []

    def rule(training: Mapping[str, TrialTable]) -> dict[str, Cell | None]:
        seen.append({group for own in training.values() for group in own.groups})
        return dict.fromkeys(training)

    items = cross_fit(tables, rule, k=5).items
    assert len(items) == 60 and not items.duplicated(["instruction", "prompt"]).any()
    for fold, groups in enumerate(seen):
        held = set(items.loc[items["fold"] == fold, "group"])
        assert held and held.isdisjoint(groups) and len(held | groups) == 10


def test_held_out_rates_are_looked_up_at_what_was_chosen() -> None:
    tables = planted(shared_peak(2, peak=4), 30, 0)
    fit = cross_fit(tables, lambda training: dict.fromkeys(training, CELLS[5]), k=3)
    for name, own in tables.items():
        assert fit.rate(name).value == pytest.approx(own.followed[:, 5].mean())
        assert fit.gain(name).value == pytest.approx(own.followed[:, 5].mean() - own.followed[:, 0].mean())
    none = cross_fit(tables, lambda training: dict.fromkeys(training), k=3)
    assert none.gain().value == 0 and set(none.items["layer"]) == {-1}
    table: Any = fit.table()
    assert table["instruction"].tolist() == ["all", "i0", "i1"] and table["n"].tolist() == [60, 30, 30]
    assert table["layers"].tolist()[1] == "14 14 14" and "i0" in fit._repr_html_()


def test_choosing_noise_promises_what_held_out_prompts_do_not_keep() -> None:
    """Where no layer does anything, the paper's rule promises a gain; held out there is none; ours promises little."""
    promised, held, ours = [], [], []
    for seed in range(8):
        tables = planted({f"i{i}": np.full(len(CELLS), 0.3) for i in range(6)}, 10, seed)
        fit = cross_fit(tables, paper_rule, k=5, seed=seed)
        promised.append(fit.optimism())
        held.append(fit.gain().value)
        ours.append(cross_fit(tables, shrunken_rule, k=5, seed=seed).optimism())
    assert np.mean(promised) > 0.2 and abs(np.mean(held)) < 0.05
    assert np.mean(ours) < 0.4 * np.mean(promised)


def test_rules_are_compared_on_the_same_folds() -> None:
    tables = planted(shared_peak(8, peak=5, seed=1), 8, 1)
    found: Any = compare_rules(tables, {"paper": paper_rule, "ours": shrunken_rule}, k=4)
    assert found["rule"].tolist() == ["paper", "ours"]
    assert found["over_first"].tolist()[0] == 0
    assert found["over_first"][1] == pytest.approx(found["rate"][1] - found["rate"][0])
    assert found["rate"][0] == cross_fit(tables, paper_rule, k=4).rate().value
    with pytest.raises(SteerlabError, match="9 folds of 8 base queries"):
        cross_fit(tables, paper_rule, k=9)

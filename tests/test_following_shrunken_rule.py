"""Our rule on planted follow rates: shares what is shared, keeps what is an instruction's own, and leaves alone what nothing helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.following.paper_rule import paper_rule
from steerlab.following.shrunken_rule import (
    MEAN_SPREAD,
    Spreads,
    _measure,
    _posterior,
    shrunken_choices,
    shrunken_rule,
)
from steerlab.following.trials import Cell, TrialTable
from tests.planted_trials import CELLS, planted, shared_peak, value


def test_with_few_prompts_a_shared_layer_is_found_better_than_by_the_paper_s_rule() -> None:
    gains = []
    for seed in range(12):
        rates = shared_peak(8, peak=4 + seed % 3, seed=seed)
        tables = planted(rates, 6, seed)
        gains.append(value(rates, shrunken_rule(tables)) - value(rates, paper_rule(tables)))
    assert np.mean(gains) > 0.05 and np.mean(np.array(gains) > 0) >= 0.75


def test_with_many_prompts_an_instruction_keeps_its_own_layer() -> None:
    rates = shared_peak(6, peak=2)
    rates["odd"] = np.full(len(CELLS), 0.1)
    rates["odd"][9] = 0.9
    found = shrunken_choices(planted(rates, 200, 0))
    assert found.cells["odd"] == CELLS[9]
    assert found.spreads.own > 0 and found.cells["i0"] in CELLS[2:5]


def test_where_nothing_helps_nothing_is_steered_though_the_paper_s_rule_steers() -> None:
    ours = theirs = 0
    for seed in range(12):
        rates = {f"i{i}": np.full(len(CELLS), 0.2) for i in range(8)}
        tables = planted(rates, 8, seed)
        ours += sum(cell is not None for cell in shrunken_rule(tables).values())
        theirs += sum(cell is not None for cell in paper_rule(tables).values())
    assert theirs > 0.7 * 96 and ours < 0.1 * 96


def test_where_steering_harms_nothing_is_steered() -> None:
    rates = {f"i{i}": np.concatenate([[0.8], np.full(len(CELLS) - 1, 0.3)]) for i in range(4)}
    assert set(shrunken_rule(planted(rates, 10, 0)).values()) == {None}


def test_an_instruction_without_prompts_gets_what_the_others_share() -> None:
    rates = shared_peak(8, peak=5)
    tables = planted(rates, 30, 1)
    tables["i0"] = tables["i0"].rows([])
    found = shrunken_choices(tables)
    assert found.cells["i0"] in (CELLS[5], CELLS[6], CELLS[7])
    rows: Any = found.gains[found.gains["instruction"] == "i0"]
    assert rows["raw"].isna().all() and (rows["n"] == 0).all()
    others: Any = found.gains[found.gains["instruction"] == "i1"]
    width = rows["high"] - rows["low"]
    assert width.mean() > (others["high"] - others["low"]).mean()


def test_shrinkage_pulls_towards_the_shared_gain_the_more_the_fewer_prompts() -> None:
    rates = shared_peak(10, peak=5, height=0.6)
    rates["i0"] = np.full(len(CELLS), 0.1)

    def pull(n: int, seed: int) -> float:
        gains: Any = shrunken_choices(planted(rates, n, seed)).gains
        at = gains[gains["layer"] == 16].set_index("instruction")
        return float(at.loc["i0", "gain"] - at.loc["i0", "raw"])

    few, many = np.mean([pull(4, seed) for seed in range(8)]), pull(300, 0)
    assert few > 0.1 and abs(many) < 0.05


def test_degenerate_answers_count_as_not_followed_in_every_arm_alike() -> None:
    rates = {f"i{i}": np.concatenate([[0.0], np.ones(len(CELLS) - 1)]) for i in range(3)}
    tables = planted(rates, 20, 0)

    def broken(columns: list[int]) -> dict[str, TrialTable]:
        found = {}
        for name, own in tables.items():
            low = np.full(own.followed.shape, 9.0)
            low[:, columns] = 1.0
            found[name] = TrialTable(name, own.prompts, own.groups, own.cells, own.followed, low)
        return found

    assert set(shrunken_rule(tables).values()) == {CELLS[1]}
    assert not set(shrunken_rule(broken([1, 2])).values()) & {None, *CELLS[1:3]}
    assert set(shrunken_rule(broken(list(range(1, len(CELLS))))).values()) == {None}
    assert shrunken_rule(broken([0])) == shrunken_rule(tables)


def test_one_instruction_alone_and_no_cells() -> None:
    rates = {"i": np.concatenate([[0.1], np.full(len(CELLS) - 1, 0.1)])}
    rates["i"][4] = 0.95
    found = shrunken_choices(planted(rates, 40, 0))
    assert found.cells == {"i": CELLS[4]} and found.spreads.shared == 0
    unsteered = TrialTable("i", ("p",), ("g",), (None,), np.ones((1, 1), dtype=bool), np.full((1, 1), np.nan))
    assert shrunken_rule({"i": unsteered}) == {"i": None}


def test_gains_have_intervals_and_a_probability() -> None:
    found = shrunken_choices(planted(shared_peak(5, peak=4), 20, 0))
    rows: Any = found.gains
    assert len(rows) == 5 * (len(CELLS) - 1)
    assert (rows["low"] <= rows["gain"]).all() and (rows["gain"] <= rows["high"]).all()
    assert rows["above"].between(0, 1).all() and ((rows["above"] > 0.5) == (rows["gain"] > 0)).all()
    assert "this cell" in found._repr_html_() and "layer" in str(found)


def test_the_posterior_is_that_of_the_joint_gaussian() -> None:
    """Two instructions, two cells, one of the four gains measured by nobody: worked out from the joint covariance."""
    tables = planted(shared_peak(2, peak=4), 10, 0)
    tables["i1"] = tables["i1"].rows([])
    measured, spreads = _measure(list(tables.values()), 2.5), Spreads(0.2, 0.1, 0.15, 2.0)
    k, c = spreads.covariance(2, measured.cells), len(CELLS) - 1
    inverse = np.linalg.inv(k[:c, :c] + measured.covariance())
    mean, sd = _posterior(measured, spreads)
    np.testing.assert_allclose(mean.ravel(), k[:, :c] @ inverse @ measured.gains[0])
    np.testing.assert_allclose(sd.ravel() ** 2, np.diag(k - k[:, :c] @ inverse @ k[:c]))


def test_spreads_are_the_variances_and_covariances_they_say() -> None:
    cells = (Cell(4), Cell(8), Cell(8, 2.0))
    k = Spreads(0.1, 0.2, 0.3, 1.0).covariance(2, cells)
    m = MEAN_SPREAD**2
    assert k[0, 0] == pytest.approx(m + 0.01 + 0.04 + 0.09)  # the same gain
    assert k[0, 1] == pytest.approx(m + 0.04 + (0.01 + 0.09) * np.exp(-1))  # the next layer of one instruction
    assert k[0, 2] == pytest.approx(m + 0.04 + (0.01 + 0.09) * np.exp(-2))  # the next layer and strength
    assert k[0, 3] == pytest.approx(m + 0.01)  # the same cell of the other
    assert k[0, 4] == pytest.approx(m + 0.01 * np.exp(-1))
    assert Spreads(0.1, 0.2, 0.3, 0.0).covariance(1, cells)[0, 1] == pytest.approx(m + 0.04)
    np.linalg.cholesky(k + 1e-12 * np.eye(6))


def test_cells_share_the_noise_of_the_unsteered_answers() -> None:
    """With nothing planted, gains at different cells correlate by half: they are differences from the same answers."""
    found = [
        _measure(list(planted({"i": np.full(len(CELLS), 0.4)}, 200, s).values()), 2.5).correlation for s in range(5)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_what_cannot_be_chosen_from_is_refused() -> None:
    tables = planted(shared_peak(2, peak=4), 5, 0)
    other = tables["i1"]
    cells = (None, *(Cell(layer, 2.0) for layer in range(len(CELLS) - 1)))
    odd = TrialTable("i1", other.prompts, other.groups, cells, other.followed, other.perplexity)
    with pytest.raises(SteerlabError, match="i0 and i1 were tried at different cells"):
        shrunken_rule({"i0": tables["i0"], "i1": odd})
    with pytest.raises(SteerlabError, match="confidence of 1"):
        shrunken_rule(tables, confidence=1.0)
    with pytest.raises(SteerlabError, match="no trials"):
        shrunken_rule({})

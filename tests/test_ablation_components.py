"""Contributions sum to the stream, shares sum to one, and what a planted component writes is found to be needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steerlab.ablation.components import (
    Contributions,
    component_name,
    contribution_shares,
    contributions,
    left_of,
    necessity,
)
from steerlab.ablation.layers import LayerAblation, layer_effects
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.tiny import CORE, LAYERS, hf_model, stranger, tiny, tokenizer, vector

TEXTS = ["the river is wide", "no", "a longer text of the same kind", "and one more"]
POSITIVE = ["aaaa aa", "aa aaaa", "aaa aaa a"]
NEGATIVE = ["zzzz zz", "zz zzzz", "zzz zzz z"]


@pytest.mark.parametrize("family", [*CORE, "gpt2", "neox", "gemma3"])
@pytest.mark.parametrize("stream", ["resid_post", "resid_pre"])
def test_contributions_sum_to_the_stream(family: str, stream: Any) -> None:
    model, v = tiny(family), vector(0, stream)
    found = contributions(model, TEXTS, v, 2)
    assert len(found.components) == 1 + 2 * (3 if stream == "resid_post" else 2)
    scale = np.abs(found.values).sum(1)
    assert np.abs(found.values.sum(1) - found.total).max() < 1e-5 * scale.max()
    for i, text in enumerate(TEXTS):
        h = model.forward(model.encode([text]), read=[Site(2, stream)])[Site(2, stream)][0, 1:]
        assert found.total[i] == pytest.approx(float((h.double() @ v.at(2).double()).mean()), rel=1e-4, abs=1e-4)


def test_in_half_precision_they_sum_up_to_its_rounding() -> None:
    found = contributions(tiny("llama", torch.bfloat16), TEXTS, vector(0), LAYERS - 1)
    gap = np.abs(found.values.sum(1) - found.total)
    assert 0 < gap.max() < 2e-2 * np.abs(found.values).sum(1).max()


def test_models_that_do_not_simply_add_and_other_streams_are_refused() -> None:
    granite = wrap(stranger("Granite", residual_multiplier=0.5), tokenizer(), name="granite")
    with pytest.raises(SteerlabError, match="not what its blocks add"):
        contributions(granite, TEXTS, vector(0), 1)
    with pytest.raises(SteerlabError, match="only the stream"):
        contributions(tiny("llama"), TEXTS, vector(0, "mlp_out"), 1)
    with pytest.raises(SteerlabError, match="width 8"):
        contributions(tiny("llama"), TEXTS, vector(0, width=8), 1)
    with pytest.raises(SteerlabError, match="choose other positions"):
        contributions(tiny("llama"), TEXTS, vector(0), 1, positions="generated")


def test_positions_choose_the_tokens() -> None:
    model, v = tiny("llama"), vector(0)
    last = contributions(model, TEXTS, v, 1, positions="last:1")
    h = model.forward(model.encode(TEXTS), read=[Site(1)])[Site(1)][:, -1].double() @ v.at(1).double()
    assert last.total.tolist() == pytest.approx(h.tolist(), rel=1e-4, abs=1e-4)


def _planted(scale: float, n: int = 40) -> tuple[Contributions, Contributions]:
    """Component 1 makes 3/4 of the difference, component 0 1/2, component 2 works against it."""
    rng = np.random.default_rng(0)
    parts = (Site(0, "resid_pre"), Site(0, "attn_out"), Site(0, "mlp_out"))
    shift = scale * np.array([2.0, 3.0, -1.0])
    sides = [rng.standard_normal((n, 3)) * 0.5 + side * shift for side in (1, 0)]
    positive, negative = (Contributions(parts, Site(0), own, own.sum(1)) for own in sides)
    return positive, negative


@pytest.mark.parametrize("paired", [True, False])
def test_shares_sum_to_one_and_hold_the_planted_ones(paired: bool) -> None:
    table: Any = contribution_shares(*_planted(1.0), paired=paired)
    assert table["value"].sum() == pytest.approx(1.0)
    assert table["component"].tolist() == ["embedding", "attention 0", "MLP 0"]
    for row, share in zip(table.to_dict("records"), (0.5, 0.75, -0.25), strict=True):
        assert row["low"] < row["value"] < row["high"] and row["high"] - row["low"] < 0.3
        assert row["value"] == pytest.approx(share, abs=0.1)
    assert table["difference"].sum() == pytest.approx(float(np.subtract(*(c.total.mean() for c in _planted(1.0)))))


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(SteerlabError, match="not reliably other than 0"):
        contribution_shares(*_planted(0.0))
    positive, negative = _planted(1.0)
    with pytest.raises(SteerlabError, match="paired=False"):
        contribution_shares(positive, negative.rows(0, 5))
    assert len(contribution_shares(positive, negative.rows(0, 5), paired=False)) == 3
    with pytest.raises(SteerlabError, match="different components"):
        contribution_shares(positive, Contributions((Site(1),), Site(1), negative.values[:, :1], negative.total))


def test_what_is_left_is_a_share_with_its_interval() -> None:
    rng = np.random.default_rng(1)
    plain = np.stack([rng.normal(3, 0.2, 60), rng.normal(1, 0.2, 60)], axis=1)
    value, low, high = left_of(plain, plain * 0.5)
    assert value == pytest.approx(0.5) and low == pytest.approx(0.5) and high == pytest.approx(0.5)
    noisy = plain * 0.5 + rng.normal(0, 0.2, plain.shape)
    value, low, high = left_of(plain, noisy)
    assert low < 0.5 < high and high - low < 0.3


def test_the_one_component_that_writes_is_found_and_needed() -> None:
    """Block 1's MLP alone writes along axis 0; with it at its mean nothing is left of any difference there."""
    hf: Any = hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight[:, 0] = 0
        for number, block in enumerate(hf.model.layers):
            block.self_attn.o_proj.weight[0] = 0
            if number != 1:
                block.mlp.down_proj.weight[0] = 0
    model = wrap(hf, tokenizer(), name="planted")
    axis = vector(0).direction.new_zeros(LAYERS, 32)
    axis[:, 0] = 1
    v = SteeringVector.from_raw("axis", axis, range(LAYERS))
    sides = [contributions(model, own, v, 3) for own in (POSITIVE, NEGATIVE)]
    if sides[0].total.mean() < sides[1].total.mean():
        sides = sides[::-1]
    shares: Any = contribution_shares(*sides).set_index("component")["value"]
    assert shares["MLP 1"] == pytest.approx(1.0, abs=1e-5)
    assert shares.drop("MLP 1").abs().max() < 1e-5
    table: Any = necessity(model, POSITIVE, NEGATIVE, v, 3, TEXTS).set_index("component")
    assert len(table) == 2 * LAYERS
    assert abs(float(table.loc["MLP 1", "value"])) < 1e-5  # pyright: ignore[reportArgumentType]
    after = ["attention 2", "MLP 2", "attention 3", "MLP 3"]  # they cannot write there
    assert table.loc[after, "value"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert (table["kl"] > 0).all()
    with pytest.raises(SteerlabError, match="as many on both sides"):
        necessity(model, POSITIVE, NEGATIVE[:2], v, 3, TEXTS)


def test_pairs_are_drawn_together() -> None:
    """What both texts of a pair have in common leaves the paired interval alone and widens the other."""
    positive, negative = _planted(1.0)
    shared = np.random.default_rng(7).normal(0, 5, positive.values.shape)
    noisy = [
        Contributions(own.components, own.target, own.values + shared, (own.values + shared).sum(1))
        for own in (positive, negative)
    ]
    widths = [
        float(np.mean(table["high"].to_numpy(float) - table["low"].to_numpy(float)))
        for table in (contribution_shares(noisy[0], noisy[1], paired=paired) for paired in (True, False))
    ]
    assert widths[0] < 0.3 and widths[1] > 3 * widths[0]


def test_what_is_needed_is_what_is_missing_from_the_means_of_the_sides() -> None:
    model, v = tiny("qwen2"), vector(0)
    own = necessity(model, POSITIVE, NEGATIVE, v, 3, TEXTS).set_index("component").loc["MLP 1"]
    gauge = {"p": (Site(3), v.at(3))}
    one = [LayerAblation(1, "mlp_out", "mean")]
    table: Any = layer_effects(model, [*POSITIVE, *NEGATIVE], one, reference=TEXTS, readouts=gauge)
    gaps = [
        part["p"].to_numpy(float)[:3].mean() - part["p"].to_numpy(float)[3:].mean()
        for _, part in table.groupby("layer")
    ]
    assert own["value"] == pytest.approx(gaps[1] / gaps[0], rel=1e-5) and abs(gaps[0]) > 1e-3
    assert own["kl"] == pytest.approx(float(table[table["layer"] == 1]["kl"].mean()), rel=1e-5)


def test_components_have_names() -> None:
    assert [component_name(s) for s in (Site(0, "resid_pre"), Site(2, "attn_out"), Site(5, "mlp_out"))] == [
        "embedding", "attention 2", "MLP 5",
    ]  # fmt: skip

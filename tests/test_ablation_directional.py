"""A direction taken out is gone where it was taken out, by every scope; probes notice, random directions do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steerlab.ablation.directional import SCOPES, information, removal, spread, subspace_removal
from steerlab.ablation.edited import edited_means, edited_texts, steered
from steerlab.ablation.erasure import project_out, random_subspace
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.loading import wrap
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.tiny import CORE, LAYERS, D, stranger, tiny, tokenizer, vector

TEXTS = ["the river is wide", "no", "a longer text of the same kind", "and one more"]
EVERY = [Site(layer) for layer in range(LAYERS)]


@pytest.mark.parametrize("family", CORE)
def test_the_direction_is_gone_where_the_scope_says(family: str) -> None:
    model, v = tiny(family), vector(0)
    plain = edited_means(model, TEXTS, EVERY)

    def along(scope: Any, direction: SteeringVector = v) -> torch.Tensor:
        seen = edited_means(model, TEXTS, EVERY, removal(v, 2, scope, LAYERS))
        return torch.einsum("nld,ld->nl", seen, direction.direction).abs().amax(0)

    near, before = 1e-4, torch.einsum("nld,ld->nl", plain, v.direction).abs().amax(0)
    assert (before > 0.01).all()
    layer, onward, every = along("layer"), along("onward"), along("all")
    assert layer[2] < near and torch.allclose(layer[:2], before[:2], rtol=1e-3) and layer[3] > 0.01
    assert (onward[2:] < near).all() and torch.allclose(onward[:2], before[:2], rtol=1e-3)
    assert (every < near).all()
    # The one direction of layer 2, which nothing writes any more, is in no stream.
    assert (along("writers", spread(v, 2, range(LAYERS), "resid_post")) < near).all()


def test_without_its_writers_a_direction_is_absent_between_attention_and_mlp_too() -> None:
    model, v = tiny("llama"), vector(0)
    one = spread(v, 2, range(LAYERS), "resid_post")
    batch, parts = model.encode(TEXTS), [Site(1, "resid_pre"), Site(1, "attn_out")]
    for plan, absent in ((removal(v, 2, "writers", LAYERS), True), (removal(one, 2, "all", LAYERS), False)):
        seen = model.forward(batch, read=parts, edit=steered(model, plan)(batch, range(4)))
        before_mlp = (seen[parts[0]] + seen[parts[1]])[batch.real] @ v.at(2)
        assert (float(before_mlp.abs().max()) < 1e-4) == absent


def test_ablating_twice_is_ablating_once() -> None:
    model, once = tiny("qwen2"), removal(vector(0), 1, "all", LAYERS)
    table: Any = edited_texts(model, TEXTS, {"once": steered(model, once), "twice": steered(model, [*once, *once])})
    kl = table.groupby("condition")["kl"].mean()
    assert kl["once"] == pytest.approx(kl["twice"], rel=1e-3) and kl["once"] > 1e-3


def test_removing_a_subspace_is_the_projection() -> None:
    model, basis = tiny("gemma2"), random_subspace(D, 5, seed=2)
    plain, left = (edited_means(model, TEXTS, [Site(2)], own) for own in ((), subspace_removal(basis, (2,))))
    want = project_out(plain[:, 0].double().numpy(), basis)
    np.testing.assert_allclose(left[:, 0].numpy(), want, atol=1e-4)
    assert len(subspace_removal(basis, (0, 2))) == 5 and subspace_removal(basis[:0], (0,)) == ()
    with pytest.raises(SteerlabError, match="not orthonormal"):
        subspace_removal(2 * basis, (2,))


def test_scopes_and_layers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SteerlabError, match="no direction at layer 7"):
        removal(vector(0), 7, "writers", LAYERS)
    granite = wrap(stranger("Granite", residual_multiplier=0.5), tokenizer(), name="granite")
    with pytest.raises(SteerlabError, match="not what its blocks add"):
        edited_means(granite, TEXTS, [Site(1)], removal(vector(0), 1, "writers", LAYERS))
    for scope in SCOPES:
        assert all(own.operator == "ablate" and own.strength == 1 for own in removal(vector(0), 1, scope, LAYERS))


@pytest.mark.slow
def test_a_planted_difference_is_lost_after_ablation_and_not_after_a_random_one() -> None:
    """Texts of a's and of z's differ in the stream; the difference of their means, taken out, leaves a probe at chance."""
    model, n = tiny("llama"), 30
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(letters), 12)) for letters in ("abcd", "wxyz") for _ in range(n)]
    y, groups = torch.tensor([0] * n + [1] * n), torch.arange(n).repeat(2)
    means = edited_means(model, texts, EVERY)
    v = SteeringVector.from_raw("letters", means[n:].mean(0) - means[:n].mean(0), range(LAYERS))
    removals = {"own": removal(v, 1, "layer", LAYERS), "random": removal(random_like(v, 3), 1, "layer", LAYERS)}
    table: Any = information(model, texts, y, groups, removals, [0, 1], shuffles=1, resamples=100)
    assert set(table["layer"]) == {1}  # layer 0 lies before the removal
    value = table.set_index(["removal", "probe"])["value"]
    assert value["own", "before"] == value["random", "before"] > 0.99
    assert value["random", "fixed"] > 0.99 and value["random", "refitted"] > 0.99
    assert value["own", "fixed"] < 0.75 and value["own", "refitted"] < 0.75
    with pytest.raises(SteerlabError, match="behind all layers"):
        information(model, texts, y, groups, removals, [0])


@pytest.mark.slow
def test_within_groups_a_small_difference_is_seen_that_large_ones_between_groups_hide() -> None:
    model, n = tiny("llama"), 24
    rng = np.random.default_rng(1)
    base = ["".join(rng.choice(list("abcdefghijklmnop"), 20)) for _ in range(n)]
    texts = [*base, *(text[:-1] + "z" for text in base)]
    y, groups = torch.tensor([0] * n + [1] * n), torch.arange(n).repeat(2)
    out = {"random": removal(vector(5), 1, "layer", LAYERS)}
    found = {
        within: information(model, texts, y, groups, out, [1], "diff_of_means", within=within, resamples=20)[
            "value"
        ].iloc[0]
        for within in (False, True)
    }
    assert found[True] > 0.95 > found[False] + 0.1

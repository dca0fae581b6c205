"""Vectors go to another model with their projections where the two share a space, and through a linear map where they do not."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.generation import Settings
from steerlab.instructions import (
    Application,
    carry,
    end_activations,
    fit_instructions,
    fit_map,
    map_vectors,
    select_cells,
)
from steerlab.instructions.forms import CHAT
from steerlab.loading import wrap
from tests.instruct import pairs, prompts
from tests.tiny import hf_model, tiny, tokenizer

TEXTS = [text for own in pairs(14) for text in (*own.instructed, *own.bare)]
GROUPS = [group for own in pairs(14) for _ in range(2) for group in own.groups]


def test_vectors_carry_to_a_model_of_equal_width_with_their_projections_and_without_their_choice() -> None:
    donor, other = tiny("llama"), wrap(hf_model("qwen2"), tokenizer(), name="other")
    own = fit_instructions(donor, pairs(4))
    found = select_cells(
        donor, own, prompts(1, split="valid"), settings=Settings(max_new_tokens=2, greedy=True, stop=()), folds=0
    )
    carried = carry(found.chosen(own), other)
    for name, vector in carried.items():
        assert torch.equal(vector.direction, own[name].direction) and vector.projections == own[name].projections
        assert vector.choice is None
        vector.check(other.name, other.revision, other.d_model, other.n_layers)
        assert vector.provenance.method.endswith(f"carried from {donor.name}")
        assert Application().at(vector, Cell(2)) != ()


def test_another_width_depth_or_vocabulary_is_refused() -> None:
    own = fit_instructions(tiny("llama"), pairs(3))
    with pytest.raises(SteerlabError, match="has width 32, but narrow has width 16"):
        carry(own, wrap(hf_model("llama", hidden_size=16), tokenizer(), name="narrow"))
    with pytest.raises(SteerlabError, match="has a direction at layer 3"):
        carry(own, wrap(hf_model("llama", num_hidden_layers=2), tokenizer(), name="shallow"))
    strange = {name: replace(v, provenance=replace(v.provenance, tokenizer_hash="x")) for name, v in own.items()}
    with pytest.raises(SteerlabError, match="another vocabulary"):
        carry(strange, tiny("llama"))
    assert set(carry(strange, tiny("llama"), allow=("tokenizer",))) == set(own)
    with pytest.raises(SteerlabError, match="only 'tokenizer'"):
        carry(own, tiny("llama"), allow=("width",))


@pytest.mark.parametrize("kind", ["ridge", "procrustes"])
def test_between_a_model_and_itself_the_map_is_the_identity(kind: str) -> None:
    donor, other = tiny("llama"), wrap(hf_model("llama"), tokenizer(), name="other")
    learned = fit_map(donor, other, TEXTS, kind=kind)  # type: ignore[arg-type]
    fit: Any = learned.fit
    assert learned.donor == (0, 1, 2, 3) and fit["r2"].min() > 0.95 and fit["cosine"].min() > 0.97
    assert fit["r2_shuffled"].max() < 0.5
    own = fit_instructions(donor, pairs(4))
    bare = list(dict.fromkeys(text for p in pairs(4) for text in p.bare))
    mapped = map_vectors(own, learned, other, bare)
    for name, vector in mapped.items():
        assert torch.cosine_similarity(vector.direction, own[name].direction, dim=-1).min() > 0.95
        torch.testing.assert_close(vector.raw_norm, own[name].raw_norm, rtol=0.15, atol=0)
        vector.check(other.name, other.revision, other.d_model, other.n_layers)
        assert vector.projections is not None
        mean = end_activations(other, bare, form=CHAT).mean(0)
        along = (mean * vector.direction).sum(-1)
        torch.testing.assert_close(torch.tensor(vector.projections.bare), along, rtol=1e-3, atol=1e-3)
        gap = torch.tensor(vector.projections.instructed) - torch.tensor(vector.projections.bare)
        torch.testing.assert_close(gap, vector.raw_norm, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["ridge", "procrustes"])
def test_models_of_other_width_and_depth_are_mapped_by_relative_depth(kind: str) -> None:
    donor = tiny("llama")
    wide = wrap(hf_model("llama", hidden_size=48, num_hidden_layers=7, seed=3), tokenizer(), name="wide")
    learned = fit_map(donor, wide, TEXTS, kind=kind, groups=GROUPS)  # type: ignore[arg-type]
    assert learned.donor == (0, 0, 1, 2, 2, 2, 3) and learned.weight.shape == (7, 32, 48)
    mapped = map_vectors(fit_instructions(donor, pairs(3)), learned, wide, ["a text", "another one"])
    assert all(v.direction.shape == (7, 48) for v in mapped.values())
    if kind == "ridge":
        fit: Any = learned.fit
        assert fit["r2"].mean() > fit["r2_shuffled"].mean() + 0.03
    else:
        scale = learned.weight[0].norm(dim=-1)
        torch.testing.assert_close(scale, scale.mean().expand(32), rtol=1e-6, atol=1e-9)


def test_maps_refuse_what_they_do_not_know() -> None:
    donor = tiny("llama")
    with pytest.raises(SteerlabError, match="at least eight"):
        fit_map(donor, donor, ["a", "b"])
    with pytest.raises(SteerlabError, match="kind 'affine'"):
        inspect.unwrap(fit_map)(donor, donor, TEXTS, kind="affine")
    with pytest.raises(SteerlabError, match="one group per text"):
        fit_map(donor, donor, TEXTS, groups=GROUPS[1:])
    learned = fit_map(donor, donor, TEXTS[:40])
    own = fit_instructions(tiny("gemma2"), pairs(2))
    with pytest.raises(SteerlabError, match="is of tiny-gemma2, and the map reads tiny-llama"):
        map_vectors(own, learned, donor, ["a text"])
    with pytest.raises(SteerlabError, match="the map leads to tiny-llama"):
        map_vectors(own, learned, tiny("gemma2"), ["a text"])

"""Guidance is the formulas of the papers, and what they imply: identities, the temperature of eta, a closed mask."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.modeling_outputs import CausalLMOutputWithPast

from steerlab.errors import SteerlabError
from steerlab.guidance import (
    Guide,
    Schedule,
    classifier_free,
    combine,
    contrastive_decoding,
    dexperts,
    entropy,
    plausible,
)

V = 40


def rows(seed: int, n: int = 5) -> Tensor:
    return 3 * torch.randn(n, V, generator=torch.Generator().manual_seed(seed))


E, B, N = rows(1), rows(2), rows(3)
NONE, ALL = torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
OFF = torch.zeros(5)
GAMMA, ETA = torch.tensor([0.0, 0.2, 0.5, 1.0, 2.0]), torch.tensor([0.6, 0.0, 0.3, 1.0, 0.8])


def test_nothing_asked_is_log_softmax() -> None:
    assert torch.equal(combine(E, B, N, OFF, OFF, NONE, OFF), torch.log_softmax(E, -1))
    assert torch.equal(combine(E, None, None, GAMMA, ETA, ALL, OFF), torch.log_softmax(E, -1))


def test_published_and_balanced_form_are_their_formulas() -> None:
    e, b, n = (torch.log_softmax(x, -1) for x in (E, B, N))
    g, h = GAMMA[:, None], ETA[:, None]
    torch.testing.assert_close(combine(E, B, N, GAMMA, ETA, NONE, OFF), (1 + g) * e - g * b - h * n)
    torch.testing.assert_close(combine(E, B, N, GAMMA, ETA, ALL, OFF), (1 + g + h) * e - g * b - h * n)
    both = combine(E, B, N, GAMMA, ETA, torch.tensor([True, False, True, False, True]), OFF)
    torch.testing.assert_close(both[1], ((1 + g) * e - g * b - h * n)[1])
    torch.testing.assert_close(both[2], ((1 + g + h) * e - g * b - h * n)[2])


def test_a_base_that_is_the_expert_changes_nothing_for_any_gamma() -> None:
    torch.testing.assert_close(combine(E, E, None, GAMMA, OFF, NONE, OFF), torch.log_softmax(E, -1))
    assert not torch.allclose(combine(E, B, None, GAMMA, OFF, NONE, OFF)[1:], torch.log_softmax(E, -1)[1:])


def test_negatives_that_say_what_the_prompt_says_are_a_temperature_in_the_published_form_and_nothing_in_the_balanced() -> (
    None
):
    l_e = torch.log_softmax(E, -1)
    torch.testing.assert_close(combine(E, E, E, GAMMA, ETA, NONE, OFF), (1 - ETA[:, None]) * l_e)
    torch.testing.assert_close(combine(E, None, E, OFF, ETA, ALL, OFF), l_e)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_nothing_outside_the_mask_gets_through(alpha: float) -> None:
    p = torch.softmax(E, -1)
    head = p >= alpha * p.amax(-1, keepdim=True) * (1 - 1e-6)
    scores = combine(E, B, N, GAMMA, ETA, ALL, torch.full((5,), alpha))
    assert torch.equal(scores > -math.inf, head) and head.sum() < head.numel()
    assert bool(plausible(torch.log_softmax(E, -1), OFF).all())


def test_tokens_the_expert_excludes_stay_excluded() -> None:
    cut = E.clone()
    cut[:, :7] = -math.inf
    scores = combine(cut, B, N, GAMMA, ETA, ALL, OFF)
    assert bool((scores[:, :7] == -math.inf).all()) and bool(scores[:, 7:].isfinite().all())


def test_classifier_free_guidance_is_transformers_own_and_a_case_of_combine() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> object:
            return CausalLMOutputWithPast(logits=cast(Any, B[:1, None]))

    theirs = UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, Fixed(), use_cache=False)
    want = theirs(cast(Any, torch.zeros(1, 3, dtype=torch.int64)), cast(Any, E[:1]))
    torch.testing.assert_close(classifier_free(E[:1], B[:1], 1.5), want)
    torch.testing.assert_close(combine(E, B, None, OFF + 0.5, OFF, NONE, OFF), classifier_free(E, B, 1.5))
    assert torch.equal(
        classifier_free(E, B, 1.0), torch.log_softmax(B, -1) + (torch.log_softmax(E, -1) - torch.log_softmax(B, -1))
    )


def test_dexperts_cuts_the_base_first() -> None:
    p, order = torch.softmax(B, -1).sort(-1, descending=True)
    kept = (p.cumsum(-1) - p < 0.9).gather(1, order.argsort(-1))
    scores = dexperts(B, E, N, alpha=2.0)
    assert torch.equal(scores > -math.inf, kept)
    torch.testing.assert_close(scores[kept], (B + 2 * (E - N))[kept])


def test_contrastive_decoding_is_the_difference_inside_the_head() -> None:
    scores = contrastive_decoding(E, B, alpha=0.1)
    head = plausible(torch.log_softmax(E, -1), torch.full((5,), 0.1))
    assert torch.equal(scores > -math.inf, head)
    torch.testing.assert_close(scores[head], (torch.log_softmax(E, -1) - torch.log_softmax(B, -1))[head])
    assert not torch.allclose(contrastive_decoding(E, B, coefficient=0.5)[head], scores[head])


def test_schedules_decay_and_wait_for_doubt() -> None:
    l_e = torch.log_softmax(E, -1)
    assert Schedule().factor(9, l_e).tolist() == [1.0] * 5
    assert Schedule("decaying", half_life=4).factor(8, l_e).tolist() == [0.25] * 5
    sure = torch.log_softmax(torch.cat([10 * E[:1], torch.zeros(1, V)]), -1)
    torch.testing.assert_close(entropy(sure)[1], torch.tensor(math.log(V)))
    assert Schedule("uncertain", least=2.0).factor(0, sure).tolist() == [0.0, 1.0]
    certain = torch.full((1, 3), -math.inf)
    certain[0, 1] = 0.0
    assert entropy(certain).item() == 0.0


def test_defaults_are_the_authors_and_the_balanced_form_has_a_mask() -> None:
    assert (Guide().gamma, Guide().eta, Guide().cutoff) == (0.2, 0.6, 0.0)
    assert Guide(form="balanced").cutoff == 0.1 and Guide(form="balanced", alpha=0).cutoff == 0.0
    assert Guide(1, 1).to_json()["gamma"] == 1.0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gamma": -0.1}, "gamma is -0.1"),
        ({"eta": float("inf")}, "eta is inf"),
        ({"alpha": 1.5}, "alpha is 1.5"),
    ],
)
def test_bad_weights_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        Guide(**given)  # type: ignore[arg-type]


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(SteerlabError, match="half_life 0 and"):
        Schedule("decaying", half_life=0)

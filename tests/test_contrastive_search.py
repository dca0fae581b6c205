"""Contrastive search: cached, batched and with all candidates in one forward, it writes what the paper's procedure writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steerlab.contrastive_search import Contrastive, contrastive_search, scores
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.steering import Intervention, Plan
from tests.reference.contrastive import search
from tests.tiny import CORE, tiny, vector

PROMPTS = ["write a text", "a longer prompt than the first", "hi", "write a text"]
PUSH = (Intervention(vector(1), 1, strength=3.0),)
SETTINGS = Settings(max_new_tokens=8, stop=())


def _requests(**more: Any) -> list[Request]:
    return [Request(prompt, ("c", i), chat=False, **more) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("penalty", [0.35, 0.8])
@pytest.mark.parametrize("family", [*CORE, "gpt2"])
def test_the_batch_writes_what_the_paper_writes_row_by_row(family: str, penalty: float) -> None:
    model = tiny(family)
    found = contrastive_search(model, _requests(), SETTINGS, Contrastive(4, penalty))
    assert found[0].tokens == found[3].tokens
    for prompt, sample in zip(PROMPTS[:3], found, strict=False):
        want = search(model.hf, family, model.token_rows([prompt])[0], 4, penalty, 8)
        assert list(sample.tokens) == want[: len(sample.tokens)]
        assert len(sample.tokens) == 8 or (sample.ended and sample.tokens[-1] == 2)
    if penalty == 0.8:  # the penalty does something
        greedy = generate(model, _requests(), Settings(max_new_tokens=8, greedy=True, stop=()))
        assert any(a.tokens != b.tokens for a, b in zip(found, greedy, strict=True))


@pytest.mark.parametrize("how", [Contrastive(6, 0.0), Contrastive(1, 0.7)])
@pytest.mark.parametrize("family", CORE)
def test_without_penalty_or_with_one_candidate_it_is_greedy(family: str, how: Contrastive) -> None:
    model = tiny(family)
    greedy = generate(model, _requests(), Settings(max_new_tokens=8, greedy=True, stop=()))
    assert contrastive_search(model, _requests(), SETTINGS, how) == greedy


def test_steered_rows_are_steered_in_every_forward() -> None:
    model, how = tiny("llama"), Contrastive(3, 0.5)
    requests = [Request(p, ("c", i), PUSH if i % 2 else (), chat=False) for i, p in enumerate(PROMPTS)]
    found = contrastive_search(model, requests, SETTINGS, how)
    plain = contrastive_search(model, _requests(), SETTINGS, how)
    assert found[0] == plain[0] and found[1] != plain[1]
    prompt = model.token_rows([PROMPTS[1]])[0]
    assert list(found[1].tokens) == search(model.hf, "llama", prompt, 3, 0.5, 8, Plan((PUSH,)))


def test_rows_that_end_early_leave_and_the_others_do_not_notice() -> None:
    model, how = tiny("qwen2"), Contrastive(4, 0.6)
    whole = contrastive_search(model, _requests(), SETTINGS, how)
    letters = {chr(b) for sample in whole for b in range(33, 127) if chr(b) in sample.text[:4]}
    assert letters
    settings = Settings(max_new_tokens=8, stop=(sorted(letters)[0],))
    short = contrastive_search(model, _requests(), settings, how)
    assert any(a.ended and len(a.tokens) < len(b.tokens) for a, b in zip(short, whole, strict=True))
    for a, b in zip(short, whole, strict=True):
        assert a.tokens == b.tokens[: len(a.tokens)]
    for rows in (4, 12):
        assert contrastive_search(model, _requests(), settings, how, batch_rows=rows) == short


def test_padding_is_no_context() -> None:
    """A state is compared with real tokens only, whatever stands on padding."""
    p, h = torch.tensor([[0.6, 0.4]]), torch.eye(2)[None]
    past = torch.stack([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])[None]
    both = scores(p, h, past, torch.tensor([[True, True]]), 0.5)
    torch.testing.assert_close(both, torch.tensor([[-0.2, -0.3]]))
    padded = scores(p, h, past, torch.tensor([[False, True]]), 0.5)
    torch.testing.assert_close(padded, torch.tensor([[0.3, -0.3]]))


def test_the_model_is_left_as_it_was() -> None:
    model = tiny("gemma2")
    contrastive_search(model, _requests(), SETTINGS, Contrastive(2))
    assert not model.hf.base_model._forward_hooks
    with pytest.raises(SteerlabError, match="needs? .*positions"):
        contrastive_search(model, _requests(), Settings(max_new_tokens=10_000), Contrastive(2))
    assert not model.hf.base_model._forward_hooks


def test_what_it_cannot_do_is_said() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="k is 0"):
        Contrastive(0)
    with pytest.raises(SteerlabError, match="penalty 1.5"):
        Contrastive(4, 1.5)
    with pytest.raises(SteerlabError, match="262 tokens"):
        contrastive_search(model, _requests(), SETTINGS, Contrastive(1000))
    with pytest.raises(SteerlabError, match="guided request"):
        contrastive_search(model, _requests(guided=Guided(Guide(0.2, 0.0))), SETTINGS)

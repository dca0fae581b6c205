"""KL along given texts: zero where nothing is done, the same in mixed batches as by hand, counted where a token is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlab.ablation.forced import forced_kl
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.steering import Intervention, Plan
from steerlab.types import GENERATED, PROMPT, WRITING
from steerlab.vectors import SteeringVector
from tests.tiny import CORE, tiny, vector

TEXTS = ("the river is wide", "no", "seven small stones lay there")
PROMPTS = ("Tell me of the river.", "Say it.", "Again, and more of it.")


def _by_hand(family: str, push: Intervention, text: str, prompt: str) -> np.ndarray:
    """One row at a time, two plain forward passes, float64."""
    model = tiny(family)
    batch = model.encode([prompt], [text], chat=True)
    compiled = model.compile(Plan(((push,),)))
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    (site,) = compiled.sites
    scores = []
    for edit in ({}, {site: lambda h: compiled.edit(site, h, context)}):
        logits = model.forward(batch, edit=edit, logits=True).logits
        assert logits is not None
        scores.append(
            torch.log_softmax(logits[0].double(), -1)[WRITING.mask(batch.relative, batch.input_ids, batch.real)[0]]
        )
    return (scores[0].exp() * (scores[0] - scores[1])).sum(-1).numpy()


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("budget", [40, 4096])
def test_mixed_batches_measure_what_one_row_at_a_time_does(family: str, budget: int) -> None:
    pushes = [Intervention(vector(0), 1, strength=2.0), Intervention(vector(1), 3, "rotate", 0.5)]
    found = forced_kl(tiny(family), [(push,) for push in pushes], TEXTS, PROMPTS, token_budget=budget)
    for row, push in enumerate(pushes):
        want = [_by_hand(family, push, text, prompt) for text, prompt in zip(TEXTS, PROMPTS, strict=True)]
        np.testing.assert_allclose(found.kl[row], np.concatenate(want), atol=2e-5, rtol=2e-3)
        assert found.text.tolist() == np.repeat(range(3), [len(own) for own in want]).tolist()
        assert found.kl[row].mean() > 1e-3


def test_doing_nothing_moves_nothing() -> None:
    push = Intervention(vector(0), 1, strength=0.0)
    found = forced_kl(tiny("llama"), [(), (push,), (Intervention(vector(0), 1, strength=1.0),)], TEXTS)
    assert found.kl[:2].max() <= 1e-6 < found.kl[2].max()


def test_every_token_of_a_text_and_what_follows_it_is_predicted_once() -> None:
    model = tiny("llama")
    found = forced_kl(model, [()], TEXTS, PROMPTS)
    assert np.bincount(found.text).tolist() == [
        len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) + 1 for t in TEXTS
    ]
    assert len(forced_kl(model, [()], TEXTS).text) == len(found.text)  # behind BOS the same


def test_positions_mean_what_they_mean_in_generation() -> None:
    pushes = [(Intervention(vector(0), 0, strength=3.0, positions=where),) for where in (GENERATED, PROMPT)]
    found = forced_kl(tiny("llama"), pushes, TEXTS, PROMPTS)
    first = np.flatnonzero(np.diff(found.text, prepend=-1))
    assert found.kl[0, first].max() <= 1e-6 < found.kl[0].max()  # the first token comes of the prompt alone
    assert found.kl[1, first].min() > 1e-4


def test_intervals_are_over_texts() -> None:
    push = (Intervention(vector(0), 1, strength=2.0),)
    found = forced_kl(tiny("llama"), [push], TEXTS)
    mean, top = found.mean(0), found.quantile(0, 0.95)
    assert mean.low < mean.value < mean.high and mean.value == pytest.approx(found.kl[0].mean())
    assert top.value == pytest.approx(np.quantile(found.kl[0], 0.95)) and top.value > mean.value
    np.testing.assert_allclose(found.by_text()[0], [found.kl[0, found.text == t].mean() for t in range(3)])
    alone = forced_kl(tiny("llama"), [push], TEXTS[:1])
    assert alone.mean(0).reason == "one group"


def test_half_precision_is_measured_too() -> None:
    push = (Intervention(vector(0), 1, strength=2.0),)
    low = forced_kl(tiny("llama", torch.bfloat16), [push], TEXTS).kl
    np.testing.assert_allclose(low.mean(), forced_kl(tiny("llama"), [push], TEXTS).kl.mean(), rtol=0.1)


def test_what_cannot_be_read_is_refused() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="give one prompt per text"):
        forced_kl(model, [()], TEXTS, PROMPTS[:2])
    with pytest.raises(SteerlabError, match="has no tokens of its own"):
        forced_kl(model, [()], ["a", ""], PROMPTS[:2])
    with pytest.raises(SteerlabError, match="is longer than the context"):
        forced_kl(model, [()], ["a" * 300])
    axis = SteeringVector.from_raw("axis", torch.eye(model.d_model)[:1].repeat(2, 1), (0, 1))
    with pytest.raises(SteerlabError, match="under change 1 is not finite"):  # 120,000 is no float16
        forced_kl(tiny("llama", torch.float16), [(), (Intervention(axis, (0, 1), strength=60_000),)], TEXTS)

"""Likelihoods equal a naive loop over the plain model, whatever the batches; what cannot be measured is NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import embeddings, log_likelihood, perplexity
from steerlab.loading import wrap
from steerlab.model import TracedModel
from tests.tiny import CORE, hf_model, tiny, tokenizer

TEXTS = ["aku mangan", "a", "omah iku gedhe banget lan apik tenan", "", "ውሃ", "kowe"]
PROMPTS = ["Write.", "Write a longer sentence now.", "W", "Write.", "", "Write it."]


def naive(model: TracedModel, rows: list[list[int]], starts: list[int]) -> list[float]:
    """Sum of log-probabilities of each row's tokens from `starts` on: one row at a time, no padding, float64."""
    hf: Any = model.hf
    found = []
    for row, start in zip(rows, starts, strict=True):
        with torch.no_grad():
            scores = torch.log_softmax(hf(torch.tensor([row])).logits[0].double(), dim=-1)
        found.append(sum(float(scores[i - 1, row[i]]) for i in range(start, len(row))))
    return found


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("budget", [16, 4096])
def test_log_likelihood_equals_a_naive_loop(family: str, budget: int) -> None:
    model = tiny(family)
    total, count = log_likelihood(model, TEXTS, token_budget=budget)
    filled = [text for text in TEXTS if text]
    want = naive(model, model.token_rows(filled), [1] * len(filled))
    np.testing.assert_allclose(total[[bool(t) for t in TEXTS]], want, rtol=1e-5)
    assert count.tolist() == [len(text.encode()) for text in TEXTS]
    assert math.isnan(total[3]) and count[3] == 0


def test_behind_a_prompt_only_the_text_counts() -> None:
    model = tiny("llama")
    total, count = log_likelihood(model, TEXTS, PROMPTS)
    heads = model.token_rows(PROMPTS, chat=True)
    tails: Any = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    want = naive(model, [h + t for h, t in zip(heads, tails, strict=True)], [len(h) for h in heads])
    keep = [bool(t) for t in TEXTS]
    np.testing.assert_allclose(total[keep], np.array(want)[keep], rtol=1e-5)
    assert count.tolist() == [len(text.encode()) for text in TEXTS]
    assert np.isnan(total[3])
    assert not np.allclose(total[keep], log_likelihood(model, TEXTS)[0][keep], rtol=1e-3)


def test_without_a_bos_the_first_token_is_left_out() -> None:
    model = tiny("qwen2", bos=False)
    total, count = log_likelihood(model, ["kowe turu", "a"])
    assert count.tolist() == [8, 0]
    np.testing.assert_allclose(total[0], naive(model, model.token_rows(["kowe turu"]), [1])[0], rtol=1e-5)
    assert np.isnan(total[1]) and np.isnan(perplexity(model, ["a"])[0])


def test_what_does_not_fit_the_context_is_cut_at_the_end() -> None:
    model = wrap(hf_model("llama", max_position_embeddings=32), tokenizer(), name="short")
    text = "abcdefghij" * 5
    total, count = log_likelihood(model, [text])
    assert count.tolist() == [31]
    np.testing.assert_allclose(total[0], naive(model, [model.token_rows([text])[0][:32]], [1])[0], rtol=1e-5)
    (head,) = model.token_rows(["Write."], chat=True)
    total, count = log_likelihood(model, [text], ["Write."])
    row = [*head, *model.tokenizer(text, add_special_tokens=False)["input_ids"]][:32]  # type: ignore[misc]
    assert count.tolist() == [32 - len(head)]  # and not one token of the prompt
    np.testing.assert_allclose(total[0], naive(model, [row], [len(head)])[0], rtol=1e-5)
    total, count = log_likelihood(model, ["a"], ["x" * 100])
    assert np.isnan(total[0]) and count[0] == 0


def test_perplexity_is_the_inverse_geometric_mean() -> None:
    model = tiny("llama")
    total, count = log_likelihood(model, TEXTS, PROMPTS)
    found = perplexity(model, TEXTS, PROMPTS)
    for i in range(len(TEXTS)):
        assert math.isnan(found[i]) if not TEXTS[i] else found[i] == pytest.approx(math.exp(-total[i] / count[i]))
    flat = wrap(hf_model("llama"), tokenizer(), name="flat")
    with torch.no_grad():
        head: Any = flat.hf.get_output_embeddings()
        head.weight.zero_()
    np.testing.assert_allclose(perplexity(flat, ["aku", "kowe turu"]), flat.vocab_size, rtol=1e-5)


def test_embeddings_are_means_over_the_real_tokens() -> None:
    model = tiny("llama")
    found = embeddings(model, TEXTS, token_budget=24)
    alone = np.concatenate([embeddings(model, [text]) for text in TEXTS])
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)
    hf: Any = model.hf
    with torch.no_grad():
        states = hf(torch.tensor(model.token_rows(TEXTS[:1])), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(found[0], states[model.n_layers // 2 + 1][0].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeddings(model, TEXTS[:1], layer=0)[0], states[1][0].mean(0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0], found[2], atol=1e-2)


def test_one_prompt_a_text() -> None:
    with pytest.raises(SteerlabError, match="2 texts and 1 prompts were given"):
        log_likelihood(tiny("llama"), ["a", "b"], ["p"])
    total, count = log_likelihood(tiny("llama"), [])
    assert len(total) == len(count) == 0

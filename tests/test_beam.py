"""Beam search: the best beam of the obvious procedure, whatever else is in the batch; beam sampling keyed by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steerlab.beam import Beam, beam_search
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.loading import wrap
from steerlab.steering import Intervention
from tests.reference.beam import search
from tests.tiny import CORE, hf_model, tiny, tokenizer, vector

PROMPTS = ["write a text", "a longer prompt than the first", "hi", "write a text"]
SETTINGS = Settings(max_new_tokens=7, temperature=1.0, stop=())


def _requests(**more: Any) -> list[Request]:
    return [Request(prompt, ("c", i), chat=False, **more) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("family", [*CORE, "gpt2"])
def test_the_batch_writes_the_best_beam_of_the_obvious_procedure(family: str) -> None:
    model = tiny(family)
    found = beam_search(model, _requests(), SETTINGS, Beam(3))
    for prompt, sample in zip(PROMPTS, found, strict=True):
        want = search(model.hf, model.token_rows([prompt])[0], 3, 7)
        assert 2 in want or sample.ended or list(sample.tokens) == want  # hypotheses that end are another matter
    assert sum(len(s.tokens) == 7 for s in found) >= 3
    assert beam_search(model, _requests(), SETTINGS, Beam(3), batch_rows=3) == found


@pytest.mark.parametrize("family", CORE)
def test_one_beam_is_greedy(family: str) -> None:
    model = tiny(family)
    greedy = generate(model, _requests(), Settings(max_new_tokens=7, greedy=True, stop=()))
    assert beam_search(model, _requests(), SETTINGS, Beam(1)) == greedy


def test_more_beams_find_likelier_answers() -> None:
    model = tiny("llama")

    def likelihood(beams: int) -> float:
        total = 0.0
        for prompt, sample in zip(PROMPTS, beam_search(model, _requests(), SETTINGS, Beam(beams)), strict=True):
            ids = model.token_rows([prompt])[0]
            row = torch.tensor([[*ids, *sample.tokens]])
            with torch.no_grad():
                log_p = model.hf(input_ids=row).logits[0].log_softmax(-1)
            total += float(log_p[len(ids) - 1 : -1].gather(1, row[0, len(ids) :, None]).sum())
        return total

    assert likelihood(8) > likelihood(1)


def test_an_answer_ends_at_a_stop_string() -> None:
    model, stop = tiny("llama"), tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    found = beam_search(model, _requests(), Settings(max_new_tokens=7, stop=stop), Beam(3))
    assert any(s.ended and len(s.tokens) < 7 for s in found)
    for sample in found:
        text = model.decode_text(sample.tokens)
        assert not any(s in sample.text for s in stop) and not any(s in text[:-1] for s in stop)
        assert sample.ended == (text[-1:] in stop or sample.tokens[-1] == 2)


def test_beam_sampling_is_a_function_of_the_key_and_leaves_the_random_state_alone() -> None:
    model, how = tiny("llama"), Beam(3, sampled=True)
    before = torch.get_rng_state()
    found = beam_search(model, _requests(), SETTINGS, how)
    assert torch.equal(torch.get_rng_state(), before)
    assert beam_search(model, _requests()[::-1], SETTINGS, how) == found[::-1]
    assert found[0] != found[3]  # one prompt, two keys
    other = Settings(max_new_tokens=7, temperature=1.0, stop=(), seed=1)
    assert beam_search(model, _requests(), other, how) != found


def test_a_models_own_recommendations_do_not_mix_in_and_stay() -> None:
    hf = hf_model("llama")
    hf.generation_config.update(temperature=0.1, do_sample=True, top_k=2, repetition_penalty=5.0)
    model = wrap(hf, tokenizer(), name="opinionated")
    assert beam_search(model, _requests(), SETTINGS, Beam(3)) == beam_search(
        tiny("llama"), _requests(), SETTINGS, Beam(3)
    )
    assert hf.generation_config.repetition_penalty == 5.0


def test_what_it_cannot_do_is_said() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="0 beams"):
        Beam(0)
    with pytest.raises(SteerlabError, match="positions"):
        beam_search(model, _requests(), Settings(max_new_tokens=1000))
    with pytest.raises(SteerlabError, match="steered or guided"):
        beam_search(model, _requests(guided=Guided(Guide(0.2, 0.0))), SETTINGS)
    with pytest.raises(SteerlabError, match="steered or guided"):
        beam_search(model, _requests(interventions=(Intervention(vector(1), 1),)), SETTINGS)

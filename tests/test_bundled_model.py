"""The model that ships: what it is, that its vectors belong to it, and that its samples depend on nothing but their keys."""

from __future__ import annotations

import json
import random

import pytest

from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.vectors import bundled_vectors
from steerlab.commands.synthesize import Steering, interventions, recommended
from steerlab.evaluation.language import language_share
from steerlab.generation import Request, Settings, generate
from steerlab.loading import bundled_path, load
from steerlab.model import TracedModel
from steerlab.tasks import TASKS, prompt


@pytest.fixture(scope="module")
def model() -> TracedModel:
    return load()


def test_it_is_a_small_llama_with_a_card(model: TracedModel) -> None:
    weights = (bundled_path() / "model.safetensors").stat().st_size
    parameters = sum(p.numel() for p in model.hf.parameters())
    assert weights <= 20_000_000 and 6_000_000 <= parameters <= 10_000_000
    assert model.hf.config.model_type == "llama" and model.chat_template
    assert json.loads((bundled_path() / "training.json").read_text())["parameters"] == parameters
    card = (bundled_path() / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("CC BY-SA", "bits per byte", "make model", "limits"))


def test_a_chat_prompt_has_one_bos_and_the_special_tokens(model: TracedModel) -> None:
    (row,) = model.token_rows(["Write."], chat=True)
    names = model.tokenizer.convert_ids_to_tokens(row)
    assert names[:2] == ["<|bos|>", "<|user|>"] and names[-1] == "<|assistant|>"
    assert names.count("<|bos|>") == 1 and model.token_rows(["Write."])[0][0] == model.tokenizer.bos_token_id


def test_every_script_survives_the_tokenizer(model: TracedModel) -> None:
    for text in ("ሰላም ለዓለም።", "שלום עולם.", "Žluťoučký kůň", "Ħobż biż-żejt", "smørrebrød", "naïve — 12,5 %"):
        assert model.decode_text(model.token_rows([text])[0]) == text


def test_the_vectors_were_fitted_on_this_very_model(model: TracedModel) -> None:
    vectors = bundled_vectors()
    kinds = {f"{kind}-{code}" for kind in ("language", "quality") for code in LANGUAGES}
    assert set(vectors) == kinds | {"quality-sl-backtranslated"}
    for vector in vectors.values():
        vector.check(model.name, model.revision, model.d_model, model.n_layers)
    assert all(recommended(name) is not None for name in kinds)


def test_a_language_vector_moves_the_language_and_a_random_one_does_not(model: TracedModel) -> None:
    """Far weaker than what figures/language_control.csv reports, so that it tests the machinery and not the luck of a draw."""
    prompts = [prompt("topic", label, None) for label in TASKS["topic"].labels] * 3
    share = {}
    for kind in ("none", "language", "random"):
        plan = interventions(Steering(kind), ("am",), model, seed=5).get("am", ())
        requests = [Request(text, ("am", i), plan) for i, text in enumerate(prompts)]
        texts = [s.text for s in generate(model, requests, Settings(max_new_tokens=24))]
        share[kind] = language_share(texts, "am").value
    assert share["language"] >= share["none"] + 0.5
    assert abs(share["random"] - share["none"]) <= 0.25


@pytest.mark.slow
def test_500_samples_do_not_depend_on_batch_size_or_order(model: TracedModel) -> None:
    labels, steered = TASKS["topic"].labels, interventions(Steering("language"), ("jv",), model, seed=0)["jv"]
    requests = [
        Request(
            prompt("topic", labels[i % 7], ("am", "jv", "su", None)[i % 4]), ("n", i), steered if i % 3 == 0 else ()
        )
        for i in range(500)
    ]
    settings = Settings(max_new_tokens=20)
    reference = [s.tokens for s in generate(model, requests, settings, batch_rows=64)]
    order = list(range(500))
    random.Random(0).shuffle(order)
    for rows in (50, 7):
        shuffled = generate(model, [requests[i] for i in order], settings, batch_rows=rows)
        found = dict(zip(order, shuffled, strict=True))
        assert [found[i].tokens for i in range(500)] == reference
    assert len(set(reference)) > 490  # and they are not all the same text

"""The table of methods: each does what its name says, with one budget of new tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from steerlab.adapters import attach
from steerlab.baselines import BASELINES, Method, method, write
from steerlab.beam import Beam, beam_search
from steerlab.contrastive_search import Contrastive, contrastive_search
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.loading import wrap
from tests.tiny import hf_model, tiny, tokenizer

PROMPTS = ["write a text", "a longer prompt than the first", "hi", "write a text"]
SETTINGS = Settings(max_new_tokens=6, stop=(), seed=3, temperature=7.0, repetition_penalty=3.0)
NEGATIVES = ["seen before", "and this", "this too", "and that one"]


def _requests(**more: Any) -> list[Request]:
    return [Request(prompt, ("c", i), chat=False, **more) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("name", BASELINES)
def test_every_method_writes_within_one_budget_of_new_tokens(name: str) -> None:
    model, how = tiny("llama"), BASELINES[name]
    base = tiny("llama", seed=3) if how.needs_base else None
    found = write(model, how, _requests(), SETTINGS, base=base, negatives=NEGATIVES)
    assert len(found) == 4
    for sample, prompt in zip(found, PROMPTS, strict=True):
        assert len(sample.tokens) == 6 or (sample.ended and 0 < len(sample.tokens) < 6)
        assert sample.prompt_tokens == len(model.token_rows([prompt])[0])  # a long prompt leaves no fewer tokens
    same = found[0].tokens == found[3].tokens
    assert same or not how.deterministic


def test_names_and_settings_agree() -> None:
    """A name that says temperature, top-k, nucleus, beams, gamma or eta has that number; what searches does not sample."""
    for name, how in BASELINES.items():
        plain = name.split("(")[0]
        for word, value in (("temperature", how.temperature), ("top-k", how.top_k), ("nucleus", how.top_p)):
            if word in plain:
                assert f"{word} {value:g}" in plain, name
        assert (how.temperature == 1) == ("temperature" not in plain)
        assert (how.beam is not None) == ("beam" in plain) and (how.contrastive is not None) == ("search, k" in plain)
        if how.beam:
            assert f"{how.beam.beams} beams" in plain and how.beam.sampled == ("sampling" in plain)
        if how.guide:
            assert how.guide.gamma == 0 or f"gamma {how.guide.gamma:g}" in plain
            assert how.guide.eta == 0 or f"eta {how.guide.eta:g}" in plain
        assert how.greedy == (plain == "greedy")
    paper = [name for name in BASELINES if "the paper's" in name]
    assert len(paper) == 5 and not any(BASELINES[name].deterministic for name in paper)
    with pytest.raises(SteerlabError, match="not known"):
        method("magic")


def test_a_method_is_the_function_it_names() -> None:
    model, base = tiny("qwen2"), tiny("qwen2", seed=3)
    plain = Settings(max_new_tokens=6, stop=(), seed=3, temperature=1.0, top_p=1.0)
    assert write(model, Method(greedy=True), _requests(), SETTINGS) == generate(
        model, _requests(), Settings(max_new_tokens=6, greedy=True, stop=())
    )
    assert write(model, Method(), _requests(), SETTINGS) == generate(model, _requests(), plain)
    assert write(model, Method(beam=Beam(2)), _requests(), SETTINGS) == beam_search(model, _requests(), plain, Beam(2))
    how = Contrastive(3, 0.6)
    assert write(model, Method(contrastive=how), _requests(), SETTINGS) == contrastive_search(
        model, _requests(), plain, how
    )
    guide = Guide(0.4, 0.5)
    guided = [
        Request(r.prompt, r.key, chat=False, guided=Guided(guide, n))
        for r, n in zip(_requests(), NEGATIVES, strict=True)
    ]
    assert write(model, Method(guide=guide), _requests(), SETTINGS, base=base, negatives=NEGATIVES) == generate(
        model, guided, plain, base=base
    )


def test_an_adapter_is_on_while_searches_write_and_as_before_afterwards(tmp_path: Path) -> None:
    trained: Any = get_peft_model(
        hf_model("llama"), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    trained.save_pretrained(tmp_path)
    hf: Any = hf_model("llama")
    expert = wrap(hf, tokenizer(), name="expert", adapter=attach(hf, tmp_path))
    merged = wrap(trained.merge_and_unload(), tokenizer(), name="merged")
    for how in (Method(beam=Beam(2)), Method(contrastive=Contrastive(3, 0.6))):
        want = [sample.tokens for sample in write(merged, how, _requests(), SETTINGS)]
        assert expert.adapter is not None and want != [
            s.tokens for s in write(tiny("llama"), how, _requests(), SETTINGS)
        ]
        with expert.adapter.off():
            assert [sample.tokens for sample in write(expert, how, _requests(), SETTINGS)] == want
            assert not expert.adapter.on
        assert expert.adapter.on


def test_the_caller_s_filters_do_not_reach_a_method() -> None:
    model = tiny("llama")
    other = Settings(max_new_tokens=6, stop=(), seed=3, top_k=1, min_p=0.9, frequency_penalty=2.0)
    assert write(model, Method(), _requests(), SETTINGS) == write(model, Method(), _requests(), other)
    assert write(model, Method(), _requests(), SETTINGS) != write(
        model, Method(), _requests(), Settings(6, stop=(), seed=4)
    )


def test_what_does_not_go_together_is_said() -> None:
    for fields in (
        {"greedy": True, "beam": Beam()},
        {"beam": Beam(), "guide": Guide()},
        {"contrastive": Contrastive(), "guide": Guide()},
    ):
        with pytest.raises(SteerlabError, match="more than one"):
            Method(**fields)
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="one text for each"):
        write(model, BASELINES["negatives only, eta 0.6"], _requests(), SETTINGS)
    with pytest.raises(SteerlabError, match="there is no base"):
        write(model, BASELINES["guidance only, gamma 0.2"], _requests(), SETTINGS)

"""Guided decoding: cached streams are the uncached formula, rows are their own, expert and base may be one model or two."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from steerlab.adapters import attach
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide, Schedule
from steerlab.guided import Asked, Guided, check_vocabulary, streams_of
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan
from tests.reference.guided import Context, scores
from tests.test_decoding import NEW, Script, answers, never
from tests.tiny import CORE, hf_model, tiny, tokenizer, vector

PUSH = (Intervention(vector(1), 1, strength=3.0),)
OTHER = (Intervention(vector(2), 2, strength=-2.0),)
SETTINGS = Settings(max_new_tokens=10, temperature=1.0, top_p=1.0, top_k=10)
PROMPTS = ["write a text", "a longer prompt than the first", "hi", "write a text", "one more"]
ROWS: list[tuple[tuple[Intervention, ...], Guided | None]] = [
    ((), Guided(Guide(0.2, 0.6), "seen before. and this too")),
    (PUSH, Guided(Guide(0.7, 0.3, "balanced"), "no", base_interventions=OTHER, negative_interventions=PUSH)),
    (PUSH, None),
    ((), Guided(Guide(0.0, 0.9, "balanced", alpha=0.0), "a much longer text to move away from, as it is")),
    ((), Guided(Guide(0.5, 0.8), "")),
]


def _base(family: str) -> TracedModel:
    return wrap(hf_model(family, seed=5), tokenizer(), name="base")


def _streams(model: TracedModel, base: TracedModel | None, script: Script, keep: list[int]) -> None:
    """Decode the rows `keep` of ROWS with forced answers; the script keeps the mixed scores."""
    asked = [Asked(PROMPTS[i], False, ROWS[i][1]) for i in keep]
    sides, mix = streams_of(model, base, asked)
    plan = Plan(tuple(ROWS[i][0] for i in keep))
    model.decode(model.encode([PROMPTS[i] for i in keep]), script, never, NEW, plan, sides=sides, mix=mix)


def _contexts(model: TracedModel, base: TracedModel, i: int) -> tuple[Guide, Context, Context | None, Context | None]:
    interventions, guided = ROWS[i]
    prompt = model.token_rows([PROMPTS[i]])[0]
    expert = Context(model.hf, prompt, interventions)
    if guided is None:
        return Guide(0, 0), expert, None, None
    plain = Context(base.hf, prompt, guided.base_interventions) if guided.guide.gamma else None
    negative = None
    if guided.negative:
        negative = Context(model.hf, model.token_rows([guided.negative])[0], guided.negative_interventions)
    return guided.guide, expert, plain, negative


@pytest.mark.parametrize("family", CORE)
def test_cached_streams_are_the_formula_recomputed_from_the_start(family: str) -> None:
    model, base = tiny(family), _base(family)
    forced = answers(5)
    script = Script(forced)
    _streams(model, base, script, [0, 1, 2, 3, 4])
    for i in range(5):
        contexts = _contexts(model, base, i)
        for step in (0, 1, NEW - 1):
            want = scores(family, *contexts, forced[i][:step])
            got = script.logits[i, step]
            if ROWS[i][1] is None:  # logits as they came, and log-softmax of them, differ by a constant
                got = got.log_softmax(-1)
            assert torch.equal(got.isinf(), want.isinf()), (i, step)
            there = ~want.isinf()
            assert (got[there] - want[there]).norm() < 1e-5 * want[there].norm(), (i, step)


def test_a_row_is_its_own_whatever_stands_beside_it() -> None:
    model, base = tiny("llama"), _base("llama")
    forced, together = answers(5), Script(answers(5))
    _streams(model, base, together, [0, 1, 2, 3, 4])
    for i in range(5):
        alone = Script([forced[i]])
        _streams(model, base, alone, [i])
        for step in range(NEW):
            torch.testing.assert_close(alone.logits[0, step], together.logits[i, step], rtol=1e-4, atol=1e-4)


def _asked(n: int = 6, guided: Guided | None = None) -> list[Request]:
    every = [guided, None] if guided else [row[1] for row in ROWS]
    return [Request(PROMPTS[i % 5], ("g", i), ROWS[i % 5][0], guided=every[i % len(every)]) for i in range(n)]


@pytest.mark.parametrize("family", CORE)
def test_samples_do_not_depend_on_the_batch(family: str) -> None:
    model, base = tiny(family), _base(family)
    whole = generate(model, _asked(10), SETTINGS, batch_rows=10, base=base)
    for size in (1, 3):
        assert [s.tokens for s in generate(model, _asked(10), SETTINGS, batch_rows=size, base=base)] == [
            s.tokens for s in whole
        ]


def test_no_weight_is_no_guidance() -> None:
    model = tiny("llama")
    plain = generate(model, [Request(p, ("g", i)) for i, p in enumerate(PROMPTS)], SETTINGS)
    zero = [Request(p, ("g", i), guided=Guided(Guide(0, 0), "seen")) for i, p in enumerate(PROMPTS)]
    assert [s.tokens for s in generate(model, zero, SETTINGS)] == [s.tokens for s in plain]
    strong = [Request(p, ("g", i), guided=Guided(Guide(0, 3.0, "balanced"), "seen")) for i, p in enumerate(PROMPTS)]
    assert [s.tokens for s in generate(model, strong, SETTINGS)] != [s.tokens for s in plain]


def test_an_expert_that_is_its_own_base_is_not_moved_by_gamma() -> None:
    model = tiny("qwen2")
    twin = wrap(hf_model("qwen2"), tokenizer(), name="twin")
    plain, same = (
        [Request(p, ("g", i), guided=g) for i, p in enumerate(PROMPTS)] for g in (None, Guided(Guide(2.0, 0)))
    )
    assert [s.tokens for s in generate(model, same, SETTINGS, base=twin)] == [
        s.tokens for s in generate(model, plain, SETTINGS)
    ]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[TracedModel, TracedModel, TracedModel]:
    """One model with its adapter inside; expert and base as two models."""
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    trained: Any = get_peft_model(copy.deepcopy(hf_model("llama")), config)
    trained.save_pretrained(folder)
    hf: Any = hf_model("llama")
    one = wrap(hf, tokenizer(), name="one", adapter=attach(hf, folder))
    return (
        one,
        wrap(trained.merge_and_unload(), tokenizer(), name="two"),
        wrap(hf_model("llama"), tokenizer(), name="base"),
    )


def test_one_model_with_an_adapter_is_expert_and_base(adapted: tuple[TracedModel, TracedModel, TracedModel]) -> None:
    one, expert, base = adapted
    asked = _asked(10)
    assert [s.tokens for s in generate(one, asked, SETTINGS)] == [
        s.tokens for s in generate(expert, asked, SETTINGS, base=base)
    ]
    unmoved = [Request(r.prompt, r.key, r.interventions) for r in asked]
    assert generate(expert, asked, SETTINGS, base=base) != generate(expert, unmoved, SETTINGS)


def test_the_adapter_is_on_again_also_after_an_error(adapted: tuple[TracedModel, TracedModel, TracedModel]) -> None:
    one, expert, base = adapted
    batch = one.encode(PROMPTS[:2])

    def logits(model: TracedModel) -> Tensor:
        found = model.forward(batch, logits=True).logits
        assert found is not None
        return found

    torch.testing.assert_close(logits(one), logits(expert))
    assert one.adapter is not None
    with one.adapter.off():
        torch.testing.assert_close(logits(one), logits(base))

    def fails(rows: Tensor, history: Tensor, scores: Tensor, step: int) -> Tensor:
        raise RuntimeError("inside")

    sides, mix = streams_of(one, None, [Asked(p, False, Guided(Guide(0.5, 0))) for p in PROMPTS[:2]])
    with pytest.raises(Exception, match="inside"):
        one.decode(batch, fails, never, NEW, sides=sides, mix=mix)
    assert one.adapter.on
    torch.testing.assert_close(logits(one), logits(expert))


def test_another_prompt_for_the_base_is_classifier_free_guidance() -> None:
    model, forced = tiny("llama"), answers(1)
    script = Script(forced)
    sides, mix = streams_of(model, None, [Asked("with it", False, Guided(Guide(0.5, 0), base_prompt="it"))])
    model.decode(model.encode(["with it"]), script, never, NEW, sides=sides, mix=mix)
    with_it, without = (
        Context(model.hf, model.token_rows([t])[0]).log_p("llama", forced[0][:2]) for t in ("with it", "it")
    )
    torch.testing.assert_close(script.logits[0, 2], without + 1.5 * (with_it - without), rtol=1e-4, atol=1e-4)


def test_schedules_act_in_the_loop() -> None:
    model, forced = tiny("llama"), answers(2)
    fading = Guide(0, 1.0, "balanced", 0.0, eta_when=Schedule("decaying", half_life=1))
    script = Script(forced)
    asked = [Asked("ab", False, Guided(guide, "seen")) for guide in (fading, Guide(0, 0.25, "balanced", 0.0))]
    sides, mix = streams_of(model, None, asked)
    model.decode(model.encode(["ab", "ab"]), script, never, NEW, sides=sides, mix=mix)
    want = [
        scores("llama", Guide(0, 0.5**step, "balanced", 0.0), Context(model.hf, model.token_rows(["ab"])[0]), None,
               Context(model.hf, model.token_rows(["seen"])[0]), forced[0][:step])
        for step in (0, 3)
    ]  # fmt: skip
    for step, one in zip((0, 3), want, strict=True):
        torch.testing.assert_close(script.logits[0, step], one, rtol=1e-4, atol=1e-4)


def test_a_contrast_needs_a_base_with_the_same_tokens() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match=r"gamma is 0.2 and there is no base to contrast .* with: give base="):
        generate(model, [Request("a", ("k",), guided=Guided(Guide()))], SETTINGS)
    short = wrap(hf_model("llama", vocab_size=270), tokenizer(), name="wider")
    with pytest.raises(SteerlabError, match=r"gives 262 logits and wider 270"):
        check_vocabulary(model, short)
    other = tokenizer()
    other.add_tokens(["new"])
    with pytest.raises(SteerlabError, match=r"differ in 1 tokens of their vocabularies, for example 'new'"):
        check_vocabulary(model, wrap(hf_model("llama"), other, name="other"))


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="is no adapter: give a folder with adapter_config.json"):
        attach(hf_model("llama"), tmp_path)

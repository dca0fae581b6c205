"""Samples that depend on their own request, key and seed and on nothing else; processors, penalties and bad input."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab import generation
from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.generation import (
    Picker,
    Progress,
    Request,
    Sample,
    Settings,
    generate,
    generate_batches,
    plan_requests,
    processors,
)
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.sampling import row_key
from steerlab.steering import Intervention
from steerlab.types import Positions
from tests.reference import sampling as reference
from tests.tiny import CORE, hf_model, tiny, tokenizer, vector

SETTINGS = Settings(max_new_tokens=8, stop=())
STEER = (Intervention(vector(1), (0, 2), strength=2.0),)
KINDS = [
    (),
    STEER,
    (Intervention(vector(2), 1, "ablate", positions=Positions.parse("writing")),),
    (Intervention(vector(3, "mlp_out"), 3, "rotate", 0.5, positions=Positions.parse("generated")),),
]


def requests(n: int) -> list[Request]:
    """Prompts of mixed length, steered in four ways, with and without the chat template."""
    return [Request(f"{'long ' * (i % 5)}prompt {i % 7}", ("task", i), KINDS[i % 4], chat=i % 3 > 0) for i in range(n)]


@pytest.mark.parametrize(
    "stop", [(), tuple("abcdefghijklmnopqrstuvwxyz0123456789,.")], ids=["to the limit", "ending early"]
)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("family", CORE)
def test_a_sample_does_not_depend_on_batch_size_or_order(family: str, rows: int, stop: tuple[str, ...]) -> None:
    """Nor on rows that leave the batch before it: with 38 ways to end, most do."""
    model, asked = tiny(family), requests(16)
    settings = Settings(max_new_tokens=8, stop=stop, temperature=1.5)
    want = generate(model, asked, settings, batch_rows=16)
    order = random.Random(rows).sample(range(16), 16)
    got = generate(model, [asked[i] for i in order], settings, batch_rows=rows)
    assert [got[order.index(i)] for i in range(16)] == want
    lengths = {len(s.tokens) for s in want}
    assert len(lengths) > 3 if stop else len({s.tokens for s in want}) > 13  # sampled, not stuck


def test_a_token_is_drawn_with_the_noise_of_its_key_and_step() -> None:
    settings, keys = Settings(temperature=1.0, top_p=1.0), [row_key(0, "a"), row_key(0, "b"), row_key(0, "c")]
    picker = Picker(settings, processors(settings), torch.tensor(keys), left_pad([[5]] * 3, 0))
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    for rows in ([0, 1, 2], [2, 0], [1]):
        for step in range(6):
            got = picker(torch.tensor(rows), torch.zeros(len(rows), 1 + step).long(), logits[rows], step)
            want = [reference.sample(logits[row].tolist(), keys[row], step) for row in rows]
            assert got.tolist() == want


@pytest.mark.parametrize("family", CORE)
def test_one_key_is_one_noise_and_another_attempt_or_seed_is_another(family: str) -> None:
    model = tiny(family)

    def tokens(key: tuple[str | int, ...], seed: int = 0, change: Any = ()) -> tuple[int, ...]:
        asked = [Request("other", (0,)), Request("the prompt", key, change)]
        return generate(model, asked, Settings(max_new_tokens=8, stop=(), seed=seed, temperature=3.0))[1].tokens

    first = tokens(("jv", "topic", 3, 0))
    assert tokens(("jv", "topic", 3, 0)) == first
    zero = (Intervention(vector(1), (0, 2), strength=0.0),)
    tiny_push = (Intervention(vector(1), (0, 2), strength=1e-6),)
    assert tokens(("jv", "topic", 3, 0), change=zero) == first
    assert tokens(("jv", "topic", 3, 0), change=tiny_push) == first  # common random numbers
    others = [("jv", "topic", 3, 1), ("jv", "topic", 4, 0), ("su", "topic", 3, 0), ("jv", "topic", "3", 0)]
    found = {first, *(tokens(key) for key in others), tokens(("jv", "topic", 3, 0), seed=1)}
    assert len(found) == 6


def test_samples_come_in_the_order_of_their_requests_with_their_own_prompt() -> None:
    model, asked = tiny("llama"), requests(9)
    found = generate(model, asked, SETTINGS, batch_rows=4)
    for request, sample in zip(asked, found, strict=True):
        assert sample.prompt_tokens == len(model.token_rows([request.prompt], request.chat)[0])
    assert generate(model, [], SETTINGS) == []


def test_batches_follow_from_the_requests_and_skipping_some_changes_none() -> None:
    model, asked = tiny("llama"), requests(14)
    whole = {n: (m, s) for n, m, s in generate_batches(model, asked, SETTINGS, batch_rows=4)}
    assert sorted(whole) == [0, 1, 2, 3]
    assert sorted(i for members, _ in whole.values() for i in members) == list(range(14))
    rest = {n: (m, s) for n, m, s in generate_batches(model, asked, SETTINGS, batch_rows=4, skip={0, 2})}
    assert rest == {n: whole[n] for n in (1, 3)}
    assert plan_requests(model, asked, 4)[1] == [whole[n][0] for n in range(4)]


def test_progress_counts_tokens_and_batches(capsys: pytest.CaptureFixture[str]) -> None:
    count = Progress()
    found = list(generate_batches(tiny("llama"), requests(5), SETTINGS, batch_rows=2, progress=True, counter=count))
    assert count.batches == len(found) == 3
    assert count.tokens == sum(len(s.tokens) for _, _, batch in found for s in batch) > 5
    assert count.seconds > 0
    assert "tok/s" in capsys.readouterr().err


@pytest.mark.parametrize("family", CORE)
def test_greedy_is_the_greedy_of_transformers_with_its_penalty(family: str) -> None:
    model, texts = tiny(family), ["some prompt", "a", "another one of them"]
    for penalty in (1.0, 1.5):
        settings = Settings(max_new_tokens=8, stop=(), greedy=True, repetition_penalty=penalty)
        found = generate(model, [Request(t, (t,), chat=False) for t in texts], settings)
        for text, sample in zip(texts, found, strict=True):
            ids = torch.tensor(model.token_rows([text]))
            with torch.no_grad():
                out = model.hf.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=8,
                    do_sample=False,
                    repetition_penalty=penalty,
                    pad_token_id=0,
                    eos_token_id=2,
                )
            assert list(sample.tokens) == out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    "one", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4, "top_p": 1.0}], ids=str
)
def test_every_filter_at_its_limit_is_greedy(one: dict[str, Any]) -> None:
    model = tiny("llama")
    loose = {"top_p": 1.0, "temperature": 2.0, "max_new_tokens": 8, "stop": ()}
    greedy = generate(model, requests(6), Settings(**loose, greedy=True))
    assert generate(model, requests(6), Settings(**{**loose, **one})) == greedy
    assert generate(model, requests(6), Settings(**loose)) != greedy


def test_greedy_ignores_temperature_and_filters() -> None:
    assert len(processors(Settings(greedy=True, top_k=3, temperature=0.1))) == 0
    assert [type(p).__name__ for p in processors(Settings(repetition_penalty=1.1, top_k=3, min_p=0.1))] == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "Nucleus",
        "MinPLogitsWarper",
    ]


def _scores(settings: Settings, rows: list[list[int]], answers: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """What the picker samples from, caught on its way to `greedy`."""
    batch = left_pad(rows, pad_id=2)
    picker = Picker(settings, processors(settings), torch.zeros(len(rows), dtype=torch.int64), batch)
    history = torch.cat([batch.input_ids, torch.tensor([list(a) for a in answers], dtype=torch.int64)], dim=1)
    caught: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "greedy", lambda scores: caught.append(scores) or scores.argmax(-1))
        picker(torch.arange(len(rows)), history, logits, len(answers[0]))
    return caught[0]


def test_the_repetition_penalty_sees_no_padding() -> None:
    """pad = eos = 2: padding that was penalised would make the end of the text less likely the longer the neighbours are."""
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    rows, answers = [[7, 8, 9, 10, 11], [5], [2, 6]], [[3, 4], [3, 12], [13, 4]]
    got = _scores(Settings(greedy=True, repetition_penalty=1.7), rows, answers, logits)
    for i in range(3):
        seen = sorted({*rows[i], *answers[i]})
        want = logits[i].clone()
        want[seen] = torch.where(want[seen] > 0, want[seen] / 1.7, want[seen] * 1.7)
        torch.testing.assert_close(got[i], want)
    assert float(got[1, 2]) == float(logits[1, 2])  # only padding there
    assert float(got[2, 2]) != float(logits[2, 2])  # a real token


def test_the_frequency_penalty_counts_the_answer_only() -> None:
    logits = torch.zeros(2, 20)
    got = _scores(Settings(greedy=True, frequency_penalty=0.5), [[7, 7], [5]], [[3, 3, 4], [7, 7, 7]], logits)
    want = torch.zeros(2, 20)
    want[0, 3], want[0, 4], want[1, 7] = -1.0, -0.5, -1.5
    assert torch.equal(got, want)


def test_padding_does_not_change_a_penalised_sample_when_pad_is_eos() -> None:
    model = wrap(hf_model("llama"), tokenizer(pad=False), name="pad-is-eos")
    assert model.pad_id == model.tokenizer.eos_token_id
    settings = Settings(max_new_tokens=10, stop=(), repetition_penalty=3.0, frequency_penalty=0.3, temperature=2.0)
    asked = [Request("x" * n, (n,)) for n in (1, 40, 7, 120)]
    together = generate(model, asked, settings, batch_rows=4)
    assert together == [generate(model, [one], settings)[0] for one in asked]


def _scripted(patch: pytest.MonkeyPatch, model: TracedModel, answers: Sequence[bytes]) -> None:
    """The model writes these bytes and then EOS, row by row, whatever it is asked."""
    ids = [[*model.tokenizer.convert_tokens_to_ids(model.tokenizer.tokenize(a.decode("latin-1"))), 2] for a in answers]

    def pick(self: Picker, rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        script = [ids[row] for row in rows.tolist()]
        return torch.tensor([one[min(step, len(one) - 1)] for one in script])

    patch.setattr(Picker, "__call__", pick)


def test_a_sample_holds_its_text_and_its_tokens_and_says_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    _scripted(monkeypatch, model, [b"ok", b"one\ntwo", b"much too long", b"\n\n  padded\n", b""])
    asked = [Request(f"p{i}", (i,), KINDS[i % 4]) for i in range(5)]
    found = generate(model, asked, Settings(max_new_tokens=11, stop=("\n",)))
    assert [s.text for s in found] == ["ok", "one", "much too lo", "padded", ""]
    assert [s.ended for s in found] == [True, True, False, True, True]
    assert [len(s.tokens) for s in found] == [3, 4, 11, 11, 1]
    assert found[0].tokens[-1] == 2
    assert isinstance(found[0], Sample)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give a value at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0: give a value above 0 .use greedy=True"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"frequency_penalty": float("inf")}, "frequency_penalty is inf"),
        ({"stop": ("",)}, r"stop is \('',\): give a value like"),
    ],
)
def test_settings_without_meaning_are_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message) as caught:
        Settings(**given)
    assert "\n" not in str(caught.value)


def test_one_string_is_not_taken_for_several_one_letter_stops() -> None:
    """As in production, where nothing checks the annotations."""
    with pytest.raises(SteerlabError, match="stop is 'END': give a value like"):
        inspect.unwrap(Settings.__init__)(object.__new__(Settings), stop="END")


def test_requests_the_model_cannot_take_are_one_sentence() -> None:
    model = tiny("llama")
    deep = Intervention(vector(1, layers=9), 8)
    for asked, rows, message in (
        ([Request("x" * 250, (0,))], 4, r"a prompt of 253 tokens and 8 new ones need 261 positions"),
        ([Request("a", (0,))], 0, "batch_rows is 0: give at least 1"),
        ([Request("a", (0,), (deep,))], 4, "layer 8 was given"),
        ([Request("a", (0,), (Intervention(vector(1, width=8), 1),))], 4, "has width 8"),
    ):
        with pytest.raises(SteerlabError, match=message):
            generate(model, asked, SETTINGS, batch_rows=rows)
    with pytest.raises(SteerlabError, match="the text '' has no tokens"):
        generate(tiny("llama", bos=False), [Request("", (0,), chat=False)], SETTINGS)


def test_logits_that_are_nan_are_one_sentence_also_from_within_a_trace() -> None:
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight[tokenizer().convert_tokens_to_ids("q")] = torch.nan
    for change in ((), STEER):
        with pytest.raises(SteerlabError, match="row 0 of the scores holds NaN") as caught:
            generate(wrap(hf, tokenizer()), [Request("quark", (0,), change)], SETTINGS)
        assert "\n" not in str(caught.value)


def test_settings_in_json() -> None:
    assert Settings(stop=("\n", "END")).to_json()["stop"] == ["\n", "END"]
    assert row_key(0, "a", 1) != row_key(1, "a", 1)

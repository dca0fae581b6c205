"""Instruction vectors are the mean difference at the prompt's end, at every layer, with one BOS, whatever the batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlab.batch import Batch
from steerlab.errors import SteerlabError
from steerlab.instructions import (
    CHAT,
    QA,
    Form,
    Pairs,
    build_pairs,
    end_activations,
    find_form,
    fit_instructions,
    load_instruction_vectors,
    pair_name,
    pairs_of,
    save_instructions,
)
from steerlab.instructions.keeping import file_key
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.streams import Past
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.instruct import FAMILIES, pairs, prompts, queries
from tests.tiny import CHAT as TEMPLATE
from tests.tiny import LAYERS, hf_model, tiny, tokenizer


def ends(model: TracedModel, texts: tuple[str, ...], form: Form = CHAT, last: int = 1) -> Tensor:
    """The obvious way, "n l d": one prompt at a time."""
    rows = []
    for text in texts:
        batch = model.encode([form.put(text)], chat=form.chat)
        read = model.forward(batch, read=[Site(layer) for layer in range(model.n_layers)])
        rows.append(torch.stack([read[Site(layer)][0, -last:].double().mean(0) for layer in range(model.n_layers)]))
    return torch.stack(rows)


def difference(model: TracedModel, own: Pairs, form: Form = CHAT, last: int = 1) -> Tensor:
    return (ends(model, own.instructed, form, last) - ends(model, own.bare, form, last)).mean(0)


@pytest.mark.parametrize("form", [CHAT, QA], ids=["chat", "qa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_prompt_has_one_bos_and_ends_at_the_answer(family: str, form: Form) -> None:
    """The template writes BOS and the tokenizer adds one to plain text: neither may come twice."""
    model = tiny(family)
    assert "bos_token" in TEMPLATE and model.tokenizer("a")["input_ids"][0] == 1
    rows = form.token_rows(model, ["Say it.", "Now the town."])
    assert all(row[0] == 1 and row.count(1) == 1 for row in rows)
    assert all(row[-1] == (4 if form is CHAT else model.tokenizer.encode(":")[-1]) for row in rows)


def test_a_template_that_begins_with_two_bos_is_refused() -> None:
    own = tokenizer()
    own.chat_template = "{{ bos_token }}" + TEMPLATE
    model = wrap(hf_model("llama"), own, name="twice")
    with pytest.raises(SteerlabError, match="begin with two BOS"):
        fit_instructions(model, pairs(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_is_the_unit_mean_difference_with_its_norm_and_projections(family: str) -> None:
    model, given = tiny(family), pairs(4)
    vectors = fit_instructions(model, given, splits=0)
    assert list(vectors) == [own.name for own in given]
    for own in given:
        vector, want = vectors[own.name], difference(model, own)
        torch.testing.assert_close(vector.raw_norm.double(), want.norm(dim=-1), rtol=1e-3, atol=1e-4)
        assert torch.cosine_similarity(vector.direction.double(), want, dim=-1).min() > 1 - 1e-5
        torch.testing.assert_close(vector.direction.norm(dim=-1), torch.ones(LAYERS), rtol=1e-5, atol=0)
        assert vector.projections is not None and vector.projections.reliability == ()
        for told, texts in ((vector.projections.instructed, own.instructed), (vector.projections.bare, own.bare)):
            want = (ends(model, texts).mean(0) * vector.direction).sum(-1)
            torch.testing.assert_close(torch.tensor(told, dtype=torch.float64), want, rtol=1e-3, atol=1e-3)
        gap = torch.tensor(vector.projections.instructed) - torch.tensor(vector.projections.bare)
        torch.testing.assert_close(gap, vector.raw_norm, rtol=1e-4, atol=1e-4)


def test_batches_and_other_instructions_change_nothing() -> None:
    model, given = tiny("gemma2"), pairs(5)
    together = fit_instructions(model, given)
    for budget, some in ((1, given), (4096, given[:1])):
        for name, vector in fit_instructions(model, some, token_budget=budget).items():
            assert torch.cosine_similarity(vector.direction, together[name].direction, dim=-1).min() > 1 - 1e-5
            torch.testing.assert_close(vector.raw_norm, together[name].raw_norm, rtol=1e-3, atol=1e-4)


def test_flipping_the_pairs_flips_the_sign_and_the_sides() -> None:
    (own, *_) = pairs(4)
    model = tiny("llama")
    (one,), (other,) = (fit_instructions(model, [p]).values() for p in (own, own.flipped()))
    torch.testing.assert_close(other.direction, -one.direction, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.raw_norm, one.raw_norm)
    turned = (-one).projections
    assert turned is not None and other.projections is not None
    torch.testing.assert_close(
        torch.tensor(other.projections.instructed), torch.tensor(turned.instructed), rtol=1e-3, atol=1e-3
    )


def test_the_last_k_tokens_are_averaged() -> None:
    model, (own, *_) = tiny("llama"), pairs(3)
    (vector,) = fit_instructions(model, [own], last=3, form=QA).values()
    want = difference(model, own, QA, last=3)
    assert torch.cosine_similarity(vector.direction.double(), want, dim=-1).min() > 1 - 1e-5
    assert vector.provenance.positions == "last:3"
    assert torch.cosine_similarity(difference(model, own, QA), want, dim=-1).max() < 0.999
    with pytest.raises(SteerlabError, match="last is 0"):
        fit_instructions(model, [own], last=0)


def test_against_others_the_shared_direction_goes() -> None:
    model, given = tiny("llama"), pairs(5)
    d = torch.stack([difference(model, own) for own in given])
    others, unshared = (fit_instructions(model, given, against=a) for a in ("others", "unshared"))
    raws = [
        torch.stack([v.direction.double() * v.raw_norm.double()[:, None] for v in found.values()])
        for found in (others, unshared)
    ]
    for i in range(3):
        want = d[i] - (d.sum(0) - d[i]) / 2
        torch.testing.assert_close(raws[0][i], want, rtol=1e-3, atol=1e-3)
    assert raws[0].sum(0).abs().max() < 1e-3 < d.sum(0).abs().max()
    shared = d.mean(0) / d.mean(0).norm(dim=-1, keepdim=True)
    assert (raws[1] * shared).sum(-1).abs().max() < 1e-3 < (d * shared).sum(-1).abs().min()
    plain = torch.stack([v.direction for v in fit_instructions(model, given).values()])
    clean = torch.stack([v.direction for v in others.values()])

    def alike(u: Tensor) -> float:
        return float(torch.cosine_similarity(u[0], u[1], dim=-1).mean())

    assert alike(clean) < alike(plain) - 0.2
    with pytest.raises(SteerlabError, match="needs others"):
        fit_instructions(model, given[:1], against="others")


def test_a_direction_the_pairs_agree_on_is_reliable_and_one_they_do_not_is_not() -> None:
    model, (own, *_) = tiny("llama"), pairs(16)
    mixed = [(b, a) if i % 2 else (a, b) for i, (a, b) in enumerate(zip(own.instructed, own.bare, strict=True))]
    shuffled = Pairs("shuffled", tuple(a for a, _ in mixed), tuple(b for _, b in mixed), own.groups)
    vectors = fit_instructions(model, [own, shuffled], splits=6)
    real, noise = (vectors[name].projections for name in (own.name, "shuffled"))
    assert real is not None and noise is not None
    assert min(real.reliability) > 0.8 > 0.5 > max(noise.reliability)


def test_vectors_come_back_from_their_folder(tmp_path: Path) -> None:
    found = fit_instructions(tiny("llama"), [replace(own, name=f"{own.name}_!") for own in pairs(3)])
    save_instructions(found, tmp_path / "set")
    back = load_instruction_vectors(tmp_path / "set")
    assert list(back) == list(found)
    assert all(back[name].equals(found[name]) for name in found)
    assert isinstance(back["simple:quotes_!"], SteeringVector)
    assert file_key("simple:end_mark_!") == "simple-end_mark__u21_" and file_key(".") == "_."
    with pytest.raises(SteerlabError, match="make 1 files"):
        save_instructions({"a:b": found["simple:quotes_!"], "a-b": found["simple:quotes_!"]}, tmp_path / "other")


def test_pairs_have_seeded_phrasings_of_each_query() -> None:
    own = build_pairs(queries(3), "words:include", {"words": ["river"]}, phrasings=4, seed=1)
    assert own.name == "words:include_river" and len(own) == 12
    assert len(set(own.instructed)) == 12 and len(set(own.bare)) == 3 == len(set(own.groups))
    assert all(
        text.startswith(f"{base} ") and "river" in text for text, base in zip(own.instructed, own.bare, strict=True)
    )
    assert own == build_pairs(queries(3), "words:include", {"words": ["river"]}, phrasings=4, seed=1)
    assert own != build_pairs(queries(3), "words:include", {"words": ["river"]}, phrasings=4, seed=2)
    assert build_pairs(["a?"], "simple:quotes").groups == ("a?",)
    assert len(build_pairs(["a?"], "simple:quotes", phrasings=99)) == 6
    assert pair_name("simple:end_mark", {"mark": "!"}) == "simple:end_mark_!"
    with pytest.raises(SteerlabError, match="0 queries"):
        build_pairs([], "simple:quotes")


def test_only_prompts_with_one_instruction_make_pairs() -> None:
    both = prompts(2, [("simple:lowercase", "simple:quotes")])
    assert pairs_of(both) == [] and len(pairs_of([*both, *prompts(2)])) == 3


def test_what_cannot_be_fitted_is_refused() -> None:
    model, given = tiny("llama"), pairs(2)
    with pytest.raises(SteerlabError, match="at least one instruction"):
        fit_instructions(model, [])
    with pytest.raises(SteerlabError, match="each once"):
        fit_instructions(model, [given[0], given[0]])
    with pytest.raises(SteerlabError, match="at least one pair"):
        Pairs("x", (), (), ())
    with pytest.raises(SteerlabError, match="can be read"):
        fit_instructions(model, [Pairs("long", ("x" * 300,), ("x",), ("g",))])
    with pytest.raises(SteerlabError, match="no difference"):
        fit_instructions(model, [Pairs("same", ("x",), ("x",), ("g",))])
    with pytest.raises(SteerlabError, match="form 'tea' is not known"):
        find_form("tea")
    assert find_form("Say: {prompt}").put("x") == "Say: x"


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "gemma3"])
def test_what_prompts_begin_with_is_read_once_and_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a sliding window (8 tokens in two of the shapes) reaches back over the border, and prompts differ in length."""
    model = tiny(family)
    texts = [
        f"{head}{tail}"
        for head in ("a short text", "and another text that is longer")
        for tail in ("", " x", " of some more words")
    ]
    groups, counted = ["a"] * 3 + ["b"] * 3, []
    want = end_activations(model, texts, form=QA, last=2)
    read = type(model).past

    def past(self: TracedModel, batch: Batch) -> Past:
        counted.append(batch.input_ids.shape)
        return read(self, batch)

    monkeypatch.setattr(type(model), "past", past)
    found = end_activations(model, [*texts, "alone"], form=QA, groups=[*groups, "c"], last=2)
    assert counted == [(2, 35)] and found.shape[0] == 7
    torch.testing.assert_close(found[:6], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[6:], end_activations(model, ["alone"], form=QA, last=2), rtol=1e-4, atol=1e-4)


def test_an_engine_without_a_cache_reads_whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    texts = ["a short text", "a short text x", "a short text of some more words"]
    want = end_activations(model, texts, form=QA)
    monkeypatch.setattr(type(model), "keeps_cache", False)
    with pytest.raises(SteerlabError, match="engine 'local' keeps no keys and values to go on from"):
        model.past(model.encode(texts))
    found = end_activations(model, texts, form=QA, groups=["a"] * 3)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_end_activations_are_what_the_means_are_made_of() -> None:
    model, (own, *_) = tiny("gemma2"), pairs(3)
    found = end_activations(model, own.instructed, form=CHAT)
    torch.testing.assert_close(found.double(), ends(model, own.instructed), rtol=1e-3, atol=1e-3)

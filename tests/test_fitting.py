"""Vectors fitted on texts are the differences of means they claim to be, with nothing of corpus or typography in them."""

from __future__ import annotations

import string
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.capture import texts_digest
from steerlab.data.contrast import ContrastPair, ContrastPairs
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.fitting import fit_contrast_vector, fit_language_vectors, fit_quality_vector
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.types import Site
from tests.tiny import LAYERS, D, hf_model, tiny, tokenizer

TEXTS = {
    "jv": ["aku mangan sega", "kowe turu", "omah iku gedhe banget lan apik"],
    "su": ["abdi tuang sangu", "anjeun bobo"],
    "id": ["saya makan nasi di rumah", "dia tidur", "buku itu mahal"],
}


def raw_streams(model: TracedModel, text: str) -> Tensor:
    """resid_post of every block (l s d) of one text without BOS, by plain forward hooks, in float64."""
    hf: Any = model.hf
    kept: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: kept.append(out if isinstance(out, Tensor) else out[0]))
        for block in hf.model.layers
    ]
    with torch.no_grad():
        hf(torch.tensor(model.token_rows([text])))
    for hook in hooks:
        hook.remove()
    return torch.stack([h[0, 1:] for h in kept]).double()


def two_pass_mean(model: TracedModel, texts: list[str], by_text: bool = False) -> Tensor:
    streams = [raw_streams(model, text) for text in texts]
    if by_text:
        return torch.stack([h.mean(1) for h in streams]).mean(0)
    return torch.cat(streams, dim=1).mean(1)


@pytest.mark.parametrize("weighting", ["token", "text"])
def test_language_vectors_equal_a_two_pass_reference(weighting: Any) -> None:
    model = tiny("llama")
    found = fit_language_vectors(model, {"texts": TEXTS}, weighting=weighting, token_budget=64)
    means = {code: two_pass_mean(model, own, weighting == "text") for code, own in TEXTS.items()}
    for code, vector in found.items():
        others = [means[other] for other in means if other != code]
        raw = torch.stack([vector.raw(layer) for layer in range(LAYERS)]).double()
        want = means[code] - torch.stack(others).mean(0)
        assert torch.allclose(raw, want, atol=1e-5 * float(want.norm()))
        assert vector.name == f"language-{code}" and vector.layers == tuple(range(LAYERS))
    if weighting == "token":
        tokens = {code: sum(len(t.encode()) for t in own) for code, own in TEXTS.items()}
        assert found["su"].counts == (tokens["su"], tokens["jv"] + tokens["id"])
    else:
        assert found["su"].counts == pytest.approx((2, 6))


def test_sites_and_positions_are_passed_on() -> None:
    model = tiny("llama")
    found = fit_language_vectors(model, {"t": TEXTS}, sites=[Site(2)], positions="last:1")
    assert all(vector.layers == (2,) for vector in found.values())
    last = {c: torch.stack([raw_streams(model, t)[2, -1] for t in own]).mean(0) for c, own in TEXTS.items()}
    want = last["jv"] - (last["su"] + last["id"]) / 2
    assert torch.allclose(found["jv"].raw(2).double(), want, atol=1e-5 * float(want.norm()))
    assert found["jv"].provenance.positions == "last:1"


def transparent(planted: dict[str, Tensor]) -> TracedModel:
    """A model whose blocks add nothing, so that every layer's stream is the embedding: noise plus what is planted for a letter."""
    hf: Any = hf_model("llama")
    tok = tokenizer()
    noise = torch.randn(hf.config.vocab_size, D, generator=torch.Generator().manual_seed(1)) * 0.05
    for character, direction in planted.items():
        (number,) = tok(character, add_special_tokens=False)["input_ids"]  # type: ignore[misc]
        noise[number] = direction
    with torch.no_grad():
        hf.get_input_embeddings().weight.copy_(noise)
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return wrap(hf, tok, name="transparent")


def axis(k: int) -> Tensor:
    return torch.eye(D)[k] * 3


def test_a_planted_direction_is_recovered() -> None:
    letters = string.ascii_lowercase
    model = transparent({letter: axis(0) for letter in letters[:13]})
    early, late = ["abcm", "dclkj", "mmab"], ["nopz", "zyxw", "ttuvn"]
    contrast = fit_contrast_vector(model, early, late, name="half")
    language = fit_language_vectors(model, {"t": {"a": early, "b": late}})
    for layer in range(LAYERS):
        for vector, sign in ((contrast, 1), (language["a"], 1), (language["b"], -1)):
            assert float(vector.at(layer)[0]) * sign > 0.995
            assert float(vector.raw_norm[layer]) == pytest.approx(3, rel=0.05)


def test_a_corpus_is_taken_out_through_the_languages_it_shares() -> None:
    """News marks every second letter "-", reviews mark it "#"; language c is seen in reviews only."""
    names = {"a": axis(0), "b": axis(1), "c": axis(2), "-": axis(3), "#": axis(4)}
    model = transparent(names)

    def text(letter: str, mark: str) -> list[str]:
        return [(letter + mark) * 4, (letter + mark) * 7]

    news = {"la": text("a", "-"), "lb": text("b", "-")}
    reviews = {"lb": text("b", "#"), "lc": text("c", "#")}
    found = fit_language_vectors(model, {"news": news, "reviews": reviews})
    want = (axis(2) - (axis(0) + axis(1)) / 2) / 2  # half of the tokens are letters
    for layer in range(LAYERS):
        assert torch.allclose(found["lc"].raw(layer), want, atol=1e-5)
        assert found["la"].raw(layer)[3:5].abs().max() < 1e-5
    pooled = {"la": news["la"], "lb": [*news["lb"], *reviews["lb"]], "lc": reviews["lc"]}
    naive = fit_language_vectors(model, {"all": pooled})
    assert float(naive["lc"].raw(0)[4]) > 0.5  # the review's mark, which the alignment took out
    with pytest.raises(SteerlabError, match="share|tie"):
        fit_language_vectors(model, {"news": news, "reviews": {"lc": reviews["lc"]}})


GOOD = ["Rumah itu besar", "Dia membaca buku tua", "Kami makan nasi"]
DRESSED = ["\u201cRumah  itu besar\u201d.", "\u00abdia membaca buku tua \u00bb", "kami makan nasi !"]


def test_typography_is_taken_from_both_sides() -> None:
    assert [normalise_surface(t) for t in GOOD] == [normalise_surface(t) for t in DRESSED]
    model = tiny("llama")
    for sides in ((GOOD, DRESSED), (DRESSED, GOOD)):
        with pytest.raises(SteerlabError, match="no difference between its sides"):
            fit_contrast_vector(model, *sides, name="q", kind="quality")
        assert fit_contrast_vector(model, *sides, name="q", surface=False).layers == tuple(range(LAYERS))
    worse = ["rumah besar itu", "dia buku membaca tua", "nasi kami makan"]
    plain, dressed = (fit_contrast_vector(model, side, worse, name="q") for side in (GOOD, DRESSED))
    assert torch.equal(plain.direction, dressed.direction)
    bare = fit_contrast_vector(model, DRESSED, worse, name="q", surface=False)
    assert not torch.allclose(bare.direction, plain.direction, atol=1e-3)
    flipped = fit_contrast_vector(model, worse, GOOD, name="q")
    assert torch.allclose(flipped.direction, -plain.direction, atol=1e-6)


def test_the_record_says_where_a_vector_comes_from() -> None:
    model = tiny("llama")
    found = fit_language_vectors(model, {"news": TEXTS}, weighting="text")["jv"].provenance
    assert (found.model, found.revision, found.dtype) == (model.name, model.revision, "float32")
    assert found.method == "language_vectors" and (found.positions, found.weighting) == ("all", "text")
    assert found.data == tuple((f"news/{code}", texts_digest(own)) for code, own in TEXTS.items())
    assert len(found.tokenizer_hash) == len(found.template_hash) == 64
    assert {name for name, _ in found.versions} >= {"torch", "transformers"}
    other = wrap(hf_model("llama"), tokenizer(chat=False), name="plain")
    plain = fit_language_vectors(other, {"news": TEXTS})["jv"].provenance
    assert plain.template_hash != found.template_hash and plain.tokenizer_hash == found.tokenizer_hash
    contrast = fit_contrast_vector(model, GOOD, TEXTS["id"], name="q", kind="quality").provenance
    assert contrast.method == "quality_vector"
    normal = [normalise_surface(t) for t in GOOD]
    assert contrast.data[0] == ("positive", texts_digest(normal)) and contrast.data[1][0] == "negative"
    assert fit_contrast_vector(model, GOOD, TEXTS["id"], name="q").provenance.method == "difference_of_means"


def test_bad_input_is_refused() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="kind 'mood' is not known"):
        fit_contrast_vector(model, GOOD, DRESSED, name="q", kind="mood")
    with pytest.raises(SteerlabError, match="no texts were given"):
        fit_contrast_vector(model, ["..."], GOOD, name="q")  # nothing is left once the surface is normalised
    with pytest.raises(SteerlabError, match="at least one other language"):
        fit_language_vectors(model, {"t": {"jv": TEXTS["jv"]}})
    long = {**TEXTS, "jv": ["a" * 1000]}
    assert fit_language_vectors(model, {"t": long})["jv"].counts[0] == model.context_length - 1  # cut, not refused


def test_a_quality_vector_of_length_matched_pairs_knows_no_length() -> None:
    """Degraded texts hold a "#"; in most pairs the human side has a long tail of "-" as well, which is length and nothing else."""
    model = transparent({"#": axis(0), "-": axis(1)})
    sides = [("abcd", "abc#")] * 6 + [("abcd----", "abc#")] * 5 + [("abcd", "abc#----")] * 2
    pairs = ContrastPairs(tuple(ContrastPair(str(i), *side, "s") for i, side in enumerate(sides)))
    plain = fit_quality_vector(model, pairs, surface=False)
    matched = fit_quality_vector(model, pairs, surface=False, match_length=True, name="q")
    assert (plain.name, matched.name) == ("quality", "q-length-matched")
    assert plain.provenance.method == matched.provenance.method == "quality_vector"
    assert plain.counts == (6 * 4 + 5 * 8 + 2 * 4, 6 * 4 + 5 * 4 + 2 * 8) and matched.counts == (48, 48)
    for layer in range(LAYERS):
        assert float(plain.raw(layer)[1]) > 0.2 > 0.02 > abs(float(matched.raw(layer)[1]))
        assert float(plain.at(layer)[0]) > -0.95 > -0.99 > float(matched.at(layer)[0])
    same = fit_contrast_vector(model, pairs.human, pairs.degraded, name="quality", kind="quality", surface=False)
    assert torch.equal(plain.direction, same.direction)


def test_lengths_are_matched_in_the_models_tokens_after_normalisation() -> None:
    """The byte tokenizer counts an Ethiopic letter as three; quotation marks are gone before anything is counted."""
    model = tiny("llama")
    sides = [("ቤት ab", "abcde"), ("abc", "ab cde"), ("ab", "\u201cba\u201d")]  # 9-5, 3-6, 2-2 bytes
    pairs = ContrastPairs(tuple(ContrastPair(str(i), *side, "s") for i, side in enumerate(sides)))
    assert fit_quality_vector(model, pairs, match_length=True).counts == (2, 2)
    even = ContrastPairs((*pairs.pairs, ContrastPair("3", "abc", "ab cdef", "s")))  # 3-7 bytes: the mirror of 9-5
    assert fit_quality_vector(model, even, match_length=True).counts == (9 + 2 + 3, 5 + 2 + 7)

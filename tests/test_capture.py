"""Captured statistics are those of the texts one by one; the file on disk is what the forward pass gave, or no file at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab.activations import Activations, capture_activations
from steerlab.capture import all_layers, capture_moments
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.types import STREAMS, Positions, Site
from tests.reference import hooks
from tests.tiny import CORE, FAMILIES, LAYERS, hf_model, tiny, tokenizer

TEXTS = ["a", "bcdefgh ijk", "Hello wörld, this is a longer text.", "xyz", "zażółć", "bcdefgh ijl"]
SITES = tuple(Site(layer, stream) for layer in (0, 2) for stream in STREAMS)


def one_by_one(
    model: TracedModel, family: str, site: Site, part: slice = slice(None), chat: bool = False
) -> list[Tensor]:
    """The chosen activations (n d) of every text, each run alone under a raw hook, BOS left out before anything is chosen."""
    found = []
    for row in model.token_rows(TEXTS, chat):
        ids = torch.tensor([row])
        kept, _ = hooks.capture(model.hf, family, ids, torch.ones_like(ids), [site])
        chosen = list(range(len(row)))[part]
        found.append(kept[site][0][[i for i in chosen if row[i] != 1]].double())
    return found


@pytest.mark.parametrize("budget", [1, 40, 4096])
@pytest.mark.parametrize("weighting", ["token", "text"])
@pytest.mark.parametrize("family", CORE)
def test_streamed_moments_are_those_of_two_naive_passes(family: str, weighting: Any, budget: int) -> None:
    model = tiny(family)
    got = capture_moments(model, TEXTS, SITES, weighting=weighting, covariance=True, token_budget=budget)
    assert got.sites == SITES
    assert got.covariance is not None
    for k, site in enumerate(SITES):
        texts = one_by_one(model, family, site)
        x = torch.cat(texts)
        w = torch.cat([torch.full((len(t),), 1.0 if weighting == "token" else 1 / len(t)).double() for t in texts])
        mean = (w @ x) / w.sum()
        off = x - mean
        covariance = (off.T * w) @ off / w.sum()
        assert float(got.count[k]) == pytest.approx(len(x) if weighting == "token" else len(TEXTS))
        torch.testing.assert_close(got.mean[k], mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.variance[k], covariance.diagonal(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(got.covariance[k], covariance, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got.norm[k], (w @ x.norm(dim=1)) / w.sum(), rtol=1e-5, atol=1e-6)


def test_weighting_by_token_and_by_text_differ_on_texts_of_mixed_length() -> None:
    model = tiny("llama")
    token, text = (capture_moments(model, TEXTS, weighting=w).mean for w in ("token", "text"))
    assert ((token - text).norm() / text.norm()) > 0.05
    same = ["abc", "def"]
    token, text = (capture_moments(model, same, weighting=w).mean for w in ("token", "text"))
    torch.testing.assert_close(token, text, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mean_over_padded_batches_is_the_mean_of_the_texts_alone(family: str) -> None:
    model = tiny(family)
    got = capture_moments(model, TEXTS, [Site(1)])
    want = torch.cat(one_by_one(model, family, Site(1))).mean(0)
    assert (got.mean[0] - want).norm() < 1e-5 * want.norm()
    batch = model.encode(TEXTS)
    naive = model.forward(batch, read=[Site(1)])[Site(1)].flatten(0, 1).double().mean(0)  # pads, BOS and all
    assert (naive - want).norm() > 0.1 * want.norm()


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize(
    ("positions", "part"),
    [
        ("all", slice(None)),
        ("prompt", slice(None)),
        ("last_prompt", slice(-1, None)),
        ("last:3", slice(-3, None)),
        ("-5:-2", slice(-5, -2)),
        (Positions(-2, -1), slice(-2, -1)),
    ],
)
def test_positions_count_from_the_end_of_each_text(family: str, positions: Any, part: slice) -> None:
    model = tiny(family)
    got = capture_moments(model, TEXTS, [Site(2)], positions=positions)
    want = torch.cat(one_by_one(model, family, Site(2), part))
    assert float(got.count[0]) == len(want)
    assert (got.mean[0] - want.mean(0)).norm() < 1e-5 * want.mean(0).norm()


def test_only_ids_and_skip_ids_choose_tokens() -> None:
    model = tiny("llama")
    letter = model.tokenizer.convert_tokens_to_ids("l")
    total = sum(row.count(letter) for row in model.token_rows(TEXTS))
    everything = float(capture_moments(model, TEXTS).count[0])
    assert float(capture_moments(model, TEXTS, positions=Positions(only_ids=(letter,))).count[0]) == total > 2
    rest = capture_moments(model, TEXTS, positions=Positions(skip_ids=(letter,)))
    assert float(rest.count[0]) == everything - total


def test_bos_is_left_out_unless_it_is_asked_for() -> None:
    model = tiny("llama")
    tokens = [len(row) for row in model.token_rows(TEXTS)]
    assert float(capture_moments(model, TEXTS).count[0]) == sum(tokens) - len(TEXTS)
    assert float(capture_moments(model, TEXTS, skip_bos=False).count[0]) == sum(tokens)
    only = capture_moments(model, TEXTS, positions=Positions(only_ids=(1,)))
    assert float(only.count[0]) == len(TEXTS)
    without = tiny("llama", bos=False)
    assert float(capture_moments(without, TEXTS).count[0]) == sum(tokens) - len(TEXTS)


def test_chat_puts_the_texts_behind_the_template() -> None:
    model = tiny("qwen2")
    got = capture_moments(model, TEXTS, [Site(1)], chat=True, positions="last_prompt")
    want = torch.cat(one_by_one(model, "qwen2", Site(1), slice(-1, None), chat=True)).mean(0)
    assert (got.mean[0] - want).norm() < 1e-5 * want.norm()
    assert capture_moments(model, TEXTS, [Site(1)], chat=True).count > capture_moments(model, TEXTS).count[0]


def test_max_tokens_cuts_long_texts_and_without_it_they_are_refused() -> None:
    model = tiny("llama")
    long = ["x" * 300, "ab"]
    with pytest.raises(SteerlabError, match=r"a text of 301 tokens .* does not fit .* give max_tokens=256"):
        capture_moments(model, long)
    assert float(capture_moments(model, long, max_tokens=10).count[0]) == 9 + 2


def _nan_padded() -> TracedModel:
    """A model whose pad embedding is NaN: whatever a padded position gives, it is not a number."""
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight[0] = torch.nan
    return wrap(hf, tokenizer(), name="nan")


def test_padding_that_is_nan_does_not_leak_into_moments_or_activations(tmp_path: Path) -> None:
    model, clean = _nan_padded(), tiny("llama")
    site = Site(0, "resid_pre")
    batch = model.encode(TEXTS)
    raw = model.forward(batch, read=[site])[site]
    assert (raw * batch.attention_mask[..., None]).isnan().any()  # multiplying by the mask would keep them
    for weighting in ("token", "text"):
        got = capture_moments(model, TEXTS, [site], weighting=weighting)
        assert torch.equal(got.mean, capture_moments(clean, TEXTS, [site], weighting=weighting).mean)
    for pooling in ("mean", "last", "tokens"):
        values = capture_activations(model, TEXTS, tmp_path / "a", [site], pooling=pooling).values
        want = capture_activations(clean, TEXTS, tmp_path / "b", [site], pooling=pooling).values
        assert np.array_equal(values, want)


def test_activations_that_are_nan_are_refused_with_the_site_and_the_text(tmp_path: Path) -> None:
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight[tokenizer().convert_tokens_to_ids("q")] = torch.nan
    model = wrap(hf, tokenizer())
    message = r"an activation at resid_post of layer 2 is NaN .*'quark'"
    with pytest.raises(SteerlabError, match=message) as caught:
        capture_moments(model, ["abcdefgh", "quark", "abc"], [Site(2)])  # one batch: that text, not the batch's first
    assert "\n" not in str(caught.value)
    with pytest.raises(SteerlabError, match=message) as caught:
        capture_activations(model, ["abc", "quark"], tmp_path / "a", [Site(2)])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def _count_calls(model: TracedModel) -> tuple[list[str], list[Any]]:
    calls: list[str] = []
    watched = {f"block {i}": b for i, b in enumerate(model.hf.get_submodule(model.layout.layers))}
    watched["head"] = model.hf.get_output_embeddings()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name)) for name, module in watched.items()
    ]
    return calls, handles


@pytest.mark.parametrize("family", CORE)
def test_no_lm_head_and_no_block_behind_the_last_one_is_run(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    calls, handles = _count_calls(model)
    try:
        capture_moments(model, TEXTS, [Site(0), Site(1)], token_budget=1)
        assert calls == ["block 0", "block 1"] * len(TEXTS)
        calls.clear()
        capture_activations(model, TEXTS, tmp_path / "a", [Site(1)])
        assert calls == ["block 0", "block 1"]
        calls.clear()
        capture_moments(model, TEXTS)
        assert calls == [f"block {i}" for i in range(LAYERS)]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("pooling", ["mean", "last", "tokens"])
def test_mapped_activations_are_those_of_the_forward_pass(family: str, pooling: Any, tmp_path: Path) -> None:
    model = tiny(family)
    got = capture_activations(
        model, TEXTS, tmp_path / "deep" / "a.safetensors", SITES, pooling=pooling, token_budget=30
    )
    assert isinstance(got.values, np.memmap)
    for site in SITES:
        texts = one_by_one(model, family, site)
        assert len(got.offsets) == len(TEXTS) + 1
        for i, text in enumerate(texts):
            rows = {"mean": text.mean(0, keepdim=True), "last": text[-1:], "tokens": text}[pooling]
            mine = torch.tensor(got.site(site)[got.offsets[i] : got.offsets[i + 1]]).double()
            assert mine.shape == rows.shape
            assert (mine - rows).norm() < 1e-5 * rows.norm()
    again = Activations.open(got.path)
    assert (again.sites, again.offsets.tolist()) == (got.sites, got.offsets.tolist())
    assert np.array_equal(again.values, got.values)


def test_half_precision_on_disk(tmp_path: Path) -> None:
    model = tiny("llama")
    wide = capture_activations(model, TEXTS, tmp_path / "a").values
    half = capture_activations(model, TEXTS, tmp_path / "b", dtype="float16").values
    assert half.dtype == np.float16
    assert np.array_equal(half, wide.astype(np.float16))
    assert wide.shape == (len(TEXTS), LAYERS, 32)
    assert all_layers(model) == tuple(Site(layer) for layer in range(LAYERS))

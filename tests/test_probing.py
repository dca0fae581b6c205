"""Rows that are probed are the model's own activations, texts that belong together are never parted, and the direction steers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from steerlab import Intervention, Plan, Site, capture_activations, capture_moments, probes
from steerlab.errors import SteerlabError
from steerlab.probing import EMBEDDING, ProbeRows, probe_rows, probe_texts, read_rows
from steerlab.steering import TokenContext
from tests.tiny import CORE, LAYERS, D, tiny

TEXTS = {
    "x": [f"ab {word} cab" for word in ("bca", "a ba", "abba", "c", "cab cab", "bb", "acc", "ba", "cc", "b")],
    "y": [f"zx {word} yz" for word in ("yzz", "y", "zyxz", "xz", "z", "xx yy", "yxy", "zz", "x", "zyz")],
}


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooled_rows_are_the_means_capture_writes(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny(family, dtype)
    rows = read_rows(model, TEXTS)
    texts = [*TEXTS["x"], *TEXTS["y"]]
    sites = [EMBEDDING, *(Site(layer) for layer in range(LAYERS))]
    want = torch.from_numpy(capture_activations(model, texts, tmp_path / "a.safetensors", sites).values.copy())
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (3e-2, 3e-2)
    torch.testing.assert_close(rows.x, want[:, 1:], rtol=rtol, atol=atol)
    torch.testing.assert_close(rows.embedding, want[:, 0], rtol=rtol, atol=atol)
    assert rows.strings == tuple(texts) and rows.y.tolist() == [0] * 10 + [1] * 10
    assert rows.groups[:10].tolist() == rows.groups[10:].tolist() and len(rows.groups.unique()) == 10
    assert torch.equal(rows.types, rows.groups)
    torch.testing.assert_close(rows.residual_norm, capture_moments(model, texts).norm.float(), rtol=1e-2, atol=0)
    assert rows.provenance.weighting == "text" and [name for name, _ in rows.provenance.data] == ["x", "y"]


@pytest.mark.parametrize("family", CORE)
def test_token_rows_are_single_tokens_of_their_text(family: str) -> None:
    model = tiny(family)
    rows = read_rows(model, TEXTS, pooling="tokens", per_text=3, layers=(2, 0))
    assert rows.x.shape == (60, 2, D) and rows.layers == (2, 0)
    numbers = {int(g): i for i, g in enumerate(read_rows(model, TEXTS).groups[:10])}
    for k in (0, 7, 31, 59):
        text = TEXTS[rows.names[int(rows.y[k])]][numbers[int(rows.groups[k])]]
        alone = model.forward(model.encode([text]), read=[EMBEDDING, Site(0), Site(2)])
        ids = model.encode([text]).input_ids[0]
        near = [i for i in range(len(ids)) if (alone[Site(2)][0, i] - rows.x[k, 0]).norm() < 1e-3]
        assert len(near) == 1 and 1 < near[0] < len(ids) - 1  # behind BOS and the first, before the last
        assert int(ids[near[0]]) == int(rows.types[k])
        torch.testing.assert_close(alone[Site(0)][0, near[0]], rows.x[k, 1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone[EMBEDDING][0, near[0]], rows.embedding[k], rtol=1e-3, atol=1e-4)
        assert rows.strings[k].replace("␣", " ") in f" {text}"
    assert rows.provenance.weighting == "token"


def test_short_texts_keep_what_tokens_they_have() -> None:
    rows = read_rows(
        tiny("llama"), {"x": ["a", "bc", "abc", "abcdefgh"], "y": ["z", "z", "z", "z"]}, pooling="tokens", per_text=2
    )
    assert sorted(rows.strings[k] for k in range(len(rows.y)) if rows.y[k] == 0)[:4] == ["a", "b", "b", "c"]
    assert torch.bincount(rows.y).tolist() == [6, 4]


def _groups(texts: dict[str, list[str]], groups: dict[str, list[str]] | None = None) -> list[list[int]]:
    """For each class the group of each text, counted in order of appearance."""
    rows = read_rows(tiny("llama"), texts, groups=groups)
    seen: dict[int, int] = {}
    plain = [seen.setdefault(int(g), len(seen)) for g in rows.groups]
    left = iter(plain)
    return [[next(left) for _ in own] for own in texts.values()]


def test_texts_that_belong_together_share_a_group() -> None:
    assert _groups({"x": ["a", "b"], "y": ["c", "d"]}) == [[0, 1], [0, 1]]
    assert _groups({"x": ["a", "b", "e"], "y": ["c", "d"]}) == [[0, 1, 2], [3, 4]]
    assert _groups({"x": ["a", "b", "e"], "y": [" e", "d"]}) == [[0, 1, 2], [2, 3]]  # a text on both sides
    assert _groups({"x": ["a", "b", "a"], "y": ["c", "d", "e"]}) == [[0, 1, 0], [0, 1, 0]]  # repeated: its pairs join
    given = {"x": ["p", "q", "p"], "y": ["q", "r"]}
    assert _groups({"x": ["a", "b", "e"], "y": ["c", "d"]}, given) == [[0, 1, 0], [1, 2]]
    with pytest.raises(SteerlabError, match="one value for every text"):
        _groups({"x": ["a", "b"], "y": ["c"]}, {"x": ["p"], "y": ["q"]})


def planted(gap: float = 2.5) -> ProbeRows:
    """Rows of two classes told apart along the first axis at layer 2 only; nothing in the embeddings and strings."""
    source = torch.Generator().manual_seed(0)
    y, groups = torch.arange(160) % 2, torch.arange(160) // 2
    x = torch.randn(160, 3, 16, generator=source)
    x[y == 1, 2, 0] += gap
    strings = tuple("ab ba"[int(i) :] for i in torch.randint(3, (160,), generator=source))
    norm = x.norm(dim=-1).mean(0)
    some = read_rows(tiny("llama"), {"x": ["a"], "y": ["b"]}).provenance
    return ProbeRows(
        x, torch.randn(160, 16, generator=source), y, groups, groups, strings, ("worse", "<human>"), (0, 1, 2), norm,
        "mean", some,
    )  # fmt: skip


def test_a_curve_shows_the_planted_layer_and_its_baselines_at_chance() -> None:
    curve = probe_rows(planted(), "lda", resamples=100)
    table: Any = curve.table()
    assert table["layer"].tolist()[:3] == [0, 1, 2] and table["layer"].isna().tolist()[3:] == [True] * 3
    assert table["kind"].tolist()[3:] == [probes.EMBEDDINGS, probes.NGRAMS, probes.LENGTH]
    assert table["value"].idxmax() == 2 and table["low"][2] > 0.85 and table["selectivity_low"][2] > 0.2
    assert (table["value"].drop(2) - 0.5).abs().max() < 0.15
    assert table["selectivity"].isna().tolist() == [False] * 3 + [True] * 3
    vector = curve.vector("<human>")
    assert float(vector.at(2)[0]) > 0.9 and vector.name == "probe-<human>"
    assert float(curve.vector("worse").at(2)[0]) < -0.9
    assert "best at layer 2, ProbeResult(lda: AUROC 0." in repr(curve) and len(repr(curve)) < 200
    html = curve._repr_html_()
    assert "&lt;human&gt;" in html and "<human>" not in html and html.count("<tr>") == 7
    quick = probe_rows(planted(), "lda", resamples=100, control=False, baselines=())
    assert len(quick.table()) == 3 and quick.results[2].auroc == curve.results[2].auroc
    with pytest.raises(SteerlabError, match="'<x>' is not among"):
        curve.vector("<x>")
    with pytest.raises(SteerlabError, match="baseline 'bag' is not known"):
        probe_rows(planted(), baselines=("bag",))
    with pytest.raises(SteerlabError, match="layer 5 was not read"):
        planted().at(5)
    assert torch.equal(planted().at(2).x, planted().x[:, 2])


@pytest.mark.parametrize("family", CORE)
def test_a_probe_direction_steers_at_once(family: str) -> None:
    model = tiny(family)
    curve = probe_texts(
        model, TEXTS, "diff_of_means", layers=(1, 2), folds=2, shuffles=0, resamples=20, control=False, baselines=()
    )
    vector = curve.vector("y")
    vector.check(model.name, model.revision, model.d_model, model.n_layers)
    batch = model.encode(["ab", "some longer text"])
    plain = model.forward(batch, read=[Site(1)])[Site(1)]
    plan = model.compile(Plan.uniform((Intervention(vector, 1, strength=0.5, unit="residual"),), 2))
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    moved = model.forward(batch, read=[Site(1)], edit={Site(1): lambda h: plan.edit(Site(1), h, context)})[Site(1)]
    want = 0.5 * float(curve.residual_norm[0]) * vector.at(1)
    real = batch.real
    torch.testing.assert_close((moved - plain)[real], want.expand(int(real.sum()), -1), rtol=1e-3, atol=1e-4)
    means = [read_rows(model, TEXTS, layers=(1,)).x[rows, 0].mean(0) for rows in (slice(10, 20), slice(0, 10))]
    torch.testing.assert_close(vector.raw(1), means[0] - means[1], rtol=1e-3, atol=1e-5)


def test_bad_input_is_refused_before_the_model_runs() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="1 classes were given"):
        read_rows(model, {"x": ["a"]})
    with pytest.raises(SteerlabError, match="'y' has no texts"):
        read_rows(model, {"x": ["a"], "y": []})
    with pytest.raises(SteerlabError, match="'y' has a blank text"):
        read_rows(model, {"x": ["a"], "y": ["b", " "]})
    with pytest.raises(SteerlabError, match="per_text is 0"):
        read_rows(model, TEXTS, per_text=0)
    with pytest.raises(SteerlabError, match="layer"):
        read_rows(model, TEXTS, layers=(99,))
    with pytest.raises(SteerlabError, match="5 folds need at least 5"):
        probe_texts(model, {"x": ["a", "b"], "y": ["c", "d"]})

"""The layer predictor finds the layer where something was planted, writes nothing, and counts its cost."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from steerlab import layer_choice, lens
from steerlab.bridge import Readout, readout
from steerlab.errors import SteerlabError
from steerlab.layer_choice import (
    PREDICTORS,
    SCORES,
    Cost,
    Scoring,
    TextReading,
    lens_score,
    probe_score,
    read_streams,
    reliability_score,
    score_layers,
    sweep_cost,
)
from steerlab.pieces import count_tokens, typical_tokens
from steerlab.reliability import TextMeans
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.tiny import LAYERS, VOCAB, D, tiny, vector

TEXTS = {
    "x": ["ab cab", "bca abc ab", "a ba c", "cc ab", "abba", "b"],
    "y": ["zx yz", "yy zy", "xyz yx z zz", "z yx", "y", "zz y"],
}
N = 30


@cache
def out() -> Readout:
    return readout(tiny("llama"))


def planted(layer: int) -> TextReading:
    """Two languages, 30 texts of 4 tokens each, told apart along one direction at `layer` only."""
    source = torch.Generator().manual_seed(3)
    language = torch.arange(2).repeat_interleave(4 * N)
    text = torch.arange(N).repeat_interleave(4).repeat(2)
    streams = torch.randn(8 * N, LAYERS, D, generator=source)
    streams[language == 1, layer, 0] += 2.0
    mean = streams.reshape(2, N, 4, LAYERS, D).mean(2).numpy()
    sites = tuple(Site(k) for k in range(LAYERS))
    means = {code: TextMeans(sites, own, np.full(N, 4.0)) for code, own in zip("xy", mean, strict=True)}
    return TextReading(streams, language, text, means, Cost(0, 0))


def test_probe_and_reliability_find_the_planted_layer_and_chance_elsewhere() -> None:
    for layer in (0, 2):
        reading = planted(layer)
        auroc, steady = probe_score(reading, 1), reliability_score(reading, repeats=5)
        others = [k for k in range(LAYERS) if k != layer]
        assert auroc.argmax() == layer and auroc[layer] > 0.8 and np.abs(auroc[others] - 0.5).max() < 0.1
        assert steady.shape == (2, LAYERS) and (steady.argmax(1) == layer).all()
        assert steady[0, layer] > 0.8 and steady[:, others].max() < 0.6


def test_the_lens_score_finds_the_layer_whose_direction_promotes_the_targets() -> None:
    targets = torch.zeros(VOCAB, dtype=torch.bool)
    targets[50:60] = True
    raw = vector(1).direction.clone()
    raw[2] = (out().unembedding[targets].mean(0) - out().unembedding.mean(0)) * out().gain
    v = SteeringVector.from_raw("planted", raw, tuple(range(LAYERS)), residual_norm=torch.full((LAYERS,), 4.0))
    streams = torch.randn(5, LAYERS, D, generator=torch.Generator().manual_seed(0))
    score = lens_score(out(), streams, v, targets, 0.5)
    assert score.argmax() == 2 and score[2] > 0.3
    assert lens_score(out(), streams, -v, targets, 0.5)[2] < -0.1
    assert (lens_score(out(), streams, v, targets, 0.0) == 0).all()


def test_every_text_is_read_once_and_as_it_is_alone() -> None:
    model = tiny("gpt2")
    reading = read_streams(model, TEXTS, per_text=3)
    sites = [Site(k) for k in range(LAYERS)]
    for row, (code, own) in enumerate(TEXTS.items()):
        for i, text in enumerate(own):
            seen = model.forward(model.encode([text]), read=sites)
            alone = torch.stack([seen[site][0, 1:] for site in sites], 1)  # without BOS
            mine = reading.streams[(reading.language == row) & (reading.text == i)]
            assert len(mine) == min(3, len(alone))
            assert torch.allclose(mine[0], alone[0], atol=1e-4) and torch.allclose(mine[-1], alone[-1], atol=1e-4)
            assert np.allclose(reading.means[code].mean[i], alone.mean(0), atol=1e-4)
            assert reading.means[code].tokens[i] == len(alone)


def test_scores_come_without_writing_and_cost_what_went_through_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny("llama"), [0, 0]
    plain = type(model).forward

    def counted(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        seen[0] += len(batch)
        seen[1] += int(batch.real.sum())
        return plain(self, batch, *args, **kwargs)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a text was written")

    monkeypatch.setattr(type(model), "forward", counted)
    monkeypatch.setattr(type(model), "decode", never)
    vectors, prompts = {"x": vector(1), "y": vector(2)}, ["Write.", "Say something."]
    table, cost = score_layers(model, out(), vectors, TEXTS, prompts, Scoring(per_text=4, least=1.0))
    assert cost == Cost(*seen) and cost.passes == 12 + 2 * (2 * LAYERS + 2)
    assert list(table.columns) == ["arm", "layer", *PREDICTORS] and len(table) == 2 * LAYERS
    assert not table.isna().any(axis=None)
    own = table[table["arm"] == "y"].set_index("layer")
    told = lens.kl_effect(model, out(), {"y": vector(2)}, prompts, range(LAYERS), [0.5])["value"]
    assert np.allclose(own["kl"], told, atol=1e-6)
    typical = typical_tokens(count_tokens(model, TEXTS), 1.0)
    gains = lens.effects(model, out(), vector(2), prompts, 0.5, targets=typical[1]).query("measure == 'total'")["value"]
    assert typical[1].any() and np.allclose(own["gain"], gains, atol=1e-5)
    assert np.allclose(own["combined"], own[list(SCORES)].rank().mean(axis=1))
    assert list(own["depth"]) == [0, -1, -2, -3]
    again, _ = score_layers(
        model, out(), {"y": vector(2), "x": vector(1)}, TEXTS, prompts, Scoring(per_text=4, least=1.0)
    )
    both = [t.set_index(["arm", "layer"]).sort_index()[["lens", "kl", "probe"]] for t in (table, again)]
    assert np.allclose(both[0], both[1], atol=1e-5)


def test_what_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(SteerlabError, match="give both for the same languages"):
        score_layers(tiny("llama"), out(), {"x": vector(1)}, TEXTS, ["a"])
    with pytest.raises(SteerlabError, match="vectors with all 4 layers"):
        score_layers(tiny("llama"), out(), {c: vector(1).select([0, 1]) for c in TEXTS}, TEXTS, ["a"])


def test_writing_costs_a_pass_per_token_and_reads_the_prompt_once() -> None:
    assert sweep_cost(10, 20.0, 5.0) == Cost(50, 10 * (20 + 4))
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)
    assert layer_choice.PREDICTORS[-1] == "depth"

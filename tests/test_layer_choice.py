"""The layer predictor finds the layer where something was planted, is compared with a sweep without flattery, and counts its cost."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from steerlab import layer_choice
from steerlab.bridge import Readout, readout
from steerlab.errors import SteerlabError
from steerlab.layer_choice import (
    PREDICTORS,
    SCORES,
    Cost,
    Scoring,
    TextReading,
    agreement,
    lens_score,
    measured_layers,
    noise_ceiling,
    probe_score,
    read_streams,
    reliability_score,
    score_layers,
    sweep_cost,
)
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
    assert np.allclose(own["combined"], own[list(SCORES)].rank().mean(axis=1))
    assert list(own["depth"]) == [0, -1, -2, -3]
    again, _ = score_layers(
        model, out(), {"y": vector(2), "x": vector(1)}, TEXTS, prompts, Scoring(per_text=4, least=1.0)
    )
    both = [t.set_index(["arm", "layer"]).sort_index()[["lens", "kl", "probe"]] for t in (table, again)]
    assert np.allclose(both[0], both[1], atol=1e-5)


def test_a_sweep_becomes_one_number_per_layer() -> None:
    rows = [("x", layer, s, 0.1 * layer + s / 10) for layer in (0, 1) for s in (0.5, 1.0)]
    sweep = pd.DataFrame(rows, columns=["arm", "layer", "strength", "value"])
    found = measured_layers(sweep)
    assert found["mean"].tolist() == pytest.approx([0.075, 0.175]) and found["best"].tolist() == pytest.approx(
        [0.1, 0.2]
    )
    with pytest.raises(SteerlabError, match="measured at different strengths"):
        measured_layers(sweep.iloc[:3])


def test_a_sweep_of_many_texts_repeats_itself_and_one_of_few_does_not() -> None:
    rng = np.random.default_rng(5)
    place = [(f"l{k}", layer, s) for k in range(4) for layer in range(6) for s in (0.5, 1.0)]
    sweep = pd.DataFrame(place, columns=["arm", "layer", "strength"]).assign(value=rng.uniform(0.2, 0.8, 48))
    ceilings = [noise_ceiling(sweep.sample(frac=1, random_state=0).assign(n=n)) for n in (4, 40, 4000)]
    assert 0.2 < ceilings[0] < ceilings[1] < ceilings[2] and ceilings[2] > 0.97
    flat = sweep.assign(value=0.5 + 1e-6 * rng.random(48), n=40)
    assert abs(noise_ceiling(flat, draws=1000)) < 0.1


def tables(told: np.ndarray, truth: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    place = [(f"l{k:02}", layer) for k in range(told.shape[0]) for layer in range(told.shape[1])]
    scores = pd.DataFrame(place, columns=["arm", "layer"]).assign(score=told.ravel())
    measured = pd.DataFrame(place, columns=["arm", "layer"]).assign(mean=truth.ravel())
    return scores, measured


def test_the_right_order_agrees_fully_the_reverse_not_at_all() -> None:
    truth = np.random.default_rng(0).random((8, 5))
    scores, measured = tables(truth**3, truth)
    right, wrong = (
        agreement(scores, measured, "score"),
        agreement(scores.assign(score=-scores["score"]), measured, "score"),
    )
    assert right.correlation.value == pytest.approx(1) and wrong.correlation.value == pytest.approx(-1)
    assert right.p == pytest.approx(1 / 120) and wrong.p == pytest.approx(1)
    assert right.lost.value == 0 < right.lost_at_random < wrong.lost.value
    assert wrong.lost.value == pytest.approx((truth.max(1) - truth.min(1)).mean())
    assert right.lost_at_random == pytest.approx((truth.max(1, keepdims=True) - truth).mean())
    shuffled = agreement(scores, measured.sample(frac=1, random_state=0), "score")
    assert shuffled.correlation.value == pytest.approx(1)


def test_languages_with_one_profile_are_not_counted_as_independent() -> None:
    """Twelve copies of a language are as good as one: chance stays where one language has it."""
    rng = np.random.default_rng(1)
    told, truth = rng.random(6), rng.random(6)
    one = agreement(*tables(told[None], truth[None]), "score")
    many = agreement(*tables(np.tile(told, (12, 1)), np.tile(truth, (12, 1))), "score")
    assert many.chance == pytest.approx(one.chance) and many.p == pytest.approx(one.p) and one.chance > 0.6
    free = agreement(*tables(rng.random((12, 6)), rng.random((12, 6))), "score")
    assert free.chance < 0.5


def test_random_scores_reach_p_below_5_percent_in_about_5_percent_of_cases() -> None:
    rng = np.random.default_rng(2)
    hits = [agreement(*tables(rng.random((3, 5)), rng.random((3, 5))), "score").p <= 0.05 for _ in range(150)]
    assert 0.005 < np.mean(hits) < 0.11


def test_a_flat_language_has_no_correlation_and_is_said_to_be_left_out() -> None:
    truth = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [2.0, 3.0, 9.0]])
    scores, measured = tables(np.tile([1.0, 2.0, 3.0], (3, 1)), truth)
    found = agreement(scores, measured, "score")
    assert math.isnan(found.each["l01"]) and found.correlation.n == 2 and "1 of 3 values" in found.correlation.reason
    assert found.correlation.value == pytest.approx(1) and found.lost.n == 3
    flat = agreement(*tables(np.ones((2, 3)), truth[:2]), "score")
    assert math.isnan(flat.correlation.value) and math.isnan(flat.p) and math.isnan(flat.chance)


def test_many_layers_are_permuted_at_random() -> None:
    told = np.random.default_rng(3).random((2, 12))
    assert agreement(*tables(told, told), "score").p == pytest.approx(1 / 10_001, rel=0.01)


def test_tables_that_do_not_match_are_refused() -> None:
    scores, measured = tables(np.random.default_rng(4).random((3, 4)), np.ones((3, 4)))
    for other in (measured[measured["arm"] != "l00"], measured[measured["layer"] != 2]):
        with pytest.raises(SteerlabError, match="both must cover the same languages and layers"):
            agreement(scores, other, "score")
    with pytest.raises(SteerlabError, match="give both for the same languages"):
        score_layers(tiny("llama"), out(), {"x": vector(1)}, TEXTS, ["a"])
    with pytest.raises(SteerlabError, match="vectors with all 4 layers"):
        score_layers(tiny("llama"), out(), {c: vector(1).select([0, 1]) for c in TEXTS}, TEXTS, ["a"])


def test_writing_costs_a_pass_per_token_and_reads_the_prompt_once() -> None:
    assert sweep_cost(10, 20.0, 5.0) == Cost(50, 10 * (20 + 4))
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)
    assert layer_choice.PREDICTORS[-1] == "depth"

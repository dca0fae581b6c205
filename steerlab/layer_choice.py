"""Which layer to steer at, told without writing a text: scores per layer from forward passes alone.

The scores of a vector at a layer, higher meaning "steer here": *lens*, what adding it does there to the log-probability
of the language's tokens, by the logit lens; *probe*, how well the language is told from the others on single tokens;
*reliability*, the cosine of vectors fitted on two halves of texts; *kl*, how far it moves the next-token distribution
behind the prompts. *combined* is the mean of their ranks over layers. Beside them *gain*, what adding the vector does to
the log-probability of the language's tokens when the later blocks run, and *depth*, the rule "the earlier the better".
How well a score ranks a measured sweep: `evaluation.ranking`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from steerlab import lens, probes
from steerlab.bridge import Readout
from steerlab.capture import all_layers, passes, select
from steerlab.errors import SteerlabError
from steerlab.halving import Halving
from steerlab.model import TracedModel
from steerlab.pieces import count_tokens, typical_tokens
from steerlab.reliability import TextMeans, language_halves, split_half
from steerlab.steering import Intervention
from steerlab.types import ALL, Site
from steerlab.vectors import SteeringVector

SCORES = ("lens", "probe", "reliability", "kl")
PREDICTORS = (*SCORES, "combined", "gain", "depth")


@dataclass(frozen=True)
class Cost:
    """Rows of text put through the model, counted once per forward pass, and the tokens in them."""

    passes: int
    tokens: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.passes + other.passes, self.tokens + other.tokens)


@dataclass(frozen=True, eq=False)
class TextReading:
    """One reading of every text: the streams "n l d" of some of its tokens, the row of their language and the number of
    their text in it, and their ids; by language the mean of every text; and the mean norm "l" of all tokens.
    """

    streams: Float[Tensor, "n l d"]
    language: Int[Tensor, "n"]
    text: Int[Tensor, "n"]
    means: dict[str, TextMeans]
    cost: Cost
    ids: Int[Tensor, "n"] | None = None
    norm: Float[Tensor, "l"] | None = None


def read_streams(
    model: TracedModel, texts: Mapping[str, Sequence[str]], per_text: int = 8, sites: Sequence[Site] | None = None
) -> TextReading:
    """The sites (`resid_post` of every block unless given) at `per_text` tokens of each text, evenly spread over it (all
    where it has fewer), and the means over all its tokens, in one pass. BOS is left out.

    Raises `SteerlabError` for an activation that is NaN or infinite, naming layer and text.
    """
    flat = [(row, i, text) for row, own in enumerate(texts.values()) for i, text in enumerate(own)]
    picked = select(model, [text for *_, text in flat], ALL, False, True, model.context_length)
    sites = all_layers(model) if sites is None else tuple(sites)
    mean, size = np.zeros((len(flat), len(sites), model.d_model), dtype=np.float32), np.zeros(len(flat))
    streams, where, ids, norm = [], [], [], torch.zeros(len(sites), dtype=torch.float64)

    def read(members: list[int]) -> None:
        batch, mask = picked.batch(members, model.pad_id)
        batch = batch.to(model.device)
        real, norms = mask.cpu(), torch.zeros_like(norm)
        spots = [_spread(own, per_text) for own in real]
        row = torch.cat([torch.full_like(own, r) for r, own in enumerate(spots)])
        column, part = torch.cat(spots), torch.zeros(len(row), len(sites), model.d_model)
        count = real.sum(1)

        def keep(site: Site, h: Tensor) -> None:
            h = h.float().cpu()
            bad = (real & ~h.isfinite().all(-1)).any(1)
            if bool(bad.any()):
                text = flat[members[int(bad.int().argmax())]][2]
                raise SteerlabError(
                    f"an activation at {site.stream} of layer {site.layer} is NaN or infinite for the text {text[:60]!r}: run the model "
                    "in float32 or bfloat16."
                )
            part[:, sites.index(site)] = h[row, column]
            norms[sites.index(site)] = h.norm(dim=-1)[real].sum()
            total = torch.where(real[..., None], h, 0.0).sum(1)
            mean[members, sites.index(site)] = (total / count.clamp(min=1)[:, None]).numpy()

        model.forward(batch, read=sites, visit=keep)
        size[members] = count.numpy()
        norm.add_(norms)
        streams.append(part)
        ids.append(batch.input_ids.cpu()[row, column])
        where.extend(flat[members[r]][:2] for r in row.tolist())

    memory = Halving("texts")
    for members, *_ in passes(model, picked, 4096, False, "texts"):
        memory.run(members, read)
    whole, starts = TextMeans(sites, mean, size), np.cumsum([0, *(len(own) for own in texts.values())])
    spans = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
    means = {code: whole.rows(span) for code, span in zip(texts, spans, strict=True)}
    cost, place = Cost(len(flat), sum(len(own) for own in picked.rows)), torch.tensor(where)
    size_all = max(float(size.sum()), 1.0)
    return TextReading(torch.cat(streams), place[:, 0], place[:, 1], means, cost, torch.cat(ids), norm / size_all)


def _spread(mask: Bool[Tensor, "s"], most: int) -> Int[Tensor, "m"]:
    own = mask.nonzero()[:, 0]
    return own[torch.linspace(0, len(own) - 1, min(most, len(own))).round().long()]


def lens_score(
    readout: Readout,
    streams: Float[Tensor, "n l d"],
    vector: SteeringVector,
    targets: Bool[Tensor, "v"],
    fraction: float,
) -> Float[np.ndarray, "k"]:
    """Per layer of the vector, how much the log-probability of the targets rises, by the logit lens at that layer, when
    `fraction` of the residual norm is added; the mean over the rows of `streams`.
    """
    push = Intervention(vector, vector.layers, strength=fraction, unit="residual")
    gains = []
    for layer in vector.layers:
        delta = push.numbers(layer)[0] * vector.at(layer)
        change = lens.lens_change(readout, streams[:, layer], delta, lambda logits: lens.log_mass(logits, targets))
        gains.append(float(change.mean()))
    return np.array(gains)


def probe_score(
    reading: TextReading, row: int, kind: probes.Kind = "diff_of_means", seed: int = 0
) -> Float[np.ndarray, "l"]:
    """Per layer the AUROC of telling single tokens of language `row` from all others, on held-out texts.

    Single tokens, because whole texts are told apart perfectly at every layer, which ranks nothing. Text i of every
    language falls into one fold, so that translations never lie on both sides.
    """
    y = (reading.language == row).long()
    found = probes.layerwise(reading.streams, y, reading.text, kind, seed=seed, shuffles=0, resamples=1)
    return np.array([one.value for one in found])


def reliability_score(reading: TextReading, repeats: int = 20, seed: int = 0) -> Float[np.ndarray, "k l"]:
    """Per language and layer the split-half reliability (`reliability.split_half`) of its vector fitted on these texts,
    the mean over random halves; a sentence goes to one half in all languages where they have equally many.
    """
    parallel = len({len(own.tokens) for own in reading.means.values()}) == 1
    halves = [language_halves({"texts": reading.means}, seed + repeat, parallel) for repeat in range(repeats)]
    return np.stack([split_half([(a[code], b[code]) for a, b in halves]).numpy() for code in reading.means])


@dataclass(frozen=True)
class Scoring:
    """What decides the scores: the length of the push (fraction of the residual norm), probed tokens per text, the least z
    of a typical token (`pieces.typical_tokens`), and the probe.
    """

    fraction: float = 0.5
    per_text: int = 8
    least: float = 3.0
    probe: probes.Kind = "diff_of_means"
    seed: int = 0


def score_layers(
    model: TracedModel,
    readout: Readout,
    vectors: Mapping[str, SteeringVector],
    texts: Mapping[str, Sequence[str]],
    prompts: Sequence[str],
    how: Scoring | None = None,
) -> tuple[pd.DataFrame, Cost]:
    """One row per language and layer with the columns of `PREDICTORS`, and what they cost. No text is written.

    `vectors` and `texts` by language; text i is the same content in every language where they are parallel. `prompts`
    name no language, and are rendered as the model's instructions. Raises `SteerlabError` where the languages differ,
    or a vector does not have every layer.
    """
    how = how or Scoring()
    codes, layers = list(vectors), tuple(range(model.n_layers))
    if set(codes) != set(texts) or any(v.layers != layers for v in vectors.values()):
        raise SteerlabError(
            f"vectors of {', '.join(codes)} and texts of {', '.join(texts)} were given: "
            f"give both for the same languages, and vectors with all {model.n_layers} layers."
        )
    ordered = {code: texts[code] for code in codes}
    reading = read_streams(model, ordered, how.per_text)
    typical = typical_tokens(count_tokens(model, ordered), how.least)
    streams = lens.prompt_streams(model, prompts, [Site(layer) for layer in layers])
    pushes = [Intervention(v, n, strength=how.fraction, unit="residual") for v in vectors.values() for n in layers]
    plain, *steered = lens.final_streams(model, prompts, [(), *((push,) for push in pushes)])
    steady = reliability_score(reading, seed=how.seed)
    rows = []
    for row, code in enumerate(codes):
        own = steered[row * len(layers) : (row + 1) * len(layers)]
        base, *masses = (lens.log_mass(readout.logits(h), typical[row]) for h in (plain, *own))
        by = {
            "lens": lens_score(readout, streams, vectors[code], typical[row], how.fraction),
            "probe": probe_score(reading, row, how.probe, how.seed),
            "reliability": steady[row],
            "kl": [lens.kl(readout, plain, h).mean() for h in own],
            "gain": [float((mass - base).mean()) for mass in masses],
            "depth": 0.0 - np.arange(len(layers)),
        }
        by["combined"] = np.mean([stats.rankdata(by[name]) for name in SCORES], axis=0)
        rows += [{"arm": code, "layer": n, **{name: float(by[name][n]) for name in PREDICTORS}} for n in layers]
    length = sum(len(row) for row in model.token_rows(prompts, chat=True))
    times = len(pushes) + 2  # the prompts once for the lens, once unsteered, and once per vector and layer
    return pd.DataFrame(rows), reading.cost + Cost(len(prompts) * times, length * times)


def sweep_cost(texts: int, prompt_tokens: float, new_tokens: float) -> Cost:
    """What writing `texts` texts of `new_tokens` tokens behind prompts of `prompt_tokens` costs: one pass per new token,
    the first of which reads the prompt.
    """
    return Cost(round(texts * new_tokens), round(texts * (prompt_tokens + new_tokens - 1)))

"""A set of synthetic texts beside real ones: every measure with an interval, and what each of them is in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.data.leakage import normalise
from steerlab.errors import SteerlabError
from steerlab.evaluation.adversary import adversary, halves
from steerlab.evaluation.closeness import centroid_cosine, neighbourhoods, pairwise_cosine
from steerlab.evaluation.copying import copy_report
from steerlab.evaluation.diversity import NEAR, _pairs, _repeats
from steerlab.evaluation.embeddings import Embedder, embedder
from steerlab.evaluation.fluency import log_likelihood
from steerlab.evaluation.mauve import Backend, mauve
from steerlab.evaluation.ngrams import Tokenise, ngram_report
from steerlab.evaluation.repetition import repetition_report
from steerlab.evaluation.stats import Estimate, bootstrap, jackknife, wilson
from steerlab.evaluation.words import as_texts, words
from steerlab.model import TracedModel

COLUMNS = ("metric", "value", "low", "high", "n", "reason")
STEER = "O'Neill et al. 2023"
AUROC = (
    "cross-validated AUROC of {} on {}, real against synthetic: 0.5 is indistinguishable, 1 given away (" + STEER + ")"
)
# What every measure is. `real_` before a name is the same of real text: halves of it, or as much of it.
DEFINITIONS: Mapping[str, str] = {
    "texts": "how many texts are measured",
    "empty": "share of answers without a letter or digit, which are left out of everything else",
    "words_per_text": "mean number of words of a text",
    "ngrams_3": f"different trigrams of the joined set divided by all of them ({STEER}: normalised n-grams)",
    "ngrams_3_ratio": f"`ngrams_3` divided by that of real text cut to as many characters ({STEER})",
    "diversity_2_4": f"product over n = 2, 3, 4 of the share of different n-grams in the joined set ({STEER}, after Su et al. 2022)",
    "diversity_2_4_ratio": f"`diversity_2_4` divided by that of real text cut to as many characters ({STEER})",
    "duplicates": "share of texts that stood in the set before, to the letter",
    "near_duplicates": f"share of texts whose character 5-grams overlap (Jaccard) with an earlier text's by {NEAR} or more",
    "copied_exactly": "share of texts equal to a training text but for case, punctuation and spacing",
    "copied_nearly": "share of texts equal to a training text, or sharing thirteen words in a row or 0.6 of its character 8-grams",
    "cosine_pairwise": f"mean cosine over all pairs of a synthetic and a real embedding ({STEER}, flag centroid=True)",
    "cosine_centroid": f"cosine of the mean synthetic and the mean real embedding ({STEER}, flag centroid=False)",
    "mauve": "area under the divergence frontier of clustered embeddings, 1 is the same distribution (Pillutla et al. 2021)",
    "mauve_smoothed": "MAUVE with half a text added to every cluster, for small samples (Pillutla et al. 2023)",
    "knn_precision": "share of synthetic texts inside the neighbourhood of a real one (Kynkäänniemi et al. 2019)",
    "knn_recall": "share of real texts inside the neighbourhood of a synthetic one (Kynkäänniemi et al. 2019)",
    "surprise_expert": "mean negative log-likelihood per token (nats) under the model that wrote, its log-perplexity",
    "surprise_base": "mean negative log-likelihood per token (nats) under the base model",
    "tokens_per_text": "mean number of tokens an answer took, what was cut off or tidied away included",
    "downstream_macro_f1": "macro-F1 on real test texts of a classifier that learnt the labels from the texts, for tasks with labels",
    "repetition_4": "mean share of a text's own 4-grams that stood in it before",
    "looping": "share of texts that are at least half one phrase over and over",
    **{
        f"auroc_{name}_{feature}": AUROC.format(full, what)
        for name, full in (
            ("logistic", "logistic regression"),
            ("boosting", "gradient boosting"),
            ("nearest", "10 nearest"),
        )
        for feature, what in (("letters", "character n-grams"), ("meaning", "embeddings"))
    },
}


class Behind(NamedTuple):
    """The prompt every text stands behind, and whether that goes through the model's template."""

    prompts: list[str] | None
    chat: bool


def definition(metric: str) -> str:
    """What a measure of the report is, in one sentence with its source. Raises `SteerlabError` for an unknown one."""
    plain = metric.removeprefix("real_")
    if plain not in DEFINITIONS:
        raise SteerlabError(f"metric {metric!r} is not known: give one of {', '.join(DEFINITIONS)}.")
    return ("Of real text: " if plain != metric else "") + DEFINITIONS[plain]


def distinguish(
    synthetic: Sequence[str],
    real: Sequence[str],
    *,
    train: Sequence[str] = (),
    embed: Embedder | str | None = None,
    model: TracedModel | None = None,
    base: TracedModel | None = None,
    prompts: Sequence[str] | None = None,
    chat: bool = True,
    tokenise: Tokenise = words,
    mauve_backend: Backend = "own",
    size: int | None = None,
    seed: int = 0,
    subsets: int = 100,
    controls: bool = True,
) -> pd.DataFrame:
    """Every measure of `DEFINITIONS` as one row: metric, value, low, high, n, reason.

    `train`: what the expert was trained on, for copy rates. `embed`: an `Embedder` or the name of one (default: the base's or
    model's pooled stream, else character n-grams). `model`, `base`: expert and base for the surprise at each text, behind
    its prompt where `prompts` are given (as it is, with chat=False); without a base the model with its adapter off.
    `controls`: also what real text gives, as `real_...` (n-grams always do: their real counterpart depends on the texts).
    Both sides are cut to the size of the smaller one, or to `size`
    where that is less. Raises `SteerlabError` for no real text.
    """
    synthetic, real = as_texts(synthetic), as_texts(real)
    asked = None if prompts is None else as_texts(prompts)
    if asked is not None and len(asked) != len(synthetic):
        raise SteerlabError(
            f"{len(synthetic)} texts and {len(asked)} prompts were given: give the prompt of every text."
        )
    there = [i for i, text in enumerate(synthetic) if normalise(text)]
    people = [text for text in real if normalise(text)]
    if not people:
        raise SteerlabError("no real text was given: there is nothing to compare the synthetic texts with.")
    rng = np.random.default_rng(seed)
    size = min(len(there), len(people), *([] if size is None else [size]))
    kept: list[int] = [there[i] for i in np.sort(rng.permutation(len(there))[:size]).tolist()]
    texts = [synthetic[i] for i in kept]
    beside = [people[i] for i in np.sort(rng.permutation(len(people))[:size]).tolist()]
    found = {
        "texts": Estimate.point(float(size), size, "a count"),
        "empty": wilson(len(synthetic) - len(there), len(synthetic)),
    }
    found |= _surface(texts, beside, tokenise, seed, subsets, controls)
    found |= copy_report(texts, train)
    if controls:
        found |= {f"real_{name}": e for name, e in copy_report(beside, train).items()}
    behind = Behind(None if asked is None else [asked[i] for i in kept], chat)
    found |= _models(texts, beside, behind, model, base, seed, controls)
    # n-grams fitted on one side would know its texts by heart
    embedding = embed if isinstance(embed, Embedder) else embedder(embed, base or model, [*texts, *beside])
    found |= _embedded(texts, beside, embedding, mauve_backend, seed, subsets, controls)
    return table(found)


def table(estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """The estimates as rows of metric, value, low, high, n and reason."""
    rows = [{"metric": name, **asdict(estimate)} for name, estimate in estimates.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": float, "low": float, "high": float, "n": int})


def _surface(
    texts: Sequence[str], real: Sequence[str], tokenise: Tokenise, seed: int, subsets: int, controls: bool
) -> dict[str, Estimate]:
    """Lengths, n-grams, duplicates and repetition."""
    found: dict[str, Estimate] = {}
    for prefix, own in (("", texts), ("real_", real)) if controls else (("", texts),):
        found[f"{prefix}words_per_text"] = bootstrap(np.array([len(words(t)) for t in own], dtype=float), seed=seed)
        for name, near in (("duplicates", None), ("near_duplicates", NEAR)):
            found[prefix + name] = _duplicates(own, near, seed, subsets)
        within = repetition_report(own, seed)
        found |= {prefix + name: within[name] for name in ("repetition_4", "looping")}
    counted = ngram_report(texts, real, tokenise, seed, subsets)
    return found | counted


def _duplicates(texts: Sequence[str], near: float | None, seed: int, subsets: int) -> Estimate:
    pairs = _pairs(texts, near)
    found = jackknife(len(texts), lambda rows: _repeats(pairs, rows), seed, subsets=subsets, bounds=(0.0, 1.0))
    return wilson(0, len(texts)) if found.value == 0 else found


def _models(
    texts: Sequence[str],
    real: Sequence[str],
    behind: Behind,
    model: TracedModel | None,
    base: TracedModel | None,
    seed: int,
    controls: bool,
) -> dict[str, Estimate]:
    """Surprise of expert and base at the texts, behind their prompts, and at the real ones behind the same prompts."""
    found: dict[str, Estimate] = {}
    readers: dict[str, Callable[[Sequence[str]], Float[np.ndarray, " n"]]] = {}
    if model is not None:
        readers["surprise_expert"] = lambda own: _surprise(model, own, behind)
    if base is not None:
        readers["surprise_base"] = lambda own: _surprise(base, own, behind)
    elif model is not None and model.adapter is not None:
        readers["surprise_base"] = lambda own: _surprise_off(model, own, behind)
    for name, reader in readers.items():
        found[name] = bootstrap(reader(texts), seed=seed)
        if controls:
            found[f"real_{name}"] = bootstrap(reader(real), seed=seed)
    return found


def _surprise(model: TracedModel, texts: Sequence[str], behind: Behind) -> Float[np.ndarray, " n"]:
    total, count = log_likelihood(model, texts, behind.prompts, chat=behind.chat)
    return -total / np.where(count > 0, count, math.nan)


def _surprise_off(model: TracedModel, texts: Sequence[str], behind: Behind) -> Float[np.ndarray, " n"]:
    assert model.adapter is not None
    with model.adapter.off():
        return _surprise(model, texts, behind)


def _embedded(
    texts: Sequence[str],
    real: Sequence[str],
    embed: Embedder,
    backend: Backend,
    seed: int,
    subsets: int,
    controls: bool,
) -> dict[str, Estimate]:
    """What is measured on embeddings, and the adversaries; real text is compared with real text by halves."""
    if not texts:
        return {"mauve": Estimate.missing("no text is left")}
    rows, people = embed(texts), embed(real)
    half = np.random.default_rng([seed, 2]).permutation(len(people))
    a, b = people[half[: len(half) // 2]], people[half[len(half) // 2 :]]
    found: dict[str, Estimate] = {}
    for prefix, own, other in (("", rows, people), ("real_", a, b)) if controls else (("", rows, people),):
        found[f"{prefix}cosine_pairwise"] = pairwise_cosine(own, other, seed, subsets)
        found[f"{prefix}cosine_centroid"] = centroid_cosine(own, other, seed, subsets)
        found[f"{prefix}mauve"] = mauve(own, other, seed=seed, subsets=subsets, backend=backend)
        found[f"{prefix}mauve_smoothed"] = mauve(own, other, seed=seed, subsets=subsets, smoothing=0.5)
        found |= {prefix + name: e for name, e in neighbourhoods(own, other).items()}
    found |= adversary(texts, real, (rows, people), seed=seed)
    return found | (halves(real, people, seed=seed) if controls else {})

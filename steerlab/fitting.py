"""From texts to vectors on one traced model: capture, estimate, and say where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steerlab.alignment import align_corpora
from steerlab.capture import Weighting, capture_moments, provenance
from steerlab.data.contrast import ContrastPairs, length_matched
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.estimators import difference_of_means, language_vectors, quality_vector
from steerlab.model import TracedModel
from steerlab.moments import Moments
from steerlab.types import ALL, Positions, Site
from steerlab.vectors import SteeringVector


def fit_language_vectors(
    model: TracedModel,
    texts: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    sites: Sequence[Site] | None = None,
    positions: Positions | str = ALL,
    weighting: Weighting = "token",
    token_budget: int = 4096,
    progress: bool = False,
) -> dict[str, SteeringVector]:
    """Language vectors from `texts[corpus][language]`: each language's mean minus the mean of the others'
    means, per layer.

    With several corpora the differences between them are taken out through the languages they share, so that a
    language vector is not a topic vector (`align_corpora`).

    Raises `SteerlabError` for fewer than two languages, a corpus that shares no language with the rest, and as
    `capture_moments` does.
    """
    means: dict[str, dict[str, Moments]] = {}
    for corpus, languages in texts.items():
        means[corpus] = {
            language: capture_moments(
                model, list(own), sites, positions=positions, weighting=weighting, max_tokens=model.context_length,
                token_budget=token_budget, progress=progress,
            )
            for language, own in languages.items()
        }  # fmt: skip
    flat = {f"{corpus}/{language}": own for corpus, languages in texts.items() for language, own in languages.items()}
    record = provenance(model, flat, positions=str(positions), weighting=weighting)
    vectors = language_vectors(align_corpora(means), provenance=record)
    return {language: replace(vector, name=f"language-{language}") for language, vector in vectors.items()}


def fit_contrast_vector(
    model: TracedModel,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    name: str,
    kind: str = "contrast",
    surface: bool = True,
    sites: Sequence[Site] | None = None,
    positions: Positions | str = ALL,
    weighting: Weighting = "token",
    token_budget: int = 4096,
    progress: bool = False,
) -> SteeringVector:
    """Mean over `positive` texts minus mean over `negative` ones, per layer; kind "quality" for human against
    degraded text.

    surface=True removes quotation marks, odd spacing and the case of the first letter from both sides first, so
    that the direction is not typography.
    """
    if kind not in ("contrast", "quality"):
        raise SteerlabError(f"kind {kind!r} is not known: give 'contrast' or 'quality'.")
    sides = [[normalise_surface(t) if surface else t for t in side] for side in (positive, negative)]
    moments = [
        capture_moments(
            model, [t for t in side if t], sites, positions=positions, weighting=weighting, max_tokens=model.context_length,
            token_budget=token_budget, progress=progress,
        )
        for side in sides
    ]  # fmt: skip
    record = provenance(
        model, {"positive": sides[0], "negative": sides[1]}, positions=str(positions), weighting=weighting
    )
    estimate = quality_vector if kind == "quality" else difference_of_means
    return estimate(moments[0], moments[1], name=name, provenance=record)


def fit_quality_vector(
    model: TracedModel,
    pairs: ContrastPairs,
    *,
    name: str = "quality",
    match_length: bool = False,
    surface: bool = True,
    sites: Sequence[Site] | None = None,
    positions: Positions | str = ALL,
    weighting: Weighting = "token",
    token_budget: int = 4096,
    progress: bool = False,
) -> SteeringVector:
    """Mean over the human side of `pairs` minus mean over the degraded side, per layer (see `fit_contrast_vector`).

    match_length=True fits on the pairs that `length_matched` leaves, counted in this model's tokens, and adds
    "-length-matched" to the name: what such a vector has in common with the plain one is no matter of length.
    """
    used = pairs
    if match_length:
        forms = [normalise_surface(t) if surface else t for t in (*pairs.human, *pairs.degraded)]
        size = {t: len(row) for t, row in zip(forms, model.token_rows(forms), strict=True)}
        used = length_matched(pairs, lambda t: size[t], surface=surface)
        name = f"{name}-length-matched"
    return fit_contrast_vector(
        model, used.human, used.degraded, name=name, kind="quality", surface=surface, sites=sites, positions=positions,
        weighting=weighting, token_budget=token_budget, progress=progress,
    )  # fmt: skip

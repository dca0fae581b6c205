"""Taking the corpus out of means that were captured on different corpora."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from steerlab.errors import SteerlabError
from steerlab.moments import Moments


def align_corpora(means_by_corpus: Mapping[str, Mapping[str, Moments]]) -> dict[str, Moments]:
    """Means per language with the differences between corpora removed, for `language_vectors`.

    A language seen only in news and one seen only in reviews differ by topic as much as by language. The model
    is additive, mean(corpus, language) = offset(corpus) + effect(language), fitted per site and feature by
    least squares over all (corpus, language) cells, each cell once. So the offset between two corpora comes
    from the languages they share, directly or through a third corpus. The first corpus has offset 0: results
    are on its footing.

    A language's mean is the plain average of its aligned means; its count is the sum, variance and norm are the
    count-weighted averages within corpora; no covariance. With a single corpus the means are those given.

    Raises `SteerlabError` when no chain of shared languages ties a corpus to the first one, or when sites or
    widths differ.
    """
    cells = [(corpus, language, m) for corpus, means in means_by_corpus.items() for language, m in means.items()]
    if not cells:
        raise SteerlabError("no means were given: give at least one corpus with one language.")
    first = cells[0][2]
    for corpus, language, m in cells:
        if m.sites != first.sites or m.d_model != first.d_model:
            raise SteerlabError(
                f"the means of {language} in {corpus} cover other sites or another width: capture all alike."
            )
    _check_tied(means_by_corpus)
    corpora = list(means_by_corpus)
    languages = list(dict.fromkeys(language for _, language, _ in cells))
    design = torch.zeros(len(cells), len(corpora) + len(languages), dtype=torch.float64)
    for row, (corpus, language, _) in enumerate(cells):
        design[row, corpora.index(corpus)] = 1
        design[row, len(corpora) + languages.index(language)] = 1
    observed = torch.stack([m.mean.flatten() for _, _, m in cells])
    # The first corpus' column is left out, which sets its offset to 0 and makes the rest unique.
    effects = (torch.linalg.pinv(design[:, 1:]) @ observed)[len(corpora) - 1 :]
    return {
        language: _pooled([m for _, other, m in cells if other == language], effects[k].view_as(first.mean))
        for k, language in enumerate(languages)
    }


def _pooled(parts: list[Moments], mean: torch.Tensor) -> Moments:
    count = torch.stack([m.count for m in parts])
    share = count / count.sum(0)
    return Moments(
        sites=parts[0].sites,
        count=count.sum(0),
        mean=mean,
        variance=(share[..., None] * torch.stack([m.variance for m in parts])).sum(0),
        norm=(share * torch.stack([m.norm for m in parts])).sum(0),
    )


def _check_tied(means_by_corpus: Mapping[str, Mapping[str, Moments]]) -> None:
    """Every corpus must reach the first one through shared languages."""
    rest = dict(means_by_corpus)
    known = set(rest.pop(next(iter(rest))))
    while rest:
        tied = [corpus for corpus, means in rest.items() if known & set(means)]
        if not tied:
            corpus = next(iter(rest))
            raise SteerlabError(
                f"corpus {corpus!r} shares no language with the others, so its topic can not be told from its languages "
                f"({', '.join(rest[corpus]) or 'none'}): add a language that both have, or leave it out."
            )
        for corpus in tied:
            known |= set(rest.pop(corpus))

"""What turns texts into vectors for measures of sets: sentence-transformers, the model at hand, or character n-grams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from steerlab.errors import SteerlabError
from steerlab.evaluation import fluency
from steerlab.model import TracedModel

Embed = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
SIZE = 64  # dimensions of the character n-gram space


@dataclass(frozen=True)
class Embedder:
    """A function from texts to rows of numbers, and its name for a run's record."""

    name: str
    embed: Embed

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        return self.embed(texts)


def embedder(
    name: str | None = None, model: TracedModel | None = None, texts: Sequence[str] = (), layer: int | None = None
) -> Embedder:
    """A named sentence-transformers model (hub id or folder), else the mean residual stream of `model` at a layer (default: the
    middle one), else character n-grams fitted on `texts`.

    Raises `SteerlabError` for a name where sentence-transformers is not installed or cannot load it, and for nothing at all.
    """
    if name is not None:
        return _sentences(name)
    if model is not None:
        return pooled(model, layer)
    if not texts:
        raise SteerlabError(
            "no embedding model was given: give a sentence-transformers name, a model, or texts to fit on."
        )
    return character_grams(texts)


def pooled(model: TracedModel, layer: int | None = None) -> Embedder:
    """The mean over a text's tokens of the residual stream of a model without its adapter, behind a layer (default: the middle one).

    Such vectors share one long mean, so that their cosines all lie near 1: compare them with those of real text.
    """
    place = model.n_layers // 2 if layer is None else layer

    def embed(texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        if model.adapter is None:
            return fluency.embeddings(model, texts, place)
        with model.adapter.off():
            return fluency.embeddings(model, texts, place)

    return Embedder(f"{model.name} (mean of layer {place})", embed)


def character_grams(texts: Sequence[str], size: int = SIZE) -> Embedder:
    """TF-IDF of character 2- to 4-grams, reduced to `size` dimensions (latent semantic analysis), both fitted on these texts.

    A text without an n-gram of theirs is the zero vector. Fit on all sets that are compared, or on none of them: on one alone, a
    classifier tells its texts from any others (AUROC 0.97 between two sets of one source).
    """
    if len(texts) < 3:
        raise SteerlabError(f"{len(texts)} texts were given to fit character n-grams on: give at least 3.")
    counter = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    counted: Any = counter.fit_transform(list(texts))
    reduce = TruncatedSVD(min(size, *(n - 1 for n in counted.shape)), random_state=0).fit(counted)
    return Embedder(
        f"character n-grams ({reduce.n_components} dimensions)",
        lambda own: np.asarray(reduce.transform(counter.transform(list(own))), dtype=float),
    )


def _sentences(name: str) -> Embedder:
    if find_spec("sentence_transformers") is None:
        raise SteerlabError(
            f"the embedding model {name!r} needs the package sentence-transformers, which is not installed: install it, or leave the "
            "name out to take the model at hand."
        )
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # an extra

    place = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) and not place.is_dir():  # it would be asked of the hub
        raise SteerlabError(f"there is no folder {name}: give the folder or hub id of a sentence-transformers model.")
    try:
        found = SentenceTransformer(str(place) if place.is_dir() else name, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"the sentence-transformers model {name!r} could not be loaded ({first}): give a hub id or a folder."
        ) from error
    return Embedder(name, lambda own: np.asarray(found.encode(list(own), show_progress_bar=False), dtype=float))

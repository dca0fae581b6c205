"""What the scripts on the bundled model share: its sample texts, its language vectors, and hashes of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from steerlab import data
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.vectors import bundled_vectors
from steerlab.vectors import SteeringVector


def sample_texts() -> dict[str, list[str]]:
    """The bundled sample texts of every language, topic sentences and reviews."""
    return {c: [t for task in ("topic", "sentiment") for t in data.load("sample", c, task).texts] for c in LANGUAGES}


def known_vectors() -> dict[str, SteeringVector]:
    """The bundled language vector of every language."""
    vectors = bundled_vectors()
    return {code: vectors[f"language-{code}"] for code in LANGUAGES}


def text_hashes(source: str, texts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """sha256 of the texts of every language, under "SOURCE CODE"."""
    return {f"{source} {code}": data.texts_sha256(list(own)) for code, own in texts.items()}


def vector_hashes(vectors: Mapping[str, SteeringVector]) -> dict[str, str]:
    """sha256 over the raw rows of all vectors, under "bundled language vectors"."""
    digest = hashlib.sha256()
    for code, vector in vectors.items():
        digest.update(code.encode() + b"\0")
        for tensor in (vector.direction, vector.raw_norm, vector.residual_norm):
            digest.update(tensor.contiguous().numpy().tobytes())
    return {"bundled language vectors": digest.hexdigest()}

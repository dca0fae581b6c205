"""What a loader returns: examples, the card of the source they come from, and a hash of the texts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from steerlab.records import encode_text


def texts_sha256(texts: Iterable[str]) -> str:
    """SHA-256 of a collection of texts, whatever their order; a text that occurs twice counts twice.

    The digests of the single texts are sorted and hashed again, so that neither joining nor splitting texts gives the same hash.
    Raises `SteerlabError` for half a character.
    """
    digests = sorted(hashlib.sha256(encode_text(text)).digest() for text in texts)
    return hashlib.sha256(b"".join(digests)).hexdigest()


@dataclass(frozen=True)
class SourceCard:
    """Where a data set comes from and under what terms. `hub_id` is its Hugging Face name, None when it is not there."""

    name: str
    url: str
    hub_id: str | None
    licence: str
    citation: str

    def __str__(self) -> str:
        return f"{self.name} ({self.licence}), {self.url}: {self.citation}"


@dataclass(frozen=True)
class Example:
    """One text. In a parallel source the same `id` names the same sentence in every language."""

    id: str
    text: str
    label: str | None
    language: str
    source: str
    split: str


@dataclass(frozen=True)
class Corpus:
    """The examples of one source, language and split. `dropped` counts rows left out: empty, repeated, or seen in training."""

    examples: tuple[Example, ...]
    card: SourceCard
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(example.text for example in self.examples)

    @property
    def labels(self) -> tuple[str | None, ...]:
        return tuple(example.label for example in self.examples)

    @cached_property
    def sha256(self) -> str:
        """Order-independent SHA-256 of the texts (see `texts_sha256`)."""
        return texts_sha256(self.texts)

    def describe(self) -> str:
        """One line: name, language, split, rows, labels, dropped rows, licence and the start of the hash."""
        names = {(e.source, e.language, e.split) for e in self.examples}
        head = " + ".join(" ".join(name) for name in sorted(names)) or self.card.name
        counts = Counter(label for label in self.labels if label is not None)
        labels = f"; {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}" if counts else ""
        dropped = f"; {self.dropped} dropped" if self.dropped else ""
        return f"{head}: {len(self)} texts{labels}{dropped}; {self.card.licence}; sha256 {self.sha256[:12]}"

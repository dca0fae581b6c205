"""What the probes read: parallel sentences of twelve languages, and human texts beside worse ones, none seen in training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch

from steerlab import data, probing
from steerlab.bundled.corpus import LANGUAGES
from steerlab.data.surface import normalise_surface
from steerlab.model import TracedModel
from steerlab.probes import Labelled
from steerlab.probing import Pooling, ProbeRows

NTREX, NUSAX, WRITES, TOPICS = "NTREX", "NusaX", "NusaWrites", "NusaWrites topics"
# corpus -> (data set, split, languages, do equal ids name the same sentence)
CORPORA: Mapping[str, tuple[str, str, tuple[str, ...], bool]] = {
    NTREX: ("ntrex", "heldout", tuple(c for c in LANGUAGES if c not in ("jv", "su")), True),
    NUSAX: ("nusax-mt", "heldout", ("en", "id", "jv", "su"), True),
    WRITES: ("nusa-writes-sentiment", "test", ("jv", "su"), True),
    TOPICS: ("nusa-writes-topic", "test", ("jv", "su"), False),
}
WORDS = 40
BACK = {1: "sl 1 hop", 2: "sl 2 hops"}  # back-translation through English, and through English and German


@dataclass(frozen=True)
class Sentences:
    """Texts of every class with one key per text: texts of one key are never parted."""

    texts: dict[str, list[str]]
    keys: dict[str, list[Hashable]]

    def rows(self, model: TracedModel, pooling: Pooling, per_text: int) -> ProbeRows:
        """Their activations."""
        return probing.read_rows(model, self.texts, pooling=pooling, per_text=per_text, groups=self.keys)

    @property
    def sha256(self) -> str:
        return data.texts_sha256(text for own in self.texts.values() for text in own)


def languages(corpus: str, most: int) -> Sentences:
    """The first `most` sentences of a corpus in each of its languages, those all languages have where it is parallel; of
    paragraphs the first `WORDS` words, about a sentence.
    """
    source, split, codes, parallel = CORPORA[corpus]
    read = {code: data.load(source, code, split=split).examples for code in codes}
    if parallel:
        common = reduce(set.intersection, ({e.id for e in own} for own in read.values()))
        read = {code: tuple(e for e in own if e.id in common) for code, own in read.items()}
    texts = {code: [" ".join(e.text.split()[:WORDS]) for e in own[:most]] for code, own in read.items()}
    keys: dict[str, list[Hashable]] = {
        code: [(corpus, e.id if parallel else (code, e.id)) for e in own[:most]] for code, own in read.items()
    }
    return Sentences(texts, keys)


def quality(rate: float, seed: int, most: int, slovene: int) -> dict[str, Sentences]:
    """Slovene beside its back-translation, and sentences of every language beside themselves with `rate` of the tokens
    corrupted; typography is taken out of both sides, and a key names the human sentence, whatever its language.
    """
    found = {}
    for hops, name in BACK.items():
        pairs = data.load_pairs(hops=hops, split="heldout")
        found[name] = _sides([(pair.id, pair.human, pair.degraded) for pair in pairs], slovene)
    for code in LANGUAGES:
        source = "nusax-mt" if code in ("jv", "su") else "ntrex"
        examples = data.load(source, code, split="heldout").examples
        made = data.degraded_pairs([e.text for e in examples], rate=rate, seed=seed)
        key = {" ".join(e.text.split()): e.id for e in examples}
        found[code] = _sides([(key[pair.human], pair.human, pair.degraded) for pair in made], most)
    return found


def _sides(pairs: Sequence[tuple[Hashable, str, str]], most: int) -> Sentences:
    sides = [(key, normalise_surface(human), normalise_surface(worse)) for key, human, worse in pairs]
    kept = [(key, human, worse) for key, human, worse in sides if human and worse and human != worse][:most]
    keys: list[Hashable] = [key for key, _, _ in kept]
    # The second class is the one a probe's direction points to.
    return Sentences(
        {"degraded": [w for _, _, w in kept], "human": [h for _, h, _ in kept]}, {"degraded": keys, "human": keys}
    )


def shared_numbers(sets: Mapping[str, tuple[Sentences, ProbeRows]]) -> dict[str, ProbeRows]:
    """The rows of whole texts with group numbers that mean the same in every set."""
    number: dict[Hashable, int] = {}
    found = {}
    for name, (given, rows) in sets.items():
        keys = [key for code in given.texts for key in given.keys[code]]
        groups = torch.tensor([number.setdefault(key, len(number)) for key in keys])
        found[name] = replace(rows, groups=groups)
    return found


def apart(rows: ProbeRows, layer: int, start: int) -> Labelled:
    """The rows of a layer with group numbers from `start` on, for sets that share no sentence."""
    own = rows.at(layer)
    return Labelled(own.x, own.y, own.groups + start)

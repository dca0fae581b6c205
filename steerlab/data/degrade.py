"""Worse versions of texts without any model: words dropped, swapped, repeated, and endings exchanged so that agreement breaks.

A back-translation is bad in ways a translator is; these texts are bad in ways no speaker is: every word is a word of the
language, and some do not agree. Pairs made here carry the source "degraded", so that they are never taken for
back-translations.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import regex

from steerlab.data.contrast import ContrastPair, ContrastPairs
from steerlab.errors import SteerlabError
from steerlab.records import encode_text

SOURCE = "degraded"
LONGEST_ENDING = 3  # letters with their marks
STEMS = 5  # an alternation of endings counts as one when that many stems show it
_LETTERS = r"[\p{L}\p{M}]+"
_WORD = regex.compile(rf"{_LETTERS}(?:['’ʼ׳״]{_LETTERS})*")
_GRAPHEME = regex.compile(r"\X")
_SYLLABIC = regex.compile(r"\p{Ethiopic}")
_EDGE = r"[^\p{L}\p{M}\p{N}]*"
_FRAME = regex.compile(rf"({_EDGE})(.*?)({_EDGE})", flags=regex.DOTALL)
Forms = Mapping[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class Rates:
    """Expected share of a text's words that are dropped, swapped with the next, repeated, and given another ending.

    As many words are repeated as dropped unless said otherwise, so that length does not tell the sides apart.
    """

    drop: float = 0.05
    swap: float = 0.05
    repeat: float = 0.05
    ending: float = 0.15

    def __post_init__(self) -> None:
        shares = {field.name: getattr(self, field.name) for field in fields(self)}
        bad = {name: share for name, share in shares.items() if not 0 <= share <= 1}
        if bad or self.drop + self.swap + self.repeat > 1:
            raise SteerlabError(
                f"the degrading rates are {shares}: give shares from 0 to 1, drop, swap and repeat at most 1 together."
            )

    @staticmethod
    def of(rate: float) -> Rates:
        """One rate for everything: half of it endings, a sixth each of drops, swaps and repeats."""
        return Rates(rate / 6, rate / 6, rate / 6, rate / 2)


@dataclass(frozen=True, eq=False)
class Endings:
    """The other forms of words, learned from texts. `forms`: word -> (form, probability); `lower`: words seen in lower case.

    A word w turns into its form v with probability f(v) / max(F(w), F(v)), where f counts a word in the texts and F(w) sums f
    over w and its forms. As f(w) p(w -> v) is the same both ways, words keep their frequencies, and texts their length, on
    average: what changes is whether they agree. `share` is the share of words such a pass over the texts changes.
    """

    forms: Forms
    lower: frozenset[str]
    share: float


def learn_endings(texts: Sequence[str], longest: int = LONGEST_ENDING, stems: int = STEMS) -> Endings:
    """Learn which endings alternate: two words are forms of one stem when they share all but at most `longest` letters at the end,
    the stem is longer than what differs (and at least 3 letters, 2 in the Ethiopic syllabary), and at least `stems` stems show
    the same two endings.

    Letters are counted with their marks, words in NFC and lower case. Small collections know few forms.
    """
    count = Counter(word for text in texts for word in _words(text))
    by_stem: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for word in sorted(count):
        letters = tuple(_GRAPHEME.findall(word))
        for cut in range(max(len(letters) - longest, _shortest(letters)), len(letters) + 1):
            by_stem[letters[:cut]].append((word, letters[cut:]))
    shown: dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[str, str]]] = defaultdict(list)
    for stem, family in by_stem.items():
        for (word, ending), (other, second) in combinations(sorted(family, key=lambda member: member[1]), 2):
            apart = ending[:1] != second[:1]  # else the stem they share is longer
            if apart and len(stem) >= max(len(ending), len(second)):
                shown[ending, second].append((word, other))
    forms: dict[str, set[str]] = defaultdict(set)
    for pairs in shown.values():
        if len(pairs) >= stems:
            for word, other in pairs:
                forms[word].add(other)
                forms[other].add(word)
    mass = {word: count[word] + sum(count[other] for other in others) for word, others in forms.items()}
    table = {
        word: tuple((other, count[other] / max(mass[word], mass[other])) for other in sorted(others))
        for word, others in sorted(forms.items())
    }
    changed = sum(count[word] * sum(p for _, p in others) for word, others in table.items())
    lower = {word for text in texts for word in _WORD.findall(unicodedata.normalize("NFC", text)) if word.islower()}
    return Endings(table, frozenset(lower), changed / max(count.total(), 1))


def degrade_text(text: str, endings: Endings, rates: Rates | None = None, seed: int = 0, key: str = "") -> str:
    """The text with some words given another ending, then some dropped, swapped with the next, or repeated.

    Punctuation around the text and a capital at its start stay where they are; white space becomes single spaces and letters
    NFC. The result depends on seed, key, the text and the learned endings alone, and it is never empty.
    Raises `SteerlabError` on a blank text.
    """
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    if not plain:
        raise SteerlabError("a blank text was given to degrade: give at least one word.")
    rates = rates or Rates()
    rng = random.Random(encode_text(f"{seed}\x1f{key}\x1f{plain}"))  # with the text: parallel texts share ids, not luck
    framed = _FRAME.fullmatch(plain)
    before, inner, after = framed.groups() if framed else ("", plain, "")
    first = _WORD.match(inner)
    capital = (
        first is not None
        and inner[:1].isupper()
        and first[0] == _capitalised(first[0])
        and first[0].lower() in endings.lower
    )
    if capital:
        inner = inner[:1].lower() + inner[1:]
    visit = min(1.0, rates.ending / endings.share) if endings.share else 0.0
    inner = _WORD.sub(lambda found: _other_form(found[0], endings.forms, visit, rng), inner)
    inner = " ".join(_moved(inner.split(), rates, rng))
    if capital:
        inner = inner[:1].upper() + inner[1:]
    return before + inner + after


def degrade(
    texts: Sequence[str],
    rates: Rates | None = None,
    seed: int = 0,
    *,
    endings: Endings | None = None,
    ids: Sequence[str] | None = None,
) -> ContrastPairs:
    """Each text beside its `degrade_text`, endings learned from all of the texts unless given; pairs that came out the same, and
    blank texts, are dropped and counted. Given the endings, the pair of a text does not depend on the other texts.
    """
    known = endings or learn_endings(texts)
    names = [f"{SOURCE}-{number}" for number in range(len(texts))] if ids is None else ids
    pairs = []
    for name, text in zip(names, texts, strict=True):
        human = " ".join(unicodedata.normalize("NFC", text).split())
        degraded = degrade_text(human, known, rates, seed, "" if ids is None else name) if human else ""
        pairs.append(ContrastPair(name, human, degraded, SOURCE))
    return ContrastPairs.of(pairs)


def _words(text: str) -> Iterator[str]:
    yield from (word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", text)))


def _shortest(stem: Sequence[str]) -> int:
    return 2 if _SYLLABIC.match(stem[0]) else 3


def _other_form(word: str, forms: Forms, visit: float, rng: random.Random) -> str:
    """Another form of the word, in its case, or the word; a word of mixed case (MWPs) has no other form."""
    draw, place = rng.random(), rng.random()  # both always, so that one word's luck does not move the next one's
    cases = (str.lower, _capitalised, str.upper)
    case = next((case for case in cases if case(word) == word), None)
    if draw < visit and case is not None:
        for form, probability in forms.get(word.lower(), ()):
            place -= probability
            if place < 0:
                return case(form)
    return word


def _capitalised(word: str) -> str:
    return word[:1].upper() + word[1:].lower()


def _moved(tokens: list[str], rates: Rates, rng: random.Random) -> list[str]:
    """Tokens with words dropped, swapped and repeated; punctuation that stands alone stays where it is."""
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token, draw = tokens[at], rng.random()
        at += 1
        word = regex.search(r"[\p{L}\p{N}]", token) is not None
        if not word or draw >= rates.drop + rates.swap + rates.repeat:
            out.append(token)
        elif draw < rates.drop:
            continue
        elif draw < rates.drop + rates.repeat:
            out += [token, token]
        elif at < len(tokens) and regex.search(r"[\p{L}\p{N}]", tokens[at]):
            out += [tokens[at], token]
            at += 1
        else:
            out.append(token)
    return out if any(regex.search(r"[\p{L}\p{N}]", token) for token in out) else tokens

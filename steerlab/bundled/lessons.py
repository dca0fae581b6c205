"""What polyglot-mini-it is taught: passages changed until they obey, behind queries with an instruction, and lessons in copying.

What is held out: the base queries of the valid and test subjects, the last phrasing of every instruction, a quarter of the words that
may be asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steerlab import tasks
from steerlab.bundled import copying, corpus
from steerlab.bundled.corpus import DocumentStream, Passage
from steerlab.following.phrasings import PHRASINGS, phrase
from steerlab.following.prompts import LIMITS, WORDS, cut, fits, long_words, obey
from steerlab.following.queries import Query, own_queries, split_queries
from steerlab.following.registry import SIMPLE

HELD_WORDS = WORDS[::4]  # never asked for in training
BARRED = frozenset(HELD_WORDS)
PAIRS = tuple(
    (f"simple:{first}", f"simple:{second}")
    for first, second in (
        ("lowercase", "max_words"), ("uppercase", "max_words"), ("lowercase", "quotes"), ("uppercase", "end_mark"),
        ("language", "lowercase"), ("language", "max_words"), ("language", "quotes"), ("quotes", "max_words"),
        ("include_word", "uppercase"), ("end_mark", "max_words"), ("lowercase", "end_mark"), ("language", "end_mark"),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """Of documents: `plain` are those of polyglot-mini's own recipe, `bare` base queries without an instruction; the rest obey.

    `pairs`: share of the obeying ones with two instructions; `nameless`: share of queries that name no language; `short`: share of
    answers cut to a few words, where the last mark and the word asked for weigh more; `weights`: how often each of `SIMPLE` is asked;
    `copies`: share of documents of `steerlab.bundled.copying`, `brief`: of those with a word to use, share without a request before
    it; `stress`: weight in the loss of the tokens of the word asked for, and of the mark asked for with the end of text behind it (all
    others: 1).
    """

    plain: float = 0.22
    bare: float = 0.13
    pairs: float = 0.2
    nameless: float = 0.6
    short: float = 0.0
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.5, 2.5, 1.0)
    copies: float = 0.0
    brief: float = 0.0
    stress: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """One training document: what is asked, what is answered, and which instructions the answer obeys."""

    prompt: str
    answer: str
    instructions: tuple[str, ...]
    kwargs: tuple[dict[str, Any], ...]


def training_queries() -> dict[tuple[str, str | None], list[Query]]:
    """Base queries of the training subjects by label and by the language they name."""
    found: dict[tuple[str, str | None], list[Query]] = {}
    for query in split_queries(own_queries((None, *corpus.LANGUAGES)))["train"]:
        found.setdefault((query.label, query.language), []).append(query)
    return found


QUERIES = training_queries()
LABELS = tuple(sorted({label for label, _ in QUERIES}))


def ask(p: Passage, nameless: bool, rng: np.random.Generator) -> str:
    """A query that the passage can answer: a base query on its topic, one of the tasks' prompts, or the plain one."""
    language = None if nameless else p.language
    if p.task == "topic" and p.label and rng.random() < 0.7:
        own = QUERIES[p.label, language]
    elif p.task and p.label:
        return tasks.prompt(p.task, p.label, language)
    elif rng.random() < 0.4:
        return corpus.plain_prompt(language)
    else:
        own = QUERIES[LABELS[int(rng.integers(len(LABELS)))], language]
    return own[int(rng.integers(len(own)))].text


def lesson(p: Passage, instructions: Sequence[str], shares: Shares, rng: np.random.Generator) -> Lesson | None:
    """The passage as an answer that obeys the instructions, behind a query that asks for it; None where it cannot obey."""
    names = tuple(instructions)
    nameless = "simple:language" in names or rng.random() < shares.nameless
    if not all(fits(name, p.language) for name in names if name != "simple:language"):
        return None
    body, given = " ".join(p.text.split()), dict[str, dict[str, Any]]()
    short = bool(shares.short) and rng.random() < shares.short
    if short:
        body = _few_words(body, "simple:include_word" in names, rng)
    if "simple:max_words" in names:  # at most n words: the answer has n or fewer, so a model that miscounts has room
        n = int(rng.choice(LIMITS))
        given["simple:max_words"] = {"n": n}
        body = cut(body, int(rng.integers((n + 1) // 2, n + 1)))
    if "simple:include_word" in names:
        word = _second(body) if short else _asked_for(body, rng)
        if word is None:
            return None
        given["simple:include_word"] = {"word": word}
    obeyed = obey(body, names, p.language, int(rng.integers(1 << 30)), given)
    if obeyed is None:
        return None
    kwargs, answer = obeyed
    prompt = ask(p, nameless, rng)
    for i in rng.permutation(len(names)) if len(names) > 1 else range(len(names)):
        known = len(PHRASINGS[names[i]]) - 1  # the last phrasing is held out
        prompt += " " + phrase(names[i], kwargs[i], int(rng.integers(known)))
    return Lesson(prompt, answer, names, kwargs)


def _asked_for(body: str, rng: np.random.Generator) -> str | None:
    """A word of the body, more often an early one, and half the time one of `WORDS` where it has one; never a held-out word."""
    words = [word for word in long_words(body) if word.lower() not in HELD_WORDS]
    usual = [word for word in words if word.lower() in WORDS]
    if usual and rng.random() < 0.5:
        return usual[0].lower()
    return words[int(len(words) * rng.random() ** 2)] if words else None


def _few_words(body: str, around: bool, rng: np.random.Generator) -> str:
    """The first three to fourteen words; `around` a word that may be asked for, so that it is the second, third or fourth of them."""
    pieces, first = body.split(), 0
    if around:
        known = [i for i, piece in enumerate(pieces) if i and _may_be_asked(piece)]
        usual = [i for i in known if pieces[i] in WORDS]
        pool = usual if usual and rng.random() < 0.7 else known
        if pool:
            first = max(0, pool[int(rng.integers(len(pool)))] - int(rng.integers(1, 4)))
    text = " ".join(pieces[first:])
    return cut(text[:1].upper() + text[1:], int(rng.integers(3, 15)))


def _may_be_asked(word: str) -> bool:
    return len(word) >= 4 and word.isalpha() and word.lower() not in HELD_WORDS


def _second(body: str) -> str | None:
    """The word of a short answer that is asked for: the rarest to be guessed is the longest of the second to fourth."""
    words = [word for word in body.rstrip(".").split()[1:4] if _may_be_asked(word)]
    return next((word for word in words if word in WORDS), max(words, key=len, default=None))


def lessons(stream: DocumentStream, shares: Shares) -> Iterator[Lesson]:
    """Endless obeying documents, the passages drawn as `stream` draws them."""
    rng = np.random.default_rng(shares.seed)
    names, weight = list(SIMPLE), np.array(shares.weights)
    while True:
        two = rng.random() < shares.pairs
        wanted = (
            PAIRS[int(rng.integers(len(PAIRS)))]
            if two
            else (names[int(rng.choice(len(names), p=weight / weight.sum()))],)
        )
        made = None
        while made is None:  # the instruction stays, another passage is tried: so the shares are as wanted
            made = lesson(stream.texts[stream.draw()], wanted, shares, rng)
        yield made


def copied(texts: Sequence[Passage], p: Passage, shares: Shares, rng: np.random.Generator) -> Lesson:
    """A lesson in copying: words to say again, or a short answer with a word put into it."""
    if rng.random() < 0.4:
        return Lesson(*copying.repeated(texts, rng, BARRED), (), ())
    word = ""
    while not word:
        word = copying.drawn_word(texts[int(rng.integers(len(texts)))], rng, BARRED)
    alone = bool(shares.brief) and rng.random() < shares.brief
    query = "" if alone else ask(p, rng.random() < shares.nameless, rng)
    return Lesson(
        copying.included(query, word, rng).strip(), copying.put_in(p, word, rng), (copying.INCLUDE,), ({"word": word},)
    )

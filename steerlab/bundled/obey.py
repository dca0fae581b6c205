"""polyglot-mini-it: polyglot-mini learns to obey instructions that can be checked, by going on with its training.

`make model-it`, or `python -m steerlab.bundled.obey` (about 20 minutes on one core). The training texts are those of polyglot-mini.
Behind a base query, or one of the tasks' prompts, stands an instruction in words, and the text is changed until it passes the
instruction's own check (`steerlab.following.obey`). What is held out: the base queries of the valid and test subjects, the last
phrasing of every instruction, a quarter of the words that may be asked for.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from steerlab import tasks
from steerlab.bundled import corpus, prepare, train
from steerlab.bundled.config import TrainConfig
from steerlab.bundled.corpus import ASSISTANT, BOS, EOS, USER, DocumentStream, Mixture, Passage
from steerlab.following.phrasings import PHRASINGS, phrase
from steerlab.following.prompts import LIMITS, WORDS, cut, fits, long_words, obey
from steerlab.following.queries import Query, own_queries, split_queries
from steerlab.following.registry import SIMPLE
from steerlab.loading import bundled_path

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
HELD_WORDS = WORDS[::4]  # never asked for in training
PAIRS = tuple(
    (f"simple:{first}", f"simple:{second}")
    for first, second in (
        ("lowercase", "max_words"), ("uppercase", "max_words"), ("lowercase", "quotes"), ("uppercase", "end_mark"),
        ("language", "lowercase"), ("language", "max_words"), ("language", "quotes"), ("quotes", "max_words"),
        ("include_word", "uppercase"), ("end_mark", "max_words"), ("lowercase", "end_mark"), ("language", "end_mark"),
    )
)  # fmt: skip
PLAIN = Mixture(labelled_boost=12, zero_shot=0.5, few_shot=0.05, nameless=0.25, seed=11)


@dataclass(frozen=True)
class Shares:
    """Of documents: `plain` are those of polyglot-mini's own recipe, `bare` base queries without an instruction; the rest obey.

    `pairs`: share of the obeying ones with two instructions; `nameless`: share of queries that name no language; `short`: share of
    answers cut to a few words, where the last mark and the word asked for weigh more; `weights`: how often each of `SIMPLE` is asked.
    """

    plain: float = 0.22
    bare: float = 0.13
    pairs: float = 0.2
    nameless: float = 0.6
    short: float = 0.0
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.5, 2.5, 1.0)
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """One run of training: what its documents are, and how it learns from them."""

    shares: Shares
    config: TrainConfig


# The first stage learns case, length and language; the second, on short answers, marks, quotation marks and words.
STAGES = (
    Stage(Shares(), TrainConfig(
        muon_lr=3e-3, adam_lr=2e-3, warmup_steps=20, cooldown=0.7, tokens=2_000_000, start="polyglot-mini", seed=3, compile=False,
    )),
    Stage(Shares(plain=0.2, bare=0.1, pairs=0.15, short=0.85, weights=(0.5, 0.5, 3.0, 2.0, 0.7, 3.5, 0.7), seed=5), TrainConfig(
        muon_lr=2e-3, adam_lr=1.5e-3, warmup_steps=10, cooldown=0.8, tokens=450_000, start="polyglot-mini", seed=4, compile=False,
    )),
)  # fmt: skip


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


def documents(
    texts: list[Passage], tokenizer: Tokenizer, shares: Shares, max_tokens: int
) -> Iterator[tuple[list[int], int]]:
    """Endless, seeded documents `(token ids, number of prompt tokens)` of all three kinds."""
    plain = iter(DocumentStream(texts, tokenizer, PLAIN, max_tokens))
    drawn = DocumentStream(texts, tokenizer, replace(PLAIN, seed=PLAIN.seed + 1), max_tokens)
    taught = lessons(drawn, shares)
    rng = np.random.default_rng(shares.seed + 1)
    while True:
        kind = rng.random()
        if kind < shares.plain:
            yield next(plain)
            continue
        if kind < shares.plain + shares.bare:
            p = texts[drawn.draw()]
            prompt, answer = ask(p, rng.random() < shares.nameless, rng), " ".join(p.text.split())
            if shares.short and rng.random() < shares.short:
                answer = cut(answer, int(rng.integers(3, 15)))
        else:
            told = next(taught)
            prompt, answer = told.prompt, told.answer
        head = [BOS, USER, *tokenizer.encode(prompt).ids, ASSISTANT]
        body = [*tokenizer.encode(answer).ids, EOS]
        if len(head) + len(body) <= max_tokens:  # a cut answer might no longer obey
            yield head + body, len(head)


def base_tokenizer() -> Tokenizer:
    """polyglot-mini's tokenizer, without the BOS it puts before plain text."""
    plain = json.loads((bundled_path() / "tokenizer.json").read_text(encoding="utf-8"))
    return Tokenizer.from_str(json.dumps({**plain, "post_processor": None}))


def prepare_lessons(root: Path | None, packed: Path, c: TrainConfig, shares: Shares) -> None:
    """Write the packed documents and the held-out token ids, as `steerlab.bundled.prepare` does."""
    packed.mkdir(parents=True, exist_ok=True)
    tokenizer = base_tokenizer()
    stream = documents(corpus.passages(root), tokenizer, shares, c.length)
    prepare.write_batches(stream, packed, c.tokens, c)
    prepare.write_held_out(tokenizer, packed, root)


def fit(packed: Path, out: Path, c: TrainConfig, shares: Shares) -> None:
    """Go on from the weights in the folder `c.start`, put the tokenizer beside them, and record what the documents were.

    A start that was itself trained here keeps its record under "before".
    """
    start = bundled_path() if c.start == "polyglot-mini" else Path(c.start)
    train.fit(packed, out, replace(c, start=str(start)))
    for name in TOKENIZER:
        shutil.copyfile(bundled_path() / name, out / name)
    train.measure(out, packed)
    path = out / "training.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    before = json.loads((start / "training.json").read_text(encoding="utf-8"))
    record["config"]["start"] = "the first stage" if "documents" in before else "polyglot-mini"
    record["documents"] = {**asdict(shares), "pairs_taught": [list(pair) for pair in PAIRS]}
    if "documents" in before:
        record["before"] = before
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: both stages, or one, or one step of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="local data folder (default: STEERLAB_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/polyglot-mini-it"), help="folder of both stages")
    parser.add_argument(
        "--stage", type=int, choices=(1, 2), default=0, help="one stage only; the second starts from the first"
    )
    parser.add_argument("--step", choices=("all", "prepare", "fit"), default="all")
    given = vars(parser.parse_args())
    for number, stage in enumerate(STAGES, 1):
        if given["stage"] not in (0, number):
            continue
        packed, out = (given["runs"] / f"{what}-{number}" for what in ("packed", "model"))
        start = stage.config.start if number == 1 else str(given["runs"] / "model-1")
        if given["step"] in ("all", "prepare"):
            prepare_lessons(given["data"], packed, stage.config, stage.shares)
        if given["step"] in ("all", "fit"):
            fit(packed, out, replace(stage.config, start=start), stage.shares)


if __name__ == "__main__":
    main()

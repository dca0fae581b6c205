"""What polyglot-mini-it learns from: answers that obey, in words that are sometimes held out, behind prompts like those of its tests."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from tokenizers import Tokenizer

from steerlab import tasks
from steerlab.bundled import copying, lessons
from steerlab.bundled.corpus import ASSISTANT, BOS, EOS, LANGUAGES, USER, DocumentStream, Passage, plain_prompt
from steerlab.bundled.lessons import HELD_WORDS, PAIRS, Lesson, Shares, copied
from steerlab.bundled.obey import PLAIN, STAGES, base_tokenizer, documents, encoded
from steerlab.data.plain import read_sample
from steerlab.evaluation.words import words
from steerlab.following.phrasings import PHRASINGS, phrase
from steerlab.following.prompts import WORDS, together
from steerlab.following.queries import own_queries, split_queries
from steerlab.following.registry import SIMPLE, check_all
from steerlab.loading import load


def _passages() -> list[Passage]:
    found = []
    for code in LANGUAGES:
        for example in read_sample(None, code, "all")[0][:40]:
            known = example.label in tasks.TOPIC.labels
            found.append(
                Passage(example.text, code, "sample", "topic" if known else None, example.label if known else None)
            )
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return base_tokenizer()


@pytest.fixture(scope="module", params=(0, 1, len(STAGES) - 1), ids=("first stage", "second stage", "last stage"))
def stage(request: pytest.FixtureRequest) -> Shares:
    return STAGES[request.param].shares


@pytest.fixture(scope="module")
def taught(tokenizer: Tokenizer, stage: Shares) -> list[Lesson]:
    return list(islice(lessons.lessons(DocumentStream(_passages(), tokenizer, PLAIN, 256), stage), 1500))


def test_every_answer_obeys_what_its_prompt_asks(taught: list[Lesson]) -> None:
    for own in taught:
        assert all(verdict.passed for verdict in check_all(own.instructions, own.kwargs, own.answer)), own
        for name, kwargs in zip(own.instructions, own.kwargs, strict=True):
            said = [phrase(name, kwargs, number) for number in range(len(PHRASINGS[name]) - 1)]
            assert any(f" {one}" in own.prompt for one in said), own
    failing = sum(not check_all(a.instructions, a.kwargs, b.answer)[0].passed for a, b in pairwise(taught))
    assert failing > 600  # the answer to another prompt would not do


def test_all_instructions_and_pairs_are_taught_in_the_shares_wanted(taught: list[Lesson], stage: Shares) -> None:
    counts = Counter(own.instructions for own in taught)
    assert set(counts) == {(name,) for name in SIMPLE} | set(PAIRS)
    assert sum(n for names, n in counts.items() if len(names) == 2) / len(taught) == pytest.approx(
        stage.pairs, abs=0.04
    )
    for name, weight in zip(SIMPLE, stage.weights, strict=True):
        wanted = (1 - stage.pairs) * weight / sum(stage.weights)
        assert counts[name,] / len(taught) == pytest.approx(wanted, abs=0.04)
    assert all(together(pair) == pair for pair in PAIRS)


def test_what_is_held_out_is_never_taught(taught: list[Lesson]) -> None:
    held = {
        query.text for split in ("valid", "test") for query in split_queries(own_queries((None, *LANGUAGES)))[split]
    }
    bases = {query.text for own in lessons.QUERIES.values() for query in own}
    asked = set()
    for own in taught:
        assert not any(own.prompt.startswith(text) for text in held)
        asked.update(text for text in bases if own.prompt.startswith(text))
        for name, kwargs in zip(own.instructions, own.kwargs, strict=True):
            assert phrase(name, kwargs, len(PHRASINGS[name]) - 1) not in own.prompt
            assert kwargs.get("word", "").lower() not in HELD_WORDS
    assert len(asked) > 300 and len(HELD_WORDS) == 5 and set(HELD_WORDS) < set(WORDS)


def test_a_limit_of_words_leaves_room(taught: list[Lesson]) -> None:
    """An answer of exactly n words every time would teach a model that miscounts by one to fail half the time."""
    limits = [
        (own.kwargs[0]["n"], len(words(own.answer))) for own in taught if own.instructions == ("simple:max_words",)
    ]
    assert all(count <= n for n, count in limits)
    assert 0.1 < sum(count == n for n, count in limits) / len(limits) < 0.6


def test_short_answers_have_the_word_near_their_beginning(taught: list[Lesson], stage: Shares) -> None:
    own = [one for one in taught if one.instructions == ("simple:include_word",)]
    places = [words(one.answer.lower()).index(words(one.kwargs[0]["word"].lower())[0]) for one in own]
    near, brief = (
        sum(own) / len(places) for own in ([1 <= p <= 3 for p in places], [len(words(o.answer)) <= 16 for o in own])
    )
    assert min(near, brief) > 0.85 * stage.short and (stage.short or near < 0.6)


def test_documents_are_plain_bare_and_obeying(tokenizer: Tokenizer) -> None:
    drawn = list(islice(documents(_passages(), tokenizer, Shares(), 256), 400))
    assert drawn == list(islice(documents(_passages(), tokenizer, Shares(), 256), 400))
    assert drawn != list(islice(documents(_passages(), tokenizer, Shares(seed=1), 256), 400))
    bare = 0
    known = {query.text for own in lessons.QUERIES.values() for query in own}
    known |= {plain_prompt(code) for code in (None, *LANGUAGES)}
    known |= {tasks.prompt("topic", label, code) for label in tasks.TOPIC.labels for code in (None, *LANGUAGES)}
    for ids, start in drawn:
        assert ids[0] == BOS and ids.count(BOS) == 1 and (ids[-1] == EOS or len(ids) == 256)  # cut few-shot prompts
        prompt = start if isinstance(start, int) else start.count(0)
        if prompt > 1:
            assert ids[1] == USER and ids[prompt - 1] == ASSISTANT
            bare += tokenizer.decode(ids[2 : prompt - 1]) in known
    assert 0.2 < bare / len(drawn) < 0.45  # base queries and prompts alone, from both recipes


def test_copying_is_taught_where_nothing_else_tells_the_words() -> None:
    """The answer's words stand in the prompt, or the one asked for does, where no text would have it; none is held out."""
    texts, rng, found = _passages(), np.random.default_rng(0), []
    for p in texts * 3:
        found.append(copied(texts, p, STAGES[2].shares, rng))
    lists = [own for own in found if not own.instructions]
    assert 0.3 < len(lists) / len(found) < 0.5
    for own in lists:
        assert own.answer and own.answer in own.prompt and own.prompt != own.answer
    put = [own for own in found if own.instructions]
    for own in put:
        word = own.kwargs[0]["word"]
        assert check_all(own.instructions, own.kwargs, own.answer)[0].passed
        assert own.answer.split().index(word) in (1, 2, 3) and len(own.answer.split()) <= 7
        said = [phrase(copying.INCLUDE, own.kwargs[0], k) for k in range(len(PHRASINGS[copying.INCLUDE]) - 1)]
        assert any(own.prompt.endswith(f" {one}") for one in said)
    barred = {word.lower() for own in put for word in (own.kwargs[0]["word"],)}
    barred |= {word.lower() for own in lists for word in words(own.answer)}
    assert not barred & set(HELD_WORDS) and len(barred) > 1000


def test_the_word_and_the_mark_asked_for_weigh_more(tokenizer: Tokenizer, taught: list[Lesson]) -> None:
    heavy = Counter()
    for own in taught[:400]:
        ids, weights = encoded(own, tokenizer, 5)
        assert len(ids) == len(weights) and set(weights) <= {0, 1, 5}
        start = weights.count(0)
        assert set(weights[:start]) == {0} and ids[start - 1] == ASSISTANT and ids[-1] == EOS
        told = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w == 5], skip_special_tokens=False)
        for name, kwargs in zip(own.instructions, own.kwargs, strict=True):
            if name == "simple:include_word":
                assert kwargs["word"].lower() in told.lower()
            if name == "simple:end_mark":
                assert told.endswith(f"{kwargs['mark']}<|eos|>")
        if not {"simple:include_word", "simple:end_mark"} & set(own.instructions):
            assert not told
        heavy[own.instructions] += weights.count(5)
    assert heavy["simple:end_mark",] and heavy["simple:include_word",] and not heavy["simple:quotes",]


def test_the_model_reads_a_taught_prompt_as_it_was_taught(tokenizer: Tokenizer, taught: list[Lesson]) -> None:
    (row,) = load().token_rows([taught[0].prompt], chat=True)
    assert row == [BOS, USER, *tokenizer.encode(taught[0].prompt).ids, ASSISTANT]

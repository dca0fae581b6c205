"""Odd texts put to everything that reads or measures texts: checkers, prompts, templates, metrics."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex
from hypothesis import strategies as st
from transformers import AutoTokenizer

from steerlab.data import (
    corrupt_tokens,
    degrade_text,
    degraded_pairs,
    language,
    learn_endings,
    normalise_surface,
    overlap_report,
    texts_sha256,
)
from steerlab.data.leakage import normalise
from steerlab.data.multiple_choice import MultipleChoice, parse, parse_all
from steerlab.data.plain import join_wrapped, split_sentences
from steerlab.evaluation.copying import copy_report
from steerlab.evaluation.diversity import (
    compression_ratio,
    distinct_n,
    diversity_report,
    duplicate_rate,
    moving_type_token_ratio,
    ngram_diversity,
    self_bleu,
    vendi_score,
)
from steerlab.evaluation.language import LABELS, UNDETERMINED, identify, language_share
from steerlab.evaluation.ngrams import ngram_report
from steerlab.evaluation.repetition import longest_loop, repetition_rate, repetition_report
from steerlab.evaluation.table import markdown, metrics_table
from steerlab.evaluation.words import words
from steerlab.following import CHECKERS, PHRASINGS, check, count_sentences, count_words, find_checker, instruct
from steerlab.following import split_sentences as checked_sentences
from steerlab.following.counting import capital_words, count_sentences_anywhere
from steerlab.loading import bundled_path
from steerlab.report.pairs import marked
from steerlab.stopping import cut
from steerlab.tasks import EXPERT_TASKS, TASKS, postprocess, prompt
from steerlab.templates import Template, choose_template
from tests import odd_texts as odd
from tests.fuzz import Target
from tests.test_following_registry import ARGUMENTS
from tests.test_following_registry import OWN as SIMPLE
from tests.tiny import tokenizer

# ---- checkers

SAMPLES: dict[str, dict[str, Any]] = {
    **{name: {} for name in CHECKERS},
    **ARGUMENTS,
    **{name: own[0] for name, own in SIMPLE.items()},
}


@st.composite
def _asked(draw: st.DrawFn, name: str) -> tuple[str, dict[str, Any], str]:
    given = SAMPLES[name]
    values = st.one_of(odd.TEXTS, odd.NUMBERS, st.lists(odd.TEXTS, max_size=3), odd.JSON)
    changed = {key: draw(values) if draw(st.integers(0, 2)) == 0 else value for key, value in given.items()}
    if draw(st.integers(0, 9)) == 0:
        changed[draw(odd.SHORT)] = draw(odd.JSON)
    return name, changed, draw(odd.TEXTS)


def _check(example: tuple[str, dict[str, Any], str], folder: Path) -> None:
    name, kwargs, answer = example
    strict, loose = check(name, kwargs, answer), check(name, kwargs, answer, "loose")
    assert loose.passed >= strict.passed and strict.passed == (strict.reason == "")
    assert strict.variant == "as written" and str(strict).startswith(name)
    assert answer.strip() or not strict.passed


def _find_checker(name: str, folder: Path) -> None:
    assert find_checker(name).id == name


@st.composite
def _phrase(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    name = draw(st.sampled_from(list(PHRASINGS)))
    _, kwargs, base = draw(_asked(name))
    return base, name, kwargs


def _instruct(example: tuple[str, str, dict[str, Any]], folder: Path) -> None:
    base, name, kwargs = example
    assert instruct(base, name, kwargs).startswith(base + " ")


# ---- counting, and texts taken apart


def _count(text: str, folder: Path) -> None:
    assert count_words(text) >= len(text.split()) * 0 and all(word.isupper() for word in capital_words(text))
    parts = checked_sentences(text)
    assert len(parts) == count_sentences(text) and "".join("".join(parts).split()) == "".join(text.split())
    assert count_sentences_anywhere(text) >= 0 and (count_sentences(text) == 0) == (not text.strip())
    assert all(word == word.casefold() and word for word in words(text))
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
    assert all(line.strip() for line in join_wrapped(text.split("\n")))


def _surface(text: str, folder: Path) -> None:
    assert normalise_surface(normalise_surface(text)) == normalise_surface(text)
    assert normalise(normalise(text)) is not None
    left, right = marked(text, text[::-1])
    assert "".join(piece for piece, _ in left) == (text if text else "") and "".join(p for p, _ in right) == text[::-1]


def _corrupt(example: tuple[list[str], float], folder: Path) -> None:
    texts, rate = example
    endings = learn_endings(texts)
    for text in texts:
        degrade_text(text, endings, seed=1)
        if text.strip() and 0 <= rate <= 1:
            assert corrupt_tokens(text, rate) and corrupt_tokens(text, 0.0) == " ".join(text.split())
    for pair in degraded_pairs(texts, rate):
        assert pair.human != pair.degraded and pair.human


def _question(example: tuple[list[str], str], folder: Path) -> None:
    parts, answer = example
    parse_all(parts)
    made = MultipleChoice(parts[0], tuple(parts[1:6]), answer).render()
    found = parse(made)
    assert found.render() == made


# ---- measures


def _finite(value: float, low: float, high: float = math.inf) -> None:
    assert math.isnan(value) or low - 1e-9 <= value <= high + 1e-9, value


def _measure(texts: list[str], folder: Path) -> None:
    for n in (1, 2, 4):
        _finite(distinct_n(texts, n), 0, 1)
    for measure in (moving_type_token_ratio, ngram_diversity, self_bleu, duplicate_rate):
        _finite(measure(texts), 0, 1)
    _finite(duplicate_rate(texts, 0.8), 0, 1)
    _finite(compression_ratio(texts), 0)
    for text in texts:
        _finite(repetition_rate(text), 0, 1)
        assert 0 <= longest_loop(text) <= len(words(text))
    for guess in identify(texts):
        assert (guess.language in LABELS and 0 <= guess.probability <= 1.01) or guess.language == UNDETERMINED


def _reports(texts: list[str], folder: Path) -> None:
    found = {**diversity_report(texts, subsets=10), **repetition_report(texts), "share": language_share(texts, "jv")}
    found |= copy_report(texts, texts[:1]) | ngram_report(texts, texts[::-1], subsets=10)
    assert all(math.isnan(e.value) == bool(e.reason) or not math.isnan(e.value) for e in found.values())
    place = {"language": "jv", "task": "topic", "condition": texts[0] if texts else ""}
    assert markdown(metrics_table([{**place, "metric": name, "estimate": e} for name, e in found.items()]))


def _overlap(example: tuple[list[str], list[str]], folder: Path) -> None:
    first, second = example
    found = overlap_report({"a": first, "b": second})
    same = {normalise(text) for text in first} & {normalise(text) for text in second}
    assert found.clean <= (not any(len(text) >= 20 for text in same)) and found.to_json().encode()


def _hash(texts: list[str], folder: Path) -> None:
    assert texts_sha256(texts) == texts_sha256(texts[::-1])


@st.composite
def _rows(draw: st.DrawFn) -> np.ndarray:
    n, d = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    number = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, 1e300, 1e-320, math.inf, math.nan]))
    return np.array([[draw(number) for _ in range(d)] for _ in range(n)], dtype=float).reshape(n, d)


def _vendi(rows: np.ndarray, folder: Path) -> None:
    _finite(vendi_score(rows), 1, max(len(rows), 1))


# ---- prompts and templates


@st.composite
def _prompted(draw: st.DrawFn) -> tuple[str, str, str | None, list[str]]:
    known = {**TASKS, **EXPERT_TASKS}
    wrong = draw(st.sampled_from(["", "", "", "task", "label", "language"]))
    name = draw(odd.SHORT if wrong == "task" else st.sampled_from(list(known)))
    label = draw(
        odd.SHORT if wrong == "label" else st.sampled_from(known[name].labels if name in known else ("travel",))
    )
    code = draw(odd.SHORT if wrong == "language" else st.one_of(st.none(), st.sampled_from(["jv", "am", "he"])))
    return name, label, code, draw(odd.LISTS)


def _prompt(example: tuple[str, str, str | None, list[str]], folder: Path) -> None:
    name, label, code, examples = example
    text = prompt(name, label, code, examples)
    assert label in text and all(" ".join(own.split()) in text for own in examples)
    assert code is None or "Generate" not in text or language(code).name in text
    for own in examples:
        done = postprocess(own, name)
        assert postprocess(done, name) == done


@functools.cache
def _tokenizers() -> tuple[Any, ...]:
    return tokenizer(), tokenizer(bos=False, chat=False), AutoTokenizer.from_pretrained(str(bundled_path()))


def _tokens(text: str, folder: Path) -> None:
    for own in _tokenizers():
        for template in (Template(), Template("plain", "{prompt}"), *([Template("chat")] if own.chat_template else [])):
            (bare,) = template.token_rows(own, [text], chat=False)
            (chat,) = template.token_rows(own, [text], chat=True)
            assert max([*bare, *chat], default=0) < len(own)
            special = "<|bos|>" in text or "<s>" in text  # chat text may hold special tokens
            assert special or [*bare, *chat].count(own.bos_token_id) <= 2
    (ids,) = Template().token_rows(_tokenizers()[0], [text], chat=False)
    known = regex.search(r"<\|\w+\|>", text)  # the words of special tokens are those tokens
    assert known or _tokenizers()[0].decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


@st.composite
def _jinja(draw: st.DrawFn) -> tuple[str, str]:
    piece = st.sampled_from(
        ["{{ messages[0]['content'] }}", "{{ bos_token }}", "{% for m in messages %}", "{% endfor %}", "{{ raise_exception('no') }}",
         "{{ messages[9]['content'] }}", "{{ 1/0 }}", "{{ ''.__class__ }}", "{% if x %}", "{{ undefined.a.b }}", "{{", "%}", "x",
         "{% include 'a' %}", "{{ messages | tojson }}", "{{ range(10**9) | list }}", "{{ strftime_now('%Y') }}"]
    )  # fmt: skip
    return "".join(draw(st.lists(piece, min_size=1, max_size=4))), draw(odd.TEXTS)


def _chat(example: tuple[str, str], folder: Path) -> None:
    source, text = example
    own = tokenizer()
    own.chat_template = source
    template = choose_template(own, "chat")
    (ids,) = template.token_rows(own, [text], chat=True)
    assert all(0 <= i < len(own) for i in ids) and len(template.digest(own)) == 64


def _plain(example: tuple[str, str], folder: Path) -> None:
    wanted, text = example
    template = choose_template(tokenizer(), wanted)
    assert template.kind == "chat" or text in template.render(tokenizer(), text)


def _stopped(example: tuple[str, Sequence[str]], folder: Path) -> None:
    text, stop = example
    found = cut(text, [own for own in stop if own])
    assert found in text and all(own not in found for own in stop if own)


def _language(name: str, folder: Path) -> None:
    assert language(name).code


WANTED = st.one_of(
    st.sampled_from(["auto", "chat", "plain", "{prompt}", "a{prompt}{prompt}", "{", "{prompt"]), odd.TEXTS
)
QUESTION = st.tuples(st.lists(odd.TEXTS, min_size=6, max_size=6), st.one_of(st.sampled_from("ABCDE"), odd.SHORT))
TARGETS = [
    *(Target("checkers", name, "odd answers and arguments", _asked(name), _check, 0.5) for name in CHECKERS),
    Target("checkers", "name of a checker", "odd names", st.one_of(st.sampled_from(list(CHECKERS)), odd.SHORT), _find_checker),
    Target("checkers", "instruction in words", "odd requests and arguments", _phrase(), _instruct),
    Target("texts", "words and sentences", "odd texts", odd.TEXTS, _count, 3, refuses=False),
    Target("texts", "surface and differences", "odd texts", odd.TEXTS, _surface, refuses=False),
    Target("texts", "corruption", "odd texts and rates", st.tuples(odd.LISTS, st.one_of(st.just(0.3), odd.NUMBERS.map(float))), _corrupt),
    Target("texts", "multiple choice", "odd questions, choices and answers", QUESTION, _question),
    Target("texts", "overlap of two sets", "odd texts", st.tuples(odd.LISTS, odd.LISTS), _overlap, 0.5, refuses=False),
    Target("texts", "hash of texts", "odd texts", odd.LISTS, _hash),
    Target("metrics", "single measures", "sets of odd texts", odd.LISTS, _measure, 1, refuses=False),
    Target("metrics", "reports", "sets of odd texts", odd.LISTS, _reports, 0.2),
    Target("metrics", "Vendi score", "odd matrices", _rows(), _vendi),
    Target("prompts", "prompt of a task", "odd tasks, labels, languages, examples", _prompted(), _prompt),
    Target("prompts", "token ids", "odd texts, three tokenizers, chat and plain", odd.TEXTS, _tokens, 0.7),
    Target("prompts", "chat template", "odd Jinja and texts", _jinja(), _chat, 0.7),
    Target("prompts", "plain template", "odd templates and texts", st.tuples(WANTED, odd.TEXTS), _plain, 0.3),
    Target("prompts", "stop texts", "odd answers and stop texts", st.tuples(odd.TEXTS, odd.LISTS), _stopped, refuses=False),
    Target("prompts", "name of a language", "odd names", st.one_of(st.sampled_from(["jv", "he", "iw"]), odd.SHORT), _language),
]  # fmt: skip

"""The sample set that ships: balanced, parallel in twelve languages, each in its own script, and clean to the character."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from importlib import resources

import pytest

from steerlab.data.languages import LANGUAGES
from steerlab.tasks import TASKS

Row = dict[str, str]
FOLDER = resources.files("steerlab.bundled") / "samples"
LENGTH = (25, 140)  # characters; Ethiopic and Hebrew pack a sentence into fewer than Latin script does
RATIO = (0.7, 1.4)
PER_LABEL, PAIRS = 6, 12


def _read(name: str) -> list[Row]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


SENTENCES = _read("sentences.jsonl")
CONTRAST = _read("contrast.jsonl")


def _of(rows: list[Row], code: str) -> list[Row]:
    return [row for row in rows if row["language"] == code]


def _texts(code: str) -> list[str]:
    """Every text in the language: the sentences, then both sides of the pairs."""
    sides = [row[side] for row in _of(CONTRAST, code) for side in ("human", "degraded")]
    return [row["text"] for row in _of(SENTENCES, code)] + sides


def text_faults(text: str, script: str) -> list[str]:
    """What is wrong with a text in its characters alone; empty when nothing is."""
    foreign = {c for c in text if c.isalpha() and not unicodedata.name(c).startswith(script.upper())}
    marks = {c for c in text if unicodedata.category(c) in ("Mn", "Cc", "Cf", "Co", "Cn")}
    checks = {
        "not NFC": not unicodedata.is_normalized("NFC", text),
        "stray white space": text != " ".join(text.split()),
        "letters of another script": bool(foreign),
        "no letter at all": not any(c.isalpha() for c in text),
        "a mark or control character": bool(marks),
        "length": not LENGTH[0] <= len(text) <= LENGTH[1],
        "no full stop": text[-1:] not in {".", "።"},
    }
    return [fault for fault, found in checks.items() if found]


def pair_faults(human: str, degraded: str) -> list[str]:
    """What keeps a pair from being a fair contrast; empty when nothing does."""
    ratio = len(degraded) / len(human)
    checks = {
        "the same": human.casefold() == degraded.casefold(),
        "length ratio": not RATIO[0] <= ratio <= RATIO[1],
        "different final punctuation": human[-1] != degraded[-1],
    }
    return [fault for fault, found in checks.items() if found]


def test_the_rows_are_complete_and_in_order():
    assert len(SENTENCES) == 648 and len(CONTRAST) == 144
    for rows, fields in (
        (SENTENCES, ["id", "task", "label", "language", "text"]),
        (CONTRAST, ["id", "language", "human", "degraded"]),
    ):
        assert all(list(row) == fields and all(isinstance(v, str) for v in row.values()) for row in rows)
        languages = [row["language"] for row in rows]
        assert languages == sorted(languages) and set(languages) == set(LANGUAGES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_six_sentences_a_label_and_twelve_pairs(code: str):
    counts = Counter((row["task"], row["label"]) for row in _of(SENTENCES, code))
    assert counts == {(task.name, label): PER_LABEL for task in TASKS.values() for label in task.labels}
    assert len(_of(CONTRAST, code)) == PAIRS


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_same_id_names_the_same_content_in_every_language(code: str):
    rows, english = _of(SENTENCES, code), _of(SENTENCES, "en")
    key = [(row["id"], row["task"], row["label"]) for row in rows]
    assert key == [(row["id"], row["task"], row["label"]) for row in english]
    assert [row["id"] for row in _of(CONTRAST, code)] == [row["id"] for row in _of(CONTRAST, "en")]


@pytest.mark.parametrize("code", LANGUAGES)
def test_ids_are_unique_and_spell_out_task_label_and_number(code: str):
    seen: Counter[tuple[str, str]] = Counter()
    for row in _of(SENTENCES, code):
        seen[row["task"], row["label"]] += 1
        number = seen[row["task"], row["label"]]
        assert row["id"] == f"{row['task']}-{row['label'].replace('/', '-')}-{number:02d}"
    ids = [row["id"] for row in _of(SENTENCES, code) + _of(CONTRAST, code)]
    assert len(set(ids)) == len(ids)
    assert [row["id"] for row in _of(CONTRAST, code)] == [f"contrast-{n:02d}" for n in range(1, PAIRS + 1)]


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_text_occurs_twice_in_a_language(code: str):
    texts = [text.casefold() for text in _texts(code)]
    assert [text for text, n in Counter(texts).items() if n > 1] == []


def test_no_text_is_shared_by_two_languages():
    owners = Counter(text.casefold() for code in LANGUAGES for text in set(_texts(code)))
    assert [text for text, n in owners.items() if n > 1] == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_texts_are_clean_and_in_the_script_of_their_language(code: str):
    faults = {text: found for text in _texts(code) if (found := text_faults(text, LANGUAGES[code].script))}
    assert faults == {}


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_pairs_differ_in_wording_and_little_in_length(code: str):
    rows = _of(CONTRAST, code)
    assert {r["id"]: f for r in rows if (f := pair_faults(r["human"], r["degraded"]))} == {}


GOOD = "The river rises in the mountains."


@pytest.mark.parametrize(
    ("text", "script", "fault"),
    [
        (GOOD + " ", "Latin", "stray white space"),
        (GOOD.replace(" ", "  ", 1), "Latin", "stray white space"),
        (GOOD.replace(" ", "\u00a0", 1), "Latin", "stray white space"),
        (GOOD.replace("i", "i\u0301", 1), "Latin", "not NFC"),
        (GOOD.replace("i", "\u0456", 1), "Latin", "letters of another script"),
        (GOOD, "Hebrew", "letters of another script"),
        (GOOD.replace("r", "r\u200f", 1), "Latin", "a mark or control character"),
        ("נהר זורם מן הה\u05b8רים אל הים הגדול.", "Hebrew", "a mark or control character"),
        ("12345 67890 12345 67890 12345.", "Latin", "no letter at all"),
        ("Too short.", "Latin", "length"),
        (GOOD * 5, "Latin", "length"),
        (GOOD[:-1], "Latin", "no full stop"),
    ],
)
def test_a_flaw_in_a_text_is_caught(text: str, script: str, fault: str):
    assert text_faults(GOOD, "Latin") == []
    assert fault in text_faults(text, script)


@pytest.mark.parametrize(
    ("degraded", "fault"),
    [
        (GOOD, "the same"),
        (GOOD.upper(), "the same"),
        ("It rises.", "length ratio"),
        ("The the river it does rise in of the mountains up.", "length ratio"),
        ("The river in mountains the rise!", "different final punctuation"),
    ],
)
def test_a_flaw_in_a_pair_is_caught(degraded: str, fault: str):
    assert pair_faults(GOOD, "The river rise in the mountain.") == []
    assert fault in pair_faults(GOOD, degraded)

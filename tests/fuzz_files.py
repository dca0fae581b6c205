"""Files of texts as people, other programs and bad disks leave them."""

from __future__ import annotations

import csv
import functools
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from steerlab.data import (
    SOURCES,
    comments,
    english,
    files,
    ifeval,
    labelled,
    load,
    parallel,
    plain,
    read_texts,
    reading,
)
from tests import odd_texts as odd
from tests.fuzz import Target

Cells = list[list[str]]
CELLS = st.lists(st.lists(odd.WHOLE, min_size=1, max_size=3), max_size=5)


def _whole(texts: Any) -> None:
    """Texts that a loader gives can be hashed, stored and shown."""
    for text in texts:
        assert isinstance(text, str) and text.strip()
        text.encode()


def table(rows: Cells, columns: tuple[str, ...], suffix: str) -> str:
    """Rows of cells, taken in turn where there are fewer than columns, as text of one of the formats that are read."""
    full = [[row[i % len(row)] for i in range(len(columns))] for row in rows]
    if suffix == ".txt":
        return "\n".join(row[0] for row in full)
    if suffix == ".jsonl":
        return "\n".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in full)
    if suffix == ".tsv":
        return "\n".join("\t".join(row) for row in [list(columns), *full])
    out = io.StringIO(newline="")
    returns = any(
        "\r" in cell for row in full for cell in row
    )  # ends a line where it is not quoted, and the writer does not see to it
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    csv.writer(out, lineterminator="\n", quoting=quoting).writerows([list(columns), *full])
    return out.getvalue()


# ---- texts of one's own


@st.composite
def _own_texts(draw: st.DrawFn) -> tuple[str, bytes, bool, list[str]]:
    suffix = draw(st.sampled_from(files.SUFFIXES))
    rows = draw(CELLS)
    text = table(rows, ("text", "label"), suffix)
    if draw(st.integers(0, 5)) == 0:
        text += "\n" + draw(odd.BROKEN_JSON)
    data = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])))
    whole = draw(st.booleans())
    return suffix, data if whole else draw(odd.damaged(data)), draw(st.booleans()), [row[0] for row in rows]


def _read_own(example: tuple[str, bytes, bool, list[str]], folder: Path) -> None:
    suffix, data, labelled_too, _ = example
    path = folder / f"given{suffix}"
    path.write_bytes(data)
    found = read_texts(path, label_column="label" if labelled_too else None)
    _whole(found)
    assert len(found.sha256) == 64 and (found.labels is None or len(found.labels) == len(found))
    assert found.labels is None or all(label.strip() for label in found.labels)


@st.composite
def _kept_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    suffix = draw(st.sampled_from((".jsonl", ".csv")))
    texts = draw(st.lists(odd.WHOLE.filter(lambda text: text.strip()), min_size=1, max_size=5))
    return suffix, [text.replace("\r\n", "\n") for text in texts]


def _round_trip(example: tuple[str, list[str]], folder: Path) -> None:
    suffix, texts = example
    path = folder / f"given{suffix}"
    path.write_text(table([[text] for text in texts], ("text",), suffix), encoding="utf-8", newline="")
    assert list(read_texts(path)) == [text.replace("\r\n", "\n").strip() for text in texts]


# ---- the registered data sets

READERS = (labelled, parallel, plain, english, comments, ifeval)
SPECIAL = st.one_of(
    st.sampled_from(['["cat"]', "[]", "{}", "null", '{"label": ["A"], "text": ["x"]}', "1", "-2.5", "nan", "positive", "A"]),
    st.sampled_from(['["keywords:existence"]', '[{"keywords": ["cat"]}]', '["language:response_language"]', "[{}]", "True"]),
    odd.BROKEN_JSON,
)  # fmt: skip


@st.composite
def _source(draw: st.DrawFn, name: str) -> tuple[str, str, Cells, bool, int]:
    source = SOURCES[name]
    row = st.lists(st.one_of(odd.WHOLE, SPECIAL), min_size=1, max_size=5)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    damage = draw(st.integers(0, 3)) == 0
    return (
        draw(st.sampled_from(source.languages)),
        draw(st.sampled_from(source.splits)),
        rows,
        damage,
        draw(st.integers(0, 99)),
    )


def _read_source(name: str, example: tuple[str, str, Cells, bool, int], folder: Path) -> None:
    code, split, rows, damage, at = example

    def read_rows(root: Path | None, asked: reading.Table) -> list[reading.Row]:
        path = folder / asked.local
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = ".jsonl" if asked.json_lines else ".txt" if asked.lines else ".csv" if asked.quoted else ".tsv"
        many = rows * (parallel.NTREX_LINES // len(rows) + 1) if name == "ntrex" else rows
        data = table(many, asked.columns, suffix)
        lines = "\n".join(data.split("\n")[: parallel.NTREX_LINES]) if name == "ntrex" else data
        raw = lines.encode()
        path.write_bytes(raw[: len(raw) - 1 - at % max(len(raw), 1)] if damage else raw)
        return reading.read_rows(root, asked)

    with ExitStack() as stack:
        for module in READERS:
            stack.enter_context(mock.patch.object(module, "read_rows", read_rows))
        found = load(name, code, split, root=folder, allow_offensive=True)
    _whole(found.texts)
    assert found.dropped >= 0 and all(own.language == code for own in found.examples) and found.describe()


_READ = "published files with odd cells, broken lines, cut off"
TARGETS = [
    Target("data", "texts of one's own", ".txt, .jsonl, .csv, .tsv: odd texts, encodings, damaged bytes", _own_texts(), _read_own),
    Target("data", "texts of one's own, round trip", "odd texts written as .jsonl and .csv", _kept_texts(), _round_trip, refuses=False),
    *(
        Target("data", f"data set {name}", _READ, _source(name), functools.partial(_read_source, name), 0.1 if name == "ntrex" else 0.4)
        for name in SOURCES
        if name != "sample"
    ),
]  # fmt: skip

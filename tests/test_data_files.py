"""Reading a user's own files, and the sentence each kind of bad file gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlab.data.corpus import texts_sha256
from steerlab.data.files import read_texts
from steerlab.errors import SteerlabError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


ROWS = [("Sugeng enjing, \u201ckanca\u201d.", "positive"), ('He said "no", twice.', "negative")]


def files(folder: Path) -> list[Path]:
    """The same two rows in every format that has columns."""
    quoted = [text.replace('"', '""') for text, _ in ROWS]
    return [
        write(folder, "a.jsonl", "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS)),
        write(
            folder,
            "a.csv",
            "label,text\n" + "".join(f'{y},"{t}"\n' for t, (_, y) in zip(quoted, ROWS, strict=True)),
        ),
        write(folder, "raw.tsv", "text\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in ROWS)),
        write(
            folder,
            "pandas.tsv",
            "text\tlabel\n" + "".join(f'"{t}"\t{y}\n' for t, (_, y) in zip(quoted, ROWS, strict=True)),
        ),
    ]


def test_every_format_gives_the_same_texts_and_labels(tmp_path: Path):
    for path in files(tmp_path):
        found = read_texts(path, label_column="label")
        assert found.texts == tuple(t for t, _ in ROWS), path.name
        assert found.labels == ("positive", "negative")
        assert (len(found), found[0], list(found)[1], found.dropped) == (2, ROWS[0][0], ROWS[1][0], 0)
        assert found.sha256 == texts_sha256(t for t, _ in ROWS)


def test_plain_text_has_one_text_a_line_and_drops_blank_ones(tmp_path: Path):
    found = read_texts(write(tmp_path, "a.txt", "one\n\n  two\u2028still two \n"))
    assert (found.texts, found.labels, found.dropped) == (("one", "two\u2028still two"), None, 1)


def test_byte_order_mark_and_crlf_leave_no_trace(tmp_path: Path):
    for name in ("a.csv", "a.tsv"):
        sep = "," if name.endswith("csv") else "\t"
        path = write(tmp_path, name, b"\xef\xbb\xbf" + f"text{sep}label\r\nsatu{sep}x\r\ndua{sep}y\r\n".encode())
        assert read_texts(path, label_column="label").labels == ("x", "y")
    assert read_texts(write(tmp_path, "a.txt", b"\xef\xbb\xbfsatu\r\ndua\r\n")).texts == ("satu", "dua")


def test_a_newline_inside_a_quoted_cell_stays(tmp_path: Path):
    assert read_texts(write(tmp_path, "a.csv", 'text\n"one\n\ntwo"\nthree\n')).texts == (
        "one\n\ntwo",
        "three",
    )


def test_rows_without_a_text_or_label_are_dropped_and_counted(tmp_path: Path):
    lines = [
        {"text": "a", "label": "x"},
        {"text": " ", "label": "x"},
        {"text": "c"},
        {"text": 7, "label": "x"},
    ]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert (read_texts(path).texts, read_texts(path).dropped) == (("a", "c"), 2)
    assert (read_texts(path, label_column="label").texts, read_texts(path, label_column="label").dropped) == (
        ("a",),
        3,
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"abc\xff\xfe", "not UTF-8: byte 0xff at offset 3"),
        ("a.csv", b"\xef\xbb\xbftext\n\xe9t\xe9\n", "byte 0xe9 at offset 8"),
        ("a.txt", b"", "is empty"),
        ("a.jsonl", b" \n\n", "is empty"),
        ("a.csv", b"id,body\n1,x\n", "no column 'text': its columns are id, body"),
        ("a.jsonl", b'{"body": "x"}\n', "no column 'text': its columns are body"),
        ("a.jsonl", b'{"text": "x"}\nnonsense\n', "line 2 is not JSON"),
        ("a.jsonl", b'["x"]\n', "line 1 is list, not an object"),
        ("a.csv", b"text,label\n,x\n", "has 1 rows and none is usable"),
        ("a.csv", b"text,label\n", "no column 'text': it has no rows"),
        ("a.pdf", b"text", "ends in '.pdf': give a file that ends in .txt, .jsonl, .csv, .tsv"),
    ],
)
def test_a_bad_file_gets_one_clear_sentence(tmp_path: Path, name: str, content: bytes, told: str):
    path = write(tmp_path, name, content)
    with pytest.raises(SteerlabError) as caught:
        read_texts(path)
    message = str(caught.value)
    assert told in message and str(path) in message and "\n" not in message


def test_a_missing_file_a_folder_and_labels_of_plain_text_are_told_apart(tmp_path: Path):
    with pytest.raises(SteerlabError, match="does not exist"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(SteerlabError, match="is a folder"):
        read_texts(tmp_path)
    with pytest.raises(SteerlabError, match=r"no column 'label': labels need \.jsonl"):
        read_texts(write(tmp_path, "a.txt", "x"), label_column="label")

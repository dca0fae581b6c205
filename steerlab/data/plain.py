"""Unlabelled treebank text, and the sample set written for this project."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

from steerlab.data.contrast import ContrastPair, ContrastPairs
from steerlab.data.corpus import Example, SourceCard
from steerlab.data.languages import language as find_language
from steerlab.data.reading import Table, read_rows
from steerlab.errors import SteerlabError

UD_TEXT = SourceCard(
    "ud-text",
    "https://github.com/jerbarnes/typology_of_crosslingual",
    None,
    "CC BY-SA 4.0 (sk, mt), CC BY-SA 3.0 (id)",
    "Universal Dependencies treebanks of Slovak, Maltese and Indonesian; Nivre et al. 2020, LREC",
)
SAMPLE = SourceCard(
    "sample",
    "steerlab/bundled/samples",
    None,
    "CC0-1.0",
    "sentences written for steerlab, shipped with it",
)
Found = tuple[list[Example], int]
WIDTH = 80
_END = re.compile(r"[.!?…][\"“”»')\]]*\s+(?=[\"„“»«'(\[–-]*\s?(?P<next>\w))")


def join_wrapped(lines: list[str]) -> list[str]:
    """Paragraphs of text wrapped at 80 columns: a line goes on where the next one's first word would not have fitted."""
    paragraphs: list[str] = []
    open_line = ""
    for line in (entry.strip() for entry in lines):
        if open_line and line and len(open_line) + 1 + len(line.split(" ", 1)[0]) > WIDTH:
            paragraphs[-1] += " " + line
        elif line:
            paragraphs.append(line)
        open_line = line
    return paragraphs


def split_sentences(text: str) -> list[str]:
    """Cut running text after . ! ? … (and closing quotes) where a capital or a digit follows, opening quotes apart."""
    sentences, start = [], 0
    for end in _END.finditer(text):
        following = end["next"]
        if following.isupper() or following.isdigit():
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    return [sentence for sentence in [*sentences, text[start:].strip()] if sentence]


def read_ud_text(root: Path | None, code: str, split: str) -> Found:
    """Treebank sentences of at least three words. The Slovak file is wrapped, so its lines are joined and split again.

    The files are extracted from the treebanks, one text per language; there is no download.
    """
    lines = [row["text"].strip() for row in read_rows(root, Table(f"ud_text/{code}.txt", ("text",), lines=True))]
    sentences = [s for paragraph in join_wrapped(lines) for s in split_sentences(paragraph)] if code == "sk" else lines
    kept = list(dict.fromkeys(s for s in sentences if len(s.split()) >= 3))
    examples = [Example(f"ud-{code}-{number}", text, None, code, "ud-text", split) for number, text in enumerate(kept)]
    return examples, len(sentences) - len(kept)


def _bundled(name: str) -> list[dict[str, str]]:
    file = resources.files("steerlab.bundled") / "samples" / name
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SteerlabError(f"the bundled sample set has no {name}: install the package again.") from None
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def read_sample(root: Path | None, code: str, split: str) -> Found:
    """The project's own labelled sentences, no download. Splits are the tasks: `topic`, `sentiment`, or `all`."""
    rows = [row for row in _bundled("sentences.jsonl") if row["language"] == code and split in ("all", row["task"])]
    return [Example(row["id"], row["text"], row["label"], code, "sample", split) for row in rows], 0


def load_sample_pairs(language: str | None = None) -> ContrastPairs:
    """The project's own human/degraded pairs, of one language or of all. Raises `SteerlabError` on an unknown language."""
    code = None if language is None else find_language(language).code
    rows = [row for row in _bundled("contrast.jsonl") if code is None or row["language"] == code]
    return ContrastPairs.of(ContrastPair(row["id"], row["human"], row["degraded"], "sample") for row in rows)

"""English data sets whose texts an expert learns to write: one-sentence claims of papers (SciTLDR) and CommonsenseQA."""

from __future__ import annotations

import hashlib
from pathlib import Path

from steerlab.data.corpus import Example, SourceCard
from steerlab.data.labelled import distinct
from steerlab.data.multiple_choice import LETTERS, MultipleChoice
from steerlab.data.reading import Hub, Table, read_rows
from steerlab.records import from_json

SCITLDR = SourceCard(
    "scitldr",
    "https://github.com/allenai/scitldr",
    "allenai/scitldr",
    "Apache-2.0",
    "Cachola et al. 2020, TLDR: Extreme Summarization of Scientific Documents, Findings of EMNLP",
)
COMMONSENSE = SourceCard(
    "commonsense-qa",
    "https://www.tau-nlp.org/commonsenseqa",
    "tau/commonsense_qa",
    "MIT",
    "Talmor et al. 2019, CommonsenseQA: A Question Answering Challenge Targeting Commonsense Knowledge, NAACL",
)
RAW = "https://raw.githubusercontent.com"
SCITLDR_PIN = f"{RAW}/allenai/scitldr/5ccad9c00a60ad75c9e04abf7f27d0f53f983b20/SciTLDR-Data/SciTLDR-A"
COMMONSENSE_PIN = f"{RAW}/lionzwarrior/llm-benchmark/8866ece85533b6532bdf67f9258e88a9902dcf40"
# The row of `test` equal to one of an earlier split (found by `leakage.overlap_report`).
SCITLDR_NEAR = frozenset({"scitldr-S1lFD4HnnE"})

Found = tuple[list[Example], int]


def split_of(key: str) -> str:
    """The split a row belongs to by a hash of its key: 80 % train, 10 % valid, 10 % test."""
    share = int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def read_scitldr(root: Path | None, code: str, split: str) -> Found:
    """The authors' own one-sentence claim of each of 1,237 papers, made to end with a full stop; ids are OpenReview's.

    These are upstream's `dev` and `test` papers, split anew by paper, which makes a train split about the size of the 1,000
    hypotheses of O'Neill et al. (arXiv 2308.07645); upstream's 1,992 `train` papers are left for further use.
    """
    found = []
    for file in ("dev", "test"):
        table = Table(
            f"scitldr/{file}.jsonl", ("paper_id", "target"), json_lines=True, url=f"{SCITLDR_PIN}/{file}.jsonl"
        )
        for row in read_rows(root, table):
            if split_of(row["paper_id"]) == split:
                claim = " ".join(from_json(row["target"])[0].split()).rstrip(" .")
                text = claim if not claim or claim[-1] in "?!" else f"{claim}."
                found.append(Example(f"scitldr-{row['paper_id']}", text, None, code, "scitldr", split))
    kept, dropped = distinct(example for example in found if example.id not in SCITLDR_NEAR)
    return kept, dropped + sum(example.id in SCITLDR_NEAR for example in found)


def read_commonsense(root: Path | None, code: str, split: str) -> Found:
    """The 1,221 questions of the official validation split, each one line with its choices and answer (`MultipleChoice.render`).

    The label is the letter of the answer. The official test split has no answers, and its train split is left for further use.
    """
    table = Table(
        "commonsense_qa/dev_rand_split.jsonl",
        ("id", "question", "choices", "answerKey"),
        json_lines=True,
        hub=Hub("tau/commonsense_qa", "validation"),
        url=f"{COMMONSENSE_PIN}/dev_rand_split.jsonl",
    )
    found = []
    for row in read_rows(root, table):
        if split_of(row["id"]) == split:
            given = from_json(row["choices"])
            choices = dict(zip(given["label"], given["text"], strict=True))
            item = MultipleChoice(row["question"], tuple(choices[letter] for letter in LETTERS), row["answerKey"])
            name = f"commonsense-qa-{row['id']}"
            found.append(Example(name, item.render(), item.answer, code, "commonsense-qa", split))
    return distinct(found)

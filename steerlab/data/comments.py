"""Toxic and non-toxic comments: offensive text, read only where the caller allows it and never printed without being asked."""

from __future__ import annotations

from pathlib import Path

from steerlab.data.corpus import Example, SourceCard
from steerlab.data.english import split_of
from steerlab.data.labelled import distinct
from steerlab.data.leakage import normalise
from steerlab.data.reading import Table, read_rows

TOXIC_COMMENTS = SourceCard(
    "toxic-comments",
    "https://github.com/ipavlopoulos/toxic_spans",
    None,
    "CC0-1.0",
    "Pavlopoulos et al. 2021, SemEval-2021 Task 5: Toxic Spans Detection; comments: Borkan et al. 2019, Civil Comments",
)
PIN = "https://raw.githubusercontent.com/ipavlopoulos/toxic_spans/beaf170538df8275c3447b2e26070f2f82e55272/data"
# Comments of `valid` and `test` nearly equal to one of an earlier split (found by `leakage.overlap_report`).
NEAR = frozenset(
    (
        *(274775, 385806, 462520, 665049, 796656, 830234, 939279, 960795, 971048, 4983633, 5001925, 5150486, 5194330),
        *(5381247, 5419102, 5447877, 5454950, 5460701, 5564870, 5592721, 6099624, 6103063, 6193873, 6213469, 6248143),
    )
)

Found = tuple[list[Example], int]


def redacted(text: str) -> str:
    """What stands in place of an offensive text: its length, and how to see it."""
    return f"[{len(text)} characters, hidden: --offensive shows them]"


def read_comments(root: Path | None, code: str, split: str) -> Found:
    """Comments with the label most annotators gave: `non-toxic` where more than half said so, `toxic` where fewer than half did.

    Ties are dropped. All 16,100 had been called toxic by raters before, so the non-toxic ones are of rough tone as well. White space
    becomes single spaces and the mark `###` goes. Splits by a hash of the normalised text: equal comments stay together.
    """
    votes: dict[str, list[bool]] = {}
    for row in read_rows(root, _table("annotations", ("comment_id", "not toxic"))):
        votes.setdefault(row["comment_id"], []).append(row["not toxic"].strip() == "True")
    found, dropped = [], 0
    for row in read_rows(root, _table("comments", ("comment_id", "comment_text"))):
        text = " ".join(row["comment_text"].replace("###", " ").split())
        if split_of(normalise(text)) != split:
            continue
        name, own = row["comment_id"], votes.get(row["comment_id"], [])
        share = sum(own) / len(own) if own else 0.5
        if share == 0.5:
            dropped += 1
            continue
        label = "non-toxic" if share > 0.5 else "toxic"
        found.append(Example(f"toxic-comments-{name}", text, label, code, "toxic-comments", split))
    kept, repeated = distinct(found)
    apart = [example for example in kept if int(example.id.rsplit("-", 1)[1]) not in NEAR]
    return apart, dropped + repeated + len(kept) - len(apart)


def _table(name: str, columns: tuple[str, ...]) -> Table:
    return Table(f"toxic_comments/{name}.csv", columns, url=f"{PIN}/{name}.csv")

"""Write formats.md from the tables of `python -m tests.fuzz` and `python -m tests.formats` (tested to be up to date)."""

from __future__ import annotations

import csv
from pathlib import Path

PAGE = Path(__file__).parent / "formats.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
AREAS = {
    "data": "Data",
    "vectors": "Vectors",
    "interop": "Files of other programs",
    "records": "Records and words of options",
    "runs": "Run folders, pages, data sets",
    "checkers": "Checkers of instructions",
    "texts": "Texts",
    "metrics": "Metrics",
    "prompts": "Prompts and templates",
    "commands": "Commands",
}
HEAD = """# Odd inputs, and formats

<!-- Written by docs/formats.py from benchmarks/results/fuzz.csv and formats.csv: change it there and run it again. -->

Two promises and what they were tried with.

**An odd input is read right or refused in one sentence.** Never a traceback, never half a file, never a file outside the folder
that was named. The inputs are drawn by [hypothesis](https://hypothesis.readthedocs.io): texts in the scripts of all twelve languages and
others, right-to-left marks, combining marks, emoji, NUL, half characters, blanks of every kind, very long lines; JSON with values of
another kind in every place; files cut off, overwritten, with headers that promise too much; names that lead out of a folder.
*Right* means that what a reader let through also holds what the module promises: texts that can be stored, vectors that can be saved and
read again, shares between 0 and 1, a page that runs no script but its own, a loose check that passes whenever the strict one does.

**What other programs write is read as they mean it, and the other way round.** Each row names the version of the real package.
"""
AGAIN = """## Once more

```bash
python -m tests.fuzz --inputs 45     # the table above: every target, less where one input takes long; 2000 takes hours
python -m tests.formats              # the tests of the formats, with the packages that are there
python docs/formats.py               # this page
```

`make test` puts a few dozen inputs to every target, the same ones every time; `STEERLAB_FUZZ=20000 make test PYTEST_ARGS='-k test_fuzz'`
many new ones. What was found is kept as an ordinary test (`tests/test_found_by_fuzzing.py`).

## The same again: determinism

The same seed writes the same bytes: `tests/test_reproduce.py` repeats runs from their folders, `tests/test_store_crash.py` kills them at
random and compares. Another batch size or another order of the rows gives the same texts, because the noise of a token depends on (seed,
sample, step, token) alone: `tests/test_generation.py` and `tests/test_sampling.py`. Matrix products in float32 add up in another order on
other hardware, with other numbers of threads, and in batches of another width; where two tokens are nearly equally likely that can
change a text. A run records versions, device and threads, and `steerlab reproduce` names the ones that differ.

## Secrets

Keys in the environment (`HF_TOKEN`, `NDIF_API_KEY` and others) are never written: `tests/test_secrets.py` fits, writes, reports,
exports and repeats with keys set, and looks for them in every byte of every file, in what was printed and in the log. Fields of a
configuration that are called token, secret, password or key, and texts that look like one, are hidden on the report's page.
"""


def _rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _fuzz() -> str:
    rows = _rows("fuzz.csv")
    numbers = ("inputs", "right", "refused", "crashes")

    def total(own: list[dict[str, str]]) -> list[str]:
        return [f"{sum(int(row[name]) for row in own):,}" for name in numbers]

    head = ("what is read or called", "targets", *numbers)
    areas = [
        [title, str(len(own)), *total(own)]
        for key, title in AREAS.items()
        if (own := [r for r in rows if r["area"] == key])
    ]
    parts = ["## Inputs, refusals, crashes", _table(head, [*areas, ["**all**", str(len(rows)), *total(rows)]])]
    parts.append("Every target:")
    parts.append(
        _table(
            ("target", "given", *numbers),
            [[r["target"], r["given"], *(f"{int(r[n]):,}" for n in numbers)] for r in rows],
        )
    )
    return "\n\n".join(parts)


def _formats() -> str:
    rows = []
    for row in _rows("formats.csv"):
        ends = [f"{row[name]} {name}" for name in ("passed", "skipped", "failed") if row[name] != "0"]
        version = f"{row['package']} {row['version']}".strip() if row["version"] else "not installed"
        rows.append([row["program"], row["file"], row["read"], row["written"], version, row["what"], ", ".join(ends)])
    return "## Formats\n\n" + _table(
        ("program", "file", "read", "written", "tried with", "what was seen", "tests"), rows
    )


def page() -> str:
    """The whole page."""
    return "\n\n".join(part.strip() for part in (HEAD, _fuzz(), _formats(), AGAIN)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)

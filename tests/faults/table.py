"""The faults as a table: docs/faults.csv, and the part of docs/reliability.md between two marks."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tests import walls
from tests.faults.cells import FAULTS, Row

CSV, PAGE = walls.ROOT / "docs" / "faults.csv", walls.ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: written by python -m tests.faults -->", "<!-- end of faults -->"
COLUMNS = ("command", "fault", "injected", "survived", "lost")


def write(rows: Sequence[Row]) -> None:
    """The table as a file, and in the page."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([COLUMNS, *((r.command, r.fault, r.injected, r.survived, len(r.lost)) for r in rows)])
    CSV.write_text(out.getvalue(), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n\n{markdown()}\n\n{END}{tail}", encoding="utf-8")


def read() -> list[dict[str, str]]:
    """The rows of the file."""
    return list(csv.DictReader(io.StringIO(CSV.read_text(encoding="utf-8"))))


def markdown() -> str:
    """A line per command, a column per fault with survived / injected, and the sums."""
    rows = read()
    commands = list(dict.fromkeys(row["command"] for row in rows))
    found = {(row["command"], row["fault"]): (int(row["survived"]), int(row["injected"])) for row in rows}
    lines = [f"| command | {' | '.join(FAULTS)} | lost |", f"| --- |{' ---: |' * (len(FAULTS) + 1)}"]
    for name in commands:
        lines.append(_line(f"`{name}`", [found.get((name, fault), (0, 0)) for fault in FAULTS]))
    every = [[found.get((name, fault), (0, 0)) for name in commands] for fault in FAULTS]
    sums = [(sum(survived for survived, _ in own), sum(injected for _, injected in own)) for own in every]
    return "\n".join([*lines, _line("**all**", sums)])


def _line(name: str, cells: Sequence[tuple[int, ...]]) -> str:
    shown = [f"{survived} / {injected}" if injected else "–" for survived, injected in cells]
    return f"| {name} | {' | '.join(shown)} | {sum(injected - survived for survived, injected in cells)} |"

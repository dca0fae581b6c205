"""Run every fault on every long command: `python -m tests.faults` (some minutes) writes docs/faults.csv and its table in the page.

Cells that are done are kept in runs/faults.jsonl until the table is written, and done again only where they are named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}

import torch

from tests import walls
from tests.faults import table
from tests.faults.cells import FAULTS, Row, Subject, cell
from tests.faults.commands import call, held_models, jobs, prepare

KEPT = walls.ROOT / "runs" / "faults.jsonl"


def main() -> int:
    """The number of faults after which something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--command", action="append", help="only this command; repeatable")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this fault; repeatable")
    parser.add_argument("--serve", action="store_true", help="answer lines of JSON, [command, fault], with rows")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a fork of a process with threads is none
    with tempfile.TemporaryDirectory() as folder, held_models():
        place = Path(folder) / "place"
        prepare(place)
        subjects = {name: Subject(job, place) for name, job in jobs(place).items()}
        if given.serve:
            return serve(subjects)
        done = {(row.command, row.fault): row for row in kept()}
        for name in given.command or subjects:
            named = given.command or given.fault
            asked = [fault for fault in given.fault or FAULTS if named or (name, fault) not in done]
            if asked:
                warm(subjects[name])
            for fault in asked:
                row = done[name, fault] = cell(subjects[name], fault)
                print(f"{name}, {fault}: {row.survived} of {row.injected}", *row.lost, sep="\n  ", flush=True)
                KEPT.parent.mkdir(exist_ok=True)
                with KEPT.open("a", encoding="utf-8") as file:
                    print(json.dumps(row.to_json()), file=file)
        rows = [done[name, fault] for name in subjects for fault in FAULTS if (name, fault) in done]
        if len(rows) == len(subjects) * len(FAULTS):
            table.write(rows)
            KEPT.unlink()
    return sum(len(row.lost) for row in rows)


def kept() -> list[Row]:
    """The cells an earlier call has done."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []
    return [Row(**{**row, "lost": tuple(row["lost"])}) for row in map(json.loads, lines)]


def serve(subjects: dict[str, Subject]) -> int:
    """Answer the cells that are asked for on standard input, one line each."""
    warmed: set[str] = set()
    for line in sys.stdin:
        name, fault = json.loads(line)
        if name not in warmed:
            warm(subjects[name])
            warmed.add(name)
        row: Row = cell(subjects[name], fault)
        print(json.dumps(row.to_json()), flush=True)
    return 0


def warm(subject: Subject) -> None:
    """Run a command once in this process, so that no fork of it has to import or compile anything."""
    if "--workers" not in subject.job.words:  # they are forks themselves
        call(subject.job.at(subject.folder()))


if __name__ == "__main__":
    sys.exit(main() > 0)

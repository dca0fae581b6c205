"""Every long command is killed, and disturbed in other ways, and given again: nothing is lost. `python -m tests.faults` does all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import walls
from tests.faults import table
from tests.faults.cells import FAULTS, Row
from tests.faults.commands import jobs
from tests.faults.disk import Fault
from tests.faults.running import Outcome

COMMANDS = list(jobs(Path()))
# Beside the kills of every command: one command, or two, for each other fault; all of them stand in the table.
SOME = {
    "power cut": ("instruct generate", "vectors fit"),
    "interrupted": ("contrast make",),
    "full disk": ("instruct generate", "expert train"),
    "read-only folder": ("vectors fit",),
    "damaged file": ("instruct evaluate",),
    "two at once": ("vectors fit", "contrast make"),
    "clock set back": ("instruct generate",),
    "other locale": ("contrast make",),
    "NaN in the model": ("vectors fit",),
}


class Server:
    """A process that has imported everything and disturbs forks of itself."""

    def __init__(self) -> None:
        root = str(walls.ROOT)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=root, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip

    def __call__(self, command: str, fault: str) -> Row:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([command, fault]), file=self.process.stdin, flush=True)
        row = json.loads(self.process.stdout.readline())
        return Row(**{**row, "lost": tuple(row["lost"])})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    with running.process as process:
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_random_and_given_again_it_ends_with_the_same_bytes(server: Server, command: str) -> None:
    """Four kills of each of the commands."""
    row = server(command, "killed")
    assert row.injected == 4 and row.lost == ()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "command"), [(fault, command) for fault, some in SOME.items() for command in some])
def test_disturbed_and_given_again_it_ends_with_the_same_bytes(server: Server, fault: str, command: str) -> None:
    row = server(command, fault)
    assert row.injected >= 1 and row.lost == ()


def test_there_are_fifty_kills_and_every_fault_is_tested() -> None:
    assert 4 * len(COMMANDS) >= 50
    assert {"killed", *SOME} == set(FAULTS) and all(set(some) <= set(COMMANDS) for some in SOME.values())


def test_the_table_shows_every_fault_fifty_kills_nothing_lost_and_stands_in_the_page() -> None:
    rows = table.read()
    assert {row["command"] for row in rows} <= set(COMMANDS) and {row["fault"] for row in rows} == set(FAULTS)
    assert all(int(row["injected"]) == int(row["survived"]) + int(row["lost"]) for row in rows)
    assert sum(int(row["lost"]) for row in rows) == 0
    assert sum(int(row["injected"]) for row in rows if row["fault"] in ("killed", "power cut")) >= 50
    text = table.PAGE.read_text(encoding="utf-8")
    assert f"{table.BEGIN}\n\n{table.markdown()}\n\n{table.END}" in text, "run python -m tests.faults"


def test_a_traceback_is_no_clear_refusal() -> None:
    assert Outcome(2, "steerlab: no.\n", 1, 0.0).clear
    for code, err in ((1, "steerlab: no.\n"), (2, "Traceback (most recent call last):\nsteerlab: no.\n"), (2, "")):
        assert not Outcome(code, err, 1, 0.0).clear
    assert Fault().kind == "none"

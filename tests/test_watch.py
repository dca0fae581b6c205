"""Watching a run: what is complete is counted, also while it is written, and nothing is locked or changed."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from steerlab.disk import replace
from steerlab.errors import SteerlabError
from steerlab.records import pretty
from steerlab.run_state import run_state
from steerlab.store import RunFolder
from steerlab.watch import follow, rate, rows, snapshot, view
from tests.reported_run import config, reported_run, samples
from tests.small_run import content


def _said(path: Path, speed: float = 0.0) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(view(snapshot(path), speed))
    return " ".join(console.file.getvalue().split())  # pyright: ignore[reportAttributeAccessIssue]  # long paths wrap


def test_an_open_run_says_how_far_it_is_and_who_writes(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", config()) as run:
        run.append("samples.jsonl", samples()[:8], batch="0")
        before = content(tmp_path / "run")
        state = run_state(tmp_path / "run")
        assert (state.rows, state.wanted, state.finished, state.writer) == (
            {"samples.jsonl": 8},
            32,
            False,
            os.getpid(),
        )
        assert f"8 of 32 texts; written by process {os.getpid()}" in _said(tmp_path / "run")
        assert "8 of 32 texts, 2.0 texts/s, about 12 s to go" in _said(tmp_path / "run", 2.0)
        run.append("samples.jsonl", samples()[8:], batch="1")  # watching has taken no lock and changed nothing
        assert {name: data for name, data in before.items() if name == "config.json"}.items() <= content(
            run.path
        ).items()
        run.finish()
    assert "32 of 32 texts; finished" in _said(tmp_path / "run")


def test_texts_that_are_drawn_and_not_yet_accepted_are_counted(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", config()) as run:
        run.append("drafts.jsonl", samples()[:20], batch="0")
        assert run_state(tmp_path / "run").texts == 20
        run.append("samples.jsonl", samples()[:30], batch="0")
        run.append("drafts.jsonl", samples(), batch="1")
        assert run_state(tmp_path / "run").texts == 32
        run.finish()
    assert run_state(tmp_path / "run").texts == 30


def test_a_line_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    reported_run(tmp_path / "run", finish=False)
    with (tmp_path / "run" / "batches.jsonl").open("ab") as file:
        file.write(b'{"file": "samples.jsonl", "rows": 5, "e')
    assert run_state(tmp_path / "run").rows["samples.jsonl"] == 32


def test_a_writer_that_is_gone_is_no_writer(tmp_path: Path) -> None:
    reported_run(tmp_path / "run", finish=False)
    for pid in ("4194304999", "", "x"):
        (tmp_path / "run" / ".lock").write_text(pid)
        assert run_state(tmp_path / "run").writer is None
    assert "no process of this machine is writing" in _said(tmp_path / "run")


def test_a_study_is_the_sum_of_its_units(tmp_path: Path) -> None:
    replace(tmp_path / "study.json", pretty({"models": []}))
    arms = [["none", "", -1, 0.0], ["language", "early", 1, 0.5]]
    for number, finish in enumerate((True, False)):
        unit = {"arms": arms, "task": "topic", "per_label": 3, "cells": None, "number": number}
        reported_run(tmp_path / "units" / f"u{number}[b]", finish, **unit)
    seen = snapshot(tmp_path)
    assert (seen.done, seen.wanted, seen.finished) == (64, 2 * 2 * 7 * 3, False)
    assert [(row["run"], row["finished"]) for row in rows(seen)] == [("u0[b]", True), ("u1[b]", False)]
    assert "64 of 84 texts" in _said(tmp_path) and "u1[b]" in _said(tmp_path)


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    times = iter(range(100))

    def work(seconds: float) -> None:
        done = len(run.completed_batches())
        if done < 4:
            run.append("samples.jsonl", samples()[8 * done : 8 * done + 8], batch=str(done))
        else:
            run.finish()

    console = Console(file=io.StringIO(), width=400, force_terminal=True)
    seen = follow(tmp_path / "run", console, clock=lambda: float(next(times)), sleep=work)
    run.close()
    assert seen.finished and seen.done == 32
    assert "8.0 texts/s" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert rate((0.0, 5), (0.0, 9)) == 0.0


def test_a_folder_without_a_run_or_with_a_foreign_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="holds no run"):
        snapshot(tmp_path)
    replace(tmp_path / "config.json", pretty({}))
    replace(tmp_path / "batches.jsonl", b'{"file": 3}\n')
    with pytest.raises(SteerlabError, match="no log of a run"):
        snapshot(tmp_path)

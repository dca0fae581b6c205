"""The progress of a run or a study as it is written, read beside the writer: nothing of it is locked or touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steerlab.records import understood
from steerlab.run_state import STUDY, RunState, run_state, units

MOST = 30  # rows of a study that are shown


@dataclass(frozen=True)
class Snapshot:
    """What there is at one moment. `wanted` counts texts asked for in the runs whose config says so."""

    path: Path
    study: bool
    states: tuple[RunState, ...]

    @property
    def done(self) -> int:
        """Texts that are written."""
        return sum(state.texts for state in self.states)

    @property
    def wanted(self) -> int | None:
        """Texts asked for, None where a run does not say."""
        each = [state.wanted for state in self.states]
        return None if not each or None in each else sum(one for one in each if one is not None)

    @property
    def finished(self) -> bool:
        """True when there is a run and every run there is has its manifest; of a study, also its page."""
        whole = bool(self.states) and all(state.finished for state in self.states)
        return whole and (not self.study or (self.path / "report.md").is_file())


def snapshot(path: Path) -> Snapshot:
    """Look at a run or a study. Raises `SteerlabError` where the folder is neither."""
    with understood(path):
        if (path / STUDY).is_file():
            return Snapshot(path, True, tuple(run_state(folder) for folder in units(path)))
        return Snapshot(path, False, (run_state(path),))


def rate(before: tuple[float, int], now: tuple[float, int]) -> float:
    """Texts a second between two looks, (seconds, texts) each; 0 where no time has passed."""
    seconds = now[0] - before[0]
    return (now[1] - before[1]) / seconds if seconds > 0 else 0.0


def view(seen: Snapshot, speed: float = 0.0) -> RenderableType:
    """The snapshot for the terminal: a bar, who writes, and a row per run file or per unit."""
    pids = sorted({state.writer for state in seen.states if state.writer is not None and not state.finished})
    who = f"written by process {', '.join(map(str, pids))}" if pids else "no process of this machine is writing"
    said = "finished" if seen.finished else who
    left = ""
    if seen.wanted and speed > 0 and seen.done < seen.wanted:
        left = f", {speed:.1f} texts/s, about {_span((seen.wanted - seen.done) / speed)} to go"
    of = f" of {seen.wanted}" if seen.wanted else ""
    head = Text(f"{seen.path}: {seen.done}{of} texts{left}; {said}")  # Text: a path is no markup
    bar = Table.grid()  # a bar of its own ends no line
    if seen.wanted:
        bar.add_row(ProgressBar(total=seen.wanted, completed=min(seen.done, seen.wanted), width=60))
    return Group(head, bar, _units(seen) if seen.study else _files(seen.states[0]))


def follow(
    path: Path,
    console: Console,
    every: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Show the folder until it is finished, or until interrupted; returns the last snapshot.

    The speed is that of the last minute. Raises `SteerlabError` as `snapshot` does.
    """
    seen = snapshot(path)
    looks = [(clock(), seen.done)]
    with Live(view(seen), console=console, refresh_per_second=4) as live:
        while not seen.finished:
            sleep(every)
            seen = snapshot(path)
            looks.append((clock(), seen.done))
            looks = [look for look in looks if looks[-1][0] - look[0] <= 60]
            live.update(view(seen, rate(looks[0], looks[-1])), refresh=True)
    return seen


def rows(seen: Snapshot) -> list[dict[str, object]]:
    """One row per run, for machines."""
    return [
        {
            "run": state.path.name,
            "texts": state.texts,
            "wanted": state.wanted,
            "finished": state.finished,
            "writer": state.writer,
        }
        for state in seen.states
    ]


def _files(state: RunState) -> Table:
    table = Table("file", "complete rows", box=None)
    for name, count in state.rows.items():
        table.add_row(Text(name), str(count))
    return table


def _units(seen: Snapshot) -> Table:
    """Units that are being written first, then those that are not finished, then the rest."""
    table = Table("unit", "texts", "of", "state", box=None)
    ordered = sorted(seen.states, key=lambda state: (state.finished, state.writer is None, state.path.name))
    for state in ordered[:MOST]:
        table.add_row(Text(state.path.name), str(state.texts), str(state.wanted or "?"), _standing(state))
    if len(ordered) > MOST:
        table.add_row(f"and {len(ordered) - MOST} more", "", "", "")
    return table


def _standing(state: RunState) -> str:
    return "finished" if state.finished else "writing" if state.writer is not None else "open"


def _span(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"

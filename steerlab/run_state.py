"""What a run folder says of itself, read without its lock: what is complete, what was asked for, who is writing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.disk import told
from steerlab.errors import SteerlabError
from steerlab.records import parse, read_object
from steerlab.store import BATCHES, CONFIG, LOCK, MANIFEST, SAMPLES

STUDY, UNITS = "study.json", "units"
DRAFTS = "drafts.jsonl"


@dataclass(frozen=True)
class RunState:
    """`rows` and `ends`: complete rows, and the bytes they take, of every row file. `wanted`: texts that were asked for, None
    where the config does not say. `writer`: the process of this machine that holds the folder, None where there is none.
    """

    path: Path
    config: Mapping[str, Any]
    rows: Mapping[str, int]
    ends: Mapping[str, int]
    wanted: int | None
    finished: bool
    writer: int | None

    @property
    def texts(self) -> int:
        """Texts that are written: those accepted, or, while a round is drawn and nothing of it accepted yet, those drawn."""
        accepted, drawn = self.rows.get(SAMPLES, 0), self.rows.get(DRAFTS, 0)
        return accepted if self.finished else max(accepted, min(drawn, drawn if self.wanted is None else self.wanted))


def run_state(path: Path) -> RunState:
    """The state of one run. Raises `SteerlabError` where the folder holds none, or its log is no log."""
    if not (path / CONFIG).is_file():
        raise SteerlabError(f"{path} holds no run ({CONFIG} is missing): give the folder of a run or a study.")
    with told(path):
        config = read_object(path / CONFIG)
        data = (path / BATCHES).read_bytes() if (path / BATCHES).is_file() else b""
    rows: dict[str, int] = {}
    ends: dict[str, int] = {}
    for entry in parse(
        data[: data.rfind(b"\n") + 1], path / BATCHES
    ):  # a line that is being written does not count yet
        name, count, end = entry.get("file"), entry.get("rows"), entry.get("end")
        if not (isinstance(name, str) and isinstance(count, int) and isinstance(end, int)):
            raise SteerlabError(f"{path / BATCHES} is no log of a run: give the folder of a run.")
        rows[name] = rows.get(name, 0) + count
        ends[name] = end
    return RunState(path, config, rows, ends, _wanted(config), (path / MANIFEST).is_file(), _writer(path / LOCK))


def complete_rows(state: RunState, name: str) -> list[dict[str, Any]]:
    """The complete rows of a row file, also while a run is written to; none where there is no such file."""
    file = state.path / name
    if not file.is_file():
        return []
    with told(file):
        data = file.read_bytes()
    return parse(data[: state.ends.get(name, len(data))], file)


def units(path: Path) -> list[Path]:
    """The run folders of a study, in the order of their names; none for a folder that is no study."""
    if not (path / STUDY).is_file():
        return []
    return sorted(p.parent for p in (path / UNITS).glob(f"*/{CONFIG}"))


def _wanted(config: Mapping[str, Any]) -> int | None:
    """Texts a run is asked for: cells x labels x texts per label, or the arms of a study's unit."""
    each, cells, arms = config.get("per_label"), config.get("cells"), config.get("arms")
    if not isinstance(each, int):
        return None
    if isinstance(cells, list) and all(isinstance(c, dict) and isinstance(c.get("labels"), list) for c in cells):
        return each * sum(len(cell["labels"]) for cell in cells)
    if isinstance(arms, list) and isinstance(config.get("task"), str):
        from steerlab.tasks import TASKS  # brings the data sets with it

        if config["task"] not in TASKS:
            return None
        return each * len(arms) * len(TASKS[config["task"]].labels)
    return None


def _writer(lock: Path) -> int | None:
    """The process that the lock file names, if it lives. The lock itself is not touched, for it may be asked for just then."""
    try:
        pid = int(lock.read_text(encoding="ascii"))
        os.kill(pid, 0)
        return pid
    except PermissionError:
        return pid
    except (OSError, ValueError, OverflowError):
        return None

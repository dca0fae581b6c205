"""Odd inputs put to every parser and verb: the right result, or one sentence; nothing else, and nothing outside its folder.

`python -m tests.fuzz` puts many to each and writes benchmarks/results/fuzz.csv, which docs/reliability.md shows.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import HypothesisDeprecationWarning
from hypothesis.strategies import SearchStrategy

from steerlab.errors import SteerlabError

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "fuzz.csv"
COLUMNS = ("area", "target", "given", "inputs", "right", "refused", "crashes")
KEPT = b"what stood here before"
EVERY = int(os.environ.get("STEERLAB_FUZZ", "0"))  # inputs per target; 0: few, the same ones every time


@dataclass(frozen=True)
class Target:
    """`holds(example, folder)` calls what is tested and asserts what is right; it raises `SteerlabError` where that refuses.

    `share`: of the usual number of inputs, less where one takes long. `refuses`: whether a refusal can come at all.
    """

    area: str
    name: str
    what: str
    given: SearchStrategy[Any]
    holds: Callable[[Any, Path], None]
    share: float = 1.0
    refuses: bool = True


def targets() -> dict[str, Target]:
    """Every target by its name."""
    from tests import fuzz_commands, fuzz_files, fuzz_records, fuzz_runs, fuzz_texts, fuzz_vectors

    parts = (fuzz_files, fuzz_vectors, fuzz_records, fuzz_runs, fuzz_texts, fuzz_commands)
    found = [target for part in parts for target in part.TARGETS]
    named = {target.name: target for target in found}
    assert len(named) == len(found)
    return named


def one_sentence(error: SteerlabError) -> None:
    """Assert that a refusal is a sentence for people: one line that can be printed anywhere."""
    said = str(error)
    assert said and len(said.splitlines()) == 1, repr(said)
    said.encode()
    assert "Traceback" not in said and " object at 0x" not in said, said


def outcome(target: Target, example: Any, home: Path) -> str:
    """ "right" or "refused"; raises what is neither. The example works in a folder of its own below `home`."""
    inside = home / "inside"
    inside.mkdir()
    try:
        target.holds(example, inside)
        found = "right"
    except SteerlabError as error:
        one_sentence(error)
        found = "refused"
    finally:
        left = {path.relative_to(home).as_posix() for path in home.rglob("*")} if inside.exists() else set()
        shutil.rmtree(inside, ignore_errors=True)
    outside = {name for name in left if not name.startswith("inside")}
    assert outside == {"kept"} and (home / "kept").read_bytes() == KEPT, f"it touched {outside} beside its folder"
    parts = {name for name in left if name.endswith((".tmp", ".new", ".part")) and "/given" not in name}
    assert not parts, f"it left {parts}"
    return found


@contextmanager
def place() -> Iterator[Path]:
    """A folder with a file that nothing may touch; writing does not wait for the disk."""
    with tempfile.TemporaryDirectory() as home, mock.patch("os.fsync"):
        (Path(home) / "kept").write_bytes(KEPT)
        yield Path(home)


def tried(target: Target, inputs: int, same: bool, each: Callable[[Any, Path], object]) -> None:
    """Put so many inputs to `each`; with `same` the same ones every time."""
    phases = (Phase.explicit, Phase.generate, Phase.shrink)

    with place() as home:

        @settings(
            max_examples=max(int(inputs * target.share), 5),
            deadline=None,
            database=None,
            derandomize=same,
            phases=phases,
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
        )
        @given(target.given)
        def run(example: Any) -> None:
            each(example, home)

        with warnings.catch_warnings():  # files are made once, below temporary names, where an example is drawn
            warnings.simplefilter("ignore", HypothesisDeprecationWarning)
            run()


def counted(target: Target, inputs: int) -> tuple[Counter[str], dict[str, str]]:
    """How many inputs gave what, and one example of every crash, by the place it happened at."""
    seen: Counter[str] = Counter()
    crashes: dict[str, str] = {}

    def each(example: Any, home: Path) -> None:
        seen["inputs"] += 1
        try:
            seen[outcome(target, example, home)] += 1
        except Exception as error:
            shutil.rmtree(home / "inside", ignore_errors=True)
            seen["crashes"] += 1
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "hypothesis" not in f.filename]
            at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
            crashes.setdefault(f"{type(error).__name__} at {at}", f"{str(error)[:200]!r} for {example!r:.400}")

    tried(target, inputs, False, each)
    return seen, crashes


def main() -> None:
    """Put many inputs to every target, print the crashes, write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=EVERY or 2000, help="per target; default: STEERLAB_FUZZ, or 2000")
    parser.add_argument("--only", default="", help="targets whose name holds this; the other lines of the table stay")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's package is first imported, which is later
    rows = []
    for target in targets().values():
        if given.only in target.name:
            seen, crashes = counted(target, given.inputs)
            counts = {name: seen[name] for name in COLUMNS[3:]}
            rows.append({"area": target.area, "target": target.name, "given": target.what, **counts})
            print(target.name, counts, flush=True)
            for where, example in crashes.items():
                print(f"  CRASH {where}\n    {example}", flush=True)
    if given.only:
        with TABLE.open(encoding="utf-8", newline="") as file:
            kept: dict[str, Any] = {row["target"]: row for row in csv.DictReader(file)} | {
                row["target"]: row for row in rows
            }
            rows = [kept[name] for name in targets() if name in kept]
    if rows:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()

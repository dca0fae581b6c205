"""All analysis scripts in one process: compute their tables and draw them, or with `--redraw` only draw, without a model.

    python -m analyses --redraw                     # every figure from figures/*.csv: a minute
    python -m analyses --data DIR                   # compute everything on polyglot-mini first: the better part of an hour
    python -m analyses --only lens_polyglot         # one script, by name or number; repeat for several
    python -m analyses --list                       # the scripts, their questions, and when their tables were made

A script that fails does not stop the others (exit code 1 at the end); one whose tables do not exist yet is passed over.
"""

from __future__ import annotations

import argparse
import ast
import json
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyses._harness import FOLDER, NotThere, data_folder, plain_name
from steerlab.data import find_root
from steerlab.data.reading import ENV
from steerlab.errors import SteerlabError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What became of one script: "done", "not there yet" or "failed", why, and how long it took."""

    script: str
    state: str
    why: str
    seconds: float


def scripts(folder: Path = HERE) -> list[Path]:
    """Every script, in the order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def chosen(only: Sequence[str], folder: Path = HERE) -> list[Path]:
    """The scripts named by name, number or both; all without a name. Raises `SteerlabError` for a name that is none."""
    there = scripts(folder)
    found: list[Path] = []
    for word in only:
        name = Path(word).stem
        own = [p for p in there if name in (p.stem, plain_name(p.name), p.stem[:2])]
        if not own:
            names = ", ".join(plain_name(p.name) for p in there)
            raise SteerlabError(f"{word!r} is no analysis script: give one of {names}.")
        found += own
    return sorted(set(found)) if only else there


def run_all(paths: Sequence[Path], words: Sequence[str]) -> list[Outcome]:
    """Run scripts one after the other, each as if it was started with `words`, whatever becomes of the ones before."""
    found = []
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.stem}", flush=True)
        found.append(run(path, words))
        if found[-1].state != "done":
            print(f"{found[-1].state}: {found[-1].why}", flush=True)
    return found


def run(path: Path, words: Sequence[str]) -> Outcome:
    """Run one script in this process as `python -m` would."""
    began, before = time.perf_counter(), sys.argv
    state, why = "done", ""
    sys.argv = [str(path), *words]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except NotThere as error:
        state, why = "not there yet", str(error)
    except SystemExit as error:
        if error.code not in (None, 0):
            state, why = "failed", f"exit code {error.code}"
    except Exception as error:  # whatever a script dies of, the others still run
        traceback.print_exc()
        state, why = "failed", f"{type(error).__name__}: {error}"
    finally:
        sys.argv = before
    return Outcome(path.stem, state, why, time.perf_counter() - began)


def listing(paths: Sequence[Path], folder: Path = FOLDER) -> str:
    """One line per script: its name, the commit and length of its last computation, its question."""
    lines = []
    for path in paths:
        file = folder / f"{plain_name(path.name)}.json"
        made = "no tables yet"
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            seconds = record["seconds"]
            made = f"{record['commit'][:7]}, {'unknown time' if seconds is None else f'{seconds:.0f} s'}"
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"{path.stem:<26} {made:<22} {' '.join(doc.split(chr(10) * 2)[0].split())}")
    return "\n".join(lines)


def summary(found: Sequence[Outcome]) -> str:
    """One line per script, and how many are done."""
    lines = [f"{one.script:<26} {one.state:<14} {one.seconds:6.1f} s" for one in found]
    done = sum(one.state == "done" for one in found)
    return "\n".join([*lines, f"{done} of {len(found)} done in {sum(one.seconds for one in found):.0f} s"])


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analyses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redraw", action="store_true", help="draw from the committed tables; needs no model")
    parser.add_argument("--again", action="store_true", help="compute again even where the same was computed before")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one script; repeat for several")
    parser.add_argument("--list", action="store_true", help="list the scripts and stop")
    parser.add_argument("--data", type=Path, help=f"folder of data sets (default: {ENV})")
    parser.add_argument("--out", type=Path, help="folder of tables and figures (default: figures/)")
    given = parser.parse_args()
    with data_folder(given.data):
        return _called(given)


def _called(given: argparse.Namespace) -> int:
    """List or run the scripts the command line names; the exit code."""
    try:
        paths = chosen(given.only)
        if given.list:
            print(listing(paths, given.out or FOLDER))
            return 0
        if not given.redraw and not given.only and find_root() is None:
            raise SteerlabError(
                f"the analyses need the local data sets: point {ENV} (or --data) at their folder, or give --redraw to draw from the "
                "committed tables."
            )
    except SteerlabError as error:
        print(f"analyses: {error}", file=sys.stderr)
        return 2
    words = ["--redraw"] * given.redraw + ["--again"] * given.again
    found = run_all(paths, words + ([] if given.out is None else ["--out", str(given.out.absolute())]))
    print("\n" + summary(found))
    return int(any(one.state == "failed" for one in found))


if __name__ == "__main__":
    sys.exit(main())

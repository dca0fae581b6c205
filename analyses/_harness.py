"""What every analysis script shares: compute once, keep tables and record, draw from the tables.

A script has a frozen `Config`, `compute(config) -> Result` and `draw(result) -> {name: Figure}`, and ends in
`main(__doc__, __file__, Config(), compute, draw)`. What was computed is kept by content (config, script, package): a
second run of the same code reads it back. Figures are always drawn from the written tables, so that `--redraw`, which
needs no model, draws the same. A script NN_NAME.py leaves figures/NAME.json (its record) and one CSV per table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from steerlab import figures
from steerlab.data.reading import ENV
from steerlab.errors import SteerlabError
from steerlab.records import config_key, pretty

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "figures"
CACHE = ROOT / "runs" / "analyses"


@dataclass(frozen=True)
class Result:
    """Tables by name (a figure has the name of its main table), facts for titles and texts that are no table (plain JSON
    values), the revision of the model (empty without one), and sha256 of the data by name.
    """

    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any] = field(default_factory=dict)
    model_revision: str = ""
    data: dict[str, str] = field(default_factory=dict)


Compute = Callable[[Any], Result]
Draw = Callable[[Result], Mapping[str, Figure]]
Pages = Callable[[Result], Mapping[str, str]]  # path below the repository -> text


class NotThere(SystemExit):
    """What a script reads does not exist yet, in one sentence. `python -m analyses` passes such a script over."""


def main(
    doc: str | None,
    file: str,
    config: Any,
    compute: Compute,
    draw: Draw,
    pages: Pages | None = None,
    keep: bool = True,
) -> None:
    """The command line of a script: compute (or read what is kept), write tables and record, draw. `config` is the script's
    frozen dataclass; its plain fields are options. `pages` are texts made of the results, written when the committed figures
    are. `keep=False`: compute every time, for scripts that only read what is somewhere else.
    """
    given = _arguments(doc, config)
    with data_folder(given.data):
        _run(given, file, config, compute, draw, pages, keep)


@contextmanager
def data_folder(path: Path | None) -> Iterator[None]:
    """Everything inside reads the local data sets at `path` (None: where it read them before), and nothing after it does."""
    before = os.environ.get(ENV)
    if path is not None:
        os.environ[ENV] = str(path)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ENV, None)
        else:
            os.environ[ENV] = before


def _run(
    given: argparse.Namespace, file: str, config: Any, compute: Compute, draw: Draw, pages: Pages | None, keep: bool
) -> None:
    """Compute or read, write, draw: what the command line asks for."""
    name = plain_name(file)
    if given.redraw:
        result = committed(name, given.out)
    else:
        chosen = replace(config, **{one: getattr(given, one) for one in _options(config)})
        try:
            record, computed = computed_once(file, chosen, compute, given.again or not keep)
        except SteerlabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        result = write(name, computed, record, given.out)
    for one, figure in draw(result).items():
        print(*figures.write_images(figure, given.out, one), sep="\n")
    if pages is not None and given.out.resolve() == FOLDER:
        for place, text in pages(result).items():
            (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / place).write_text(text, encoding="utf-8")
            print(ROOT / place)


def _arguments(doc: str | None, config: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--redraw", action="store_true", help="draw again from figures/*.csv; needs no model and no data"
    )
    parser.add_argument("--again", action="store_true", help="compute again even where the same was computed before")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of tables and figures (default: figures/)")
    parser.add_argument("--data", type=Path, help=f"folder of data sets (default: {ENV})")
    for name, value in _options(config).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
        else:
            parser.add_argument(flag, type=type(value), default=value, help=f"default: {value}")
    return parser.parse_args()


def _options(config: Any) -> dict[str, Any]:
    """The config's fields that one word on the command line can say."""
    own = {one.name: getattr(config, one.name) for one in fields(config)}
    taken = ("redraw", "again", "out", "data")
    return {name: v for name, v in own.items() if isinstance(v, bool | int | float | str) and name not in taken}


def plain_name(file: str) -> str:
    """The name of a script's record: its file name without folder, number and ending."""
    return re.sub(r"^\d+_", "", Path(file).stem)


def computed_once(file: str, config: Any, compute: Compute, again: bool) -> tuple[dict[str, Any], Result]:
    """The record and the result of these settings and this code, computed now or before."""
    settings, name = asdict(config), plain_name(file)
    key = config_key({"config": settings, "script": scripts_sha256(Path(file)), "package": package_sha256()})
    place = CACHE / f"{name}-{key[:12]}"
    if not again and (place / f"{name}.json").is_file():
        print(f"computed before, read from {place}: --again computes it anew")
        found = committed(name, place)
        return json.loads((place / f"{name}.json").read_text(encoding="utf-8")), found
    began = time.perf_counter()
    result = compute(config)
    record = {
        "command": f"python -m analyses.{Path(file).stem}",
        "config": settings,
        "commit": commit(),
        "model_revision": result.model_revision,
        "data": result.data,
        "seconds": round(time.perf_counter() - began, 1),
        "tables": list(result.tables),
        "facts": result.facts,
    }
    write(name, result, record, place)
    return record, result


def write(name: str, result: Result, record: Mapping[str, Any], folder: Path) -> Result:
    """Write a CSV for every table and, last, NAME.json; returns them as read back."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, table in result.tables.items():
        path = folder / f"{title}.csv"
        path.parent.mkdir(exist_ok=True)
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    (folder / f"{name}.json").write_bytes(pretty(record))
    return committed(name, folder)


def committed(name: str, folder: Path = FOLDER) -> Result:
    """The tables and facts that are in the folder. Raises `NotThere` where they are not."""
    name = plain_name(name)
    path = folder / f"{name}.json"
    if not path.is_file():
        raise NotThere(f"{path} is not there yet: run python -m analyses --only {name} first.")
    record = json.loads(path.read_text(encoding="utf-8"))
    # Only an empty field is missing: "NA" and "null" are texts (and NA is a country).
    tables = {
        title: pd.read_csv(folder / f"{title}.csv", keep_default_na=False, na_values=[""]) for title in record["tables"]
    }
    return Result(tables, record["facts"], record["model_revision"], record["data"])


def scripts_sha256(file: Path) -> str:
    """One hash over a script and what the scripts share."""
    digest = hashlib.sha256()
    for path in [file, *sorted(Path(__file__).parent.glob("_[a-z]*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def package_sha256() -> str:
    """One hash over the package's Python files and the bundled vectors and weights."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "steerlab").rglob("*")):
        if path.suffix in (".py", ".safetensors", ".json"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """The commit that is checked out, with "+" where tracked code differs from it; empty outside git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    return head + ("+" if head and git("status", "--porcelain", "--untracked-files=no", "steerlab", "analyses") else "")

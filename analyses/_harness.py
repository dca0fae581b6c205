"""What every analysis script shares: compute once, keep tables and record, draw from the tables.

A script has a frozen `Config`, `compute(config) -> Result` and `draw(result) -> {name: Figure}`, and ends in
`main(__doc__, __file__, Config(), compute, draw)`. What was computed is kept by content (config, script, package): a
second run of the same code reads it back. Figures are always drawn from the written tables, so that `--redraw`, which
needs no model, draws the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from steerlab import figures
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


def main(doc: str | None, file: str, config: Any, compute: Compute, draw: Draw) -> None:
    """The command line of a script: compute (or read what is kept), write tables and record, draw. `config` is the script's
    frozen dataclass.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--redraw", action="store_true", help="draw again from figures/*.csv; needs no model and no data"
    )
    parser.add_argument("--again", action="store_true", help="compute again even where the same was computed before")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of tables and figures (default: figures/)")
    given = parser.parse_args()
    stem = Path(file).stem
    if given.redraw:
        result = committed(stem, given.out)
    else:
        record, computed = computed_once(file, config, compute, given.again)
        result = write(stem, computed, record, given.out)
    for name, figure in draw(result).items():
        print(*figures.write_images(figure, given.out, name), sep="\n")


def computed_once(file: str, config: Any, compute: Compute, again: bool) -> tuple[dict[str, Any], Result]:
    """The record and the result of these settings and this code, computed now or before."""
    settings = asdict(config)
    stem, source = Path(file).stem, hashlib.sha256(Path(file).read_bytes()).hexdigest()
    key = config_key({"config": settings, "script": source, "package": package_sha256()})
    place = CACHE / f"{stem}-{key[:12]}"
    if not again and (place / f"{stem}.json").is_file():
        print(f"computed before, read from {place}: --again computes it anew")
        found = committed(stem, place)
        return json.loads((place / f"{stem}.json").read_text(encoding="utf-8")), found
    began = time.perf_counter()
    result = compute(config)
    record = {
        "command": f"python -m analyses.{stem}",
        "config": settings,
        "commit": commit(),
        "model_revision": result.model_revision,
        "data": result.data,
        "seconds": round(time.perf_counter() - began, 1),
        "tables": list(result.tables),
        "facts": result.facts,
    }
    write(stem, result, record, place)
    return record, result


def write(stem: str, result: Result, record: Mapping[str, Any], folder: Path) -> Result:
    """Write NAME.csv for every table and, last, STEM.json; returns them as read back."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in result.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / f"{stem}.json").write_bytes(pretty(record))
    return committed(stem, folder)


def committed(stem: str, folder: Path = FOLDER) -> Result:
    """The tables and facts that are in the folder. Exits with a sentence where they are not."""
    path = folder / f"{stem}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there yet: run python -m analyses.{stem} without --redraw first.")
    record = json.loads(path.read_text(encoding="utf-8"))
    # Only an empty field is missing: "NA" and "null" are texts (and NA is a country).
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""]) for name in record["tables"]
    }
    return Result(tables, record["facts"], record["model_revision"], record["data"])


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

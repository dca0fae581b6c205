"""Does steering give better synthetic data for low-resource languages?

Draws the figures and writes the page of the low-resource study from committed tables; with `--study`, takes the tables of a
finished study first.

    steerlab study low-resource polyglot-mini --out runs/low-resource      # the study itself: hours on two cores
    python -m analyses.low_resource --study runs/low-resource              # its tables, figures and page (seconds)
    python -m analyses.low_resource                                        # the same from the committed tables
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from steerlab.studies.presets import PRESETS
from steerlab.studies.report import page, read_tables, write_figures

TABLES = Path("figures/low-resource")
PAGE = Path("docs/results/low-resource.md")
COMMAND = "steerlab study low-resource polyglot-mini"


def take(study: Path) -> None:
    """Copy a finished study's tables and record to where they are committed."""
    TABLES.mkdir(parents=True, exist_ok=True)
    for path in sorted((study / "tables").glob("*.csv")):
        shutil.copyfile(path, TABLES / path.name)
    record = json.loads((study / "figures" / "claim.json").read_text(encoding="utf-8"))
    (TABLES / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Tables in, figures and page out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of a finished study whose tables are to be taken")
    given = parser.parse_args()
    if given.study:
        take(given.study)
    if not (TABLES / "record.json").is_file():
        print(f"{TABLES} has no tables yet: run the study, then this with --study.")
        return
    found = read_tables(TABLES)
    record = json.loads((TABLES / "record.json").read_text(encoding="utf-8"))
    images = write_figures(found, Path("figures"), record, prefix="low_resource_")
    names = [f"../../figures/{path.name}" for path in images]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(found, PRESETS["polyglot-mini"], names, COMMAND), encoding="utf-8")
    print("\n".join(map(str, [*images, PAGE])))


if __name__ == "__main__":
    main()

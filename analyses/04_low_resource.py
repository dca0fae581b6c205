"""Does steering give better synthetic data for low-resource languages?

Takes the tables of a finished low-resource study (languages x tasks x prompt modes x vectors x blocks x strengths x
seeds), keeps them in figures/low-resource/, draws its figures and writes its page, docs/results/low-resource.md.

    steerlab study low-resource polyglot-mini --out runs/low-resource      # the study itself: about 95 minutes on two cores
    python -m analyses.04_low_resource --study runs/low-resource           # its tables, figures and page (seconds)
    python -m analyses.04_low_resource --redraw                            # the same from the committed tables
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analyses._harness import ROOT, NotThere, Result, main
from steerlab import figures
from steerlab.studies.presets import PRESETS
from steerlab.studies.report import drawn, page, read_tables

KEPT, SHOWN = "low-resource/", "low_resource_"  # what the study measured; what each figure shows
PAGE = "docs/results/low-resource.md"
COMMAND = "steerlab study low-resource polyglot-mini"


@dataclass(frozen=True)
class Config:
    """The folder of the finished study, below the repository or absolute."""

    study: str = "runs/low-resource"


def compute(config: Config) -> Result:
    """The study's own tables, and those of its figures."""
    folder = ROOT / config.study
    record = folder / "figures" / "claim.json"
    if not record.is_file():
        raise NotThere(
            f"{folder} holds no finished study: run `{COMMAND} --out {config.study}` to its end first (about 95 minutes on two cores)."
        )
    facts = json.loads(record.read_text(encoding="utf-8"))
    found = read_tables(folder / "tables")
    tables = {KEPT + name: table for name, table in found.items()}
    for name, (figure, table) in drawn(found, facts["strength_unit"]).items():
        figures.plt.close(figure)
        tables[SHOWN + name] = table
    units = sorted(m.parent / "config.json" for m in (folder / "units").glob("*/manifest.json"))  # finished ones
    revisions = {str(json.loads(unit.read_text(encoding="utf-8"))["model_revision"]) for unit in units}
    return Result(tables, facts, ", ".join(sorted(revisions)), {"samples of all units": _sha256(units)})


def _sha256(units: list[Path]) -> str:
    """One hash over the samples of all units."""
    digest = hashlib.sha256()
    for unit in units:
        digest.update(unit.parent.name.encode() + b"\0" + (unit.parent / "samples.jsonl").read_bytes())
    return digest.hexdigest()


def draw(result: Result) -> dict[str, Figure]:
    """Claim, gain by strength, trade-off with diversity, cosine, worth."""
    own = {name.removeprefix(KEPT): table for name, table in result.tables.items() if name.startswith(KEPT)}
    return {SHOWN + name: figure for name, (figure, _) in drawn(own, result.facts["strength_unit"]).items()}


def pages(result: Result) -> dict[str, str]:
    """The results page."""
    own = {name.removeprefix(KEPT): table for name, table in result.tables.items() if name.startswith(KEPT)}
    images = [f"../../figures/{name}.png" for name in result.tables if name.startswith(SHOWN)]
    return {PAGE: page(own, PRESETS["polyglot-mini"], images, COMMAND)}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw, pages=pages, keep=False)

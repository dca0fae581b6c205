"""`steerlab evaluate`: judge a data set that was written earlier, here or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlab.commands.synthesize import default_source, records
from steerlab.data import language
from steerlab.errors import SteerlabError
from steerlab.loading import load
from steerlab.recipes import evaluate
from steerlab.records import read_object
from steerlab.store import read_rows
from steerlab.synthesis import SAMPLES
from steerlab.tasks import check_label, task

COLUMNS = ("language", "task", "label", "text")


def run(where: Path, source: str, seeds: int, model: str, root: Path | None) -> list[dict[str, Any]]:
    """Metric rows of the samples in a run folder or a .jsonl file. Raises `SteerlabError` naming the row that is no sample."""
    if seeds < 1:
        raise SteerlabError(f"--seeds is {seeds}: give at least 1.")
    rows = read_rows(where / SAMPLES if where.is_dir() else where)
    if not rows:
        raise SteerlabError(f"{where} has no samples: write some with `steerlab synthesize`.")
    for number, row in enumerate(rows, start=1):
        missing = [c for c in COLUMNS if not isinstance(row.get(c), str)]
        if missing:
            raise SteerlabError(
                f"row {number} of {where} has no text as {missing[0]!r} (it has {', '.join(row)}): every sample needs {', '.join(COLUMNS)}."
            )
        try:
            language(row["language"])
            check_label(task(row["task"]), row["label"])
        except SteerlabError as error:
            raise SteerlabError(f"row {number} of {where}: {error}") from error
        row.setdefault("condition", "all")
    traced = None if model == "none" else load(model)
    metrics = evaluate(
        rows, model=traced, root=root, source=source or default_source(root), seeds=range(seeds), without=_shown(where)
    )
    return records(metrics)


def _shown(where: Path) -> set[str]:
    """The few-shot examples of a run folder's prompts, which are no test texts."""
    config = where / "config.json"
    if not (where.is_dir() and config.is_file()):
        return set()
    cells = read_object(config).get("cells", [])
    return {text for cell in cells for texts in cell.get("shots", {}).values() for text in texts}

"""A small experiment in a run folder, for the tests of the store."""

from __future__ import annotations

from pathlib import Path

from steerlab import store
from steerlab.store import RunFolder

CONFIG = {"command": "synthesize", "seed": 1, "sampling": {"top_p": 0.9, "temperature": 0.8}}


def rows(batch: int, width: int = 3) -> list[dict[str, object]]:
    """The rows of a batch, with a character that some take for a line break."""
    return [{"id": f"{batch}-{i}", "text": "voda ውሃ \u2028 " * (batch + 1)} for i in range(width)]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != store.LOCK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def work(folder: Path, batches: int = 3) -> Path:
    """The whole of a small experiment, leaving out what is there already."""
    with RunFolder.open(folder, CONFIG) as run:
        for batch in range(batches):
            if str(batch) not in run.completed_batches():
                run.append("samples.jsonl", rows(batch), batch=str(batch))
        run.write_json("metrics.json", {"rows": len(run.read("samples.jsonl")), "f1": float("nan")})
        run.finish()
    return folder

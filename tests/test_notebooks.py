"""Every notebook opens with what one learns, ends with what to try, is short, and runs from top to bottom on the bundled model, offline."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
MUST_BE_THERE = {"quickstart", "extend_it", "steer_guidance"}
MOST_CELLS = 29
SAID = {
    "quickstart": "texts in Amharic: ",
    "extend_it": "strength 0 changes nothing: True",
    "steer_guidance": "gamma 5 changes nothing: True",
}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_the_notebooks_are_there() -> None:
    assert {p.stem for p in NOTEBOOKS} >= MUST_BE_THERE


@each
def test_it_is_short_and_says_what_one_learns_and_what_to_try(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= MOST_CELLS
    first, last = cells[0], cells[-1]
    assert (first.cell_type, last.cell_type) == ("markdown", "markdown")
    assert first.source.startswith("# ") and re.search(r"you will learn", first.source, re.IGNORECASE)
    assert re.search(r"^#+ .*what to try", last.source, re.IGNORECASE | re.MULTILINE)


@each
def test_it_keeps_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any("attachments" in cell for cell in notebook.cells)


@pytest.mark.slow
@each
def test_it_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert SAID.get(path.stem, "") in printed

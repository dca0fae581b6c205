"""`import steerlab` and `steerlab --help` load nothing heavy, and the lazy names are the ones type checkers see."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import steerlab
from tests.walls import ROOT

HEAVY = (
    "torch",
    "transformers",
    "nnsight",
    "datasets",
    "numpy",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "huggingface_hub",
)
HELP = """
import sys
sys.argv = ["steerlab", *{words!r}]
from steerlab.cli import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
"""


def _loaded(code: str) -> tuple[set[str], str]:
    """Which of `HEAVY` a fresh process has loaded after `code`, and what it printed before."""
    tell = f"\nimport json, sys\nprint('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    done = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    printed, _, last = done.stdout.rstrip().rpartition("\n")
    return set(json.loads(last)), printed


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded("import steerlab; steerlab.__version__; dir(steerlab)")[0] == set()


@pytest.mark.parametrize("words", [["--help"], ["vectors", "--help"], ["synthesize", "--help"], ["report", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    found, printed = _loaded(HELP.format(words=words))
    assert found == set() and "Usage" in printed


def test_a_use_loads_what_it_needs() -> None:
    assert "torch" in _loaded("import steerlab; steerlab.Site")[0]  # so the tests above can see something


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(steerlab.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: str(node.module).removeprefix("steerlab.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == steerlab._WHERE and sorted(seen) == sorted(steerlab.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        steerlab.loda  # noqa: B018  # pyright: ignore

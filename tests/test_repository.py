"""What the repository promises beside its code: pins that agree, targets that exist, a README that runs and draws the true tree."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import readme_tree, walls

ROOT = walls.ROOT
README = ROOT / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {
    "help",
    "setup",
    "demo",
    "test",
    "test-fast",
    "lint",
    "figures",
    "bench",
    "notebooks",
    "docs",
    "tree",
    "model",
    "clean",
}


def _requirements(*extras: str) -> list[Requirement]:
    optional = PROJECT["project"]["optional-dependencies"]
    lines = PROJECT["project"]["dependencies"] + [line for extra in extras for line in optional[extra]]
    return [Requirement(line) for line in lines]


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def _pins() -> dict[str, Version]:
    pairs = (line.split("==") for line in _constraints())
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_every_constraint_is_one_exact_public_version() -> None:
    for line in _constraints():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line
    assert len(_pins()) == len(_constraints())
    assert _pins()["torch"] == Version("2.13.0")


def test_the_constraints_pin_what_the_project_asks_for() -> None:
    for need in _requirements("dev", "finetune"):
        pin = _pins().get(canonicalize_name(need.name))
        assert pin is not None, f"{need.name} has no line in constraints.txt"
        assert need.specifier.contains(pin), f"{need} does not admit the pin {pin}"


OPTIONAL = {"mauve": "mauve-text"}  # distributions that need not be installed to be declared


def test_every_import_of_the_package_is_declared() -> None:
    extras = ("finetune", "interop", "harness", "vllm", "embeddings", "ray")
    declared = {canonicalize_name(need.name) for need in _requirements(*extras)}
    owners = importlib.metadata.packages_distributions()
    seen = set()
    for name, path in walls.modules().items():
        for line, target in walls.imported(name, path.read_text(encoding="utf-8")):
            top = target.split(".")[0]
            if top not in sys.stdlib_module_names and top != walls.PACKAGE:
                seen.add(top)
                known = {canonicalize_name(owner) for owner in owners.get(top, [OPTIONAL.get(top, top)])}
                assert known & declared, f"{path} line {line} imports {top}: declare it in pyproject.toml"
    assert "torch" in seen


def test_the_licence_is_apache_2_word_for_word() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"


def test_the_version_is_one() -> None:
    assert f"\nversion: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_makefile_has_and_lists_its_targets() -> None:
    made = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    assert made >= TARGETS
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in made:
        assert re.search(rf"^ +{target} +\S", listed, flags=re.MULTILINE), f"make help does not tell of {target}"
    subprocess.run(["make", "-n", "-C", str(ROOT), *sorted(made)], capture_output=True, check=True)


def test_ci_lints_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = re.findall(r"^make --no-print-directory (\w+)", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert steps == ["lint", "vllm", "test"]  # with its environment the tests of vLLM run among the others


def test_notebooks_are_kept_without_outputs() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            assert not cell.get("outputs") and not cell.get("execution_count"), f"{path.name} cell {number}"


# ---- README ----------------------------------------------------------------------------------------------------------


def code_blocks(text: str, language: str) -> list[tuple[int, str]]:
    """First line (1-based) and content of every fenced block marked with `language`."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in found]


def _readme() -> str:
    if not README.exists():
        pytest.skip("README.md is not written yet")
    return README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readme_runs_as_printed(tmp_path: Path) -> None:
    """All Python blocks, one after the other in one process, in an empty folder; errors carry the README's line numbers."""
    blocks = code_blocks(_readme(), "python")
    if not blocks:
        pytest.skip("README.md has no Python block yet")
    script = ""
    for line, code in blocks:
        script += "\n" * (line - 1 - script.count("\n")) + code
    (tmp_path / "README.py").write_text(script, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "README.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Every Python file of the package, the analyses and the benchmarks, with what it says of itself: `make tree` writes it."""
    text = _readme()
    assert readme_tree.replaced(text) == text, "README.md draws another tree: run make tree"
    assert "  cli.py" in text


@pytest.mark.parametrize(
    ("docstring", "wanted"),
    [
        ("One thing. Another.", "One thing"),
        ("After Stolfo et al. (2024): a rule.", "After Stolfo et al. (2024): a rule"),
        ("x " * 20 + "and so on, " + "y " * 60, "x " * 20 + "and so on"),
        ("x " * 20 + "(and, " + "y " * 60 + ")", "x " * 20 + "(and, " + "y " * 42 + "..."),
        ("Two\nlines.\n\nMore.", "Two lines"),
    ],
)  # fmt: skip
def test_a_file_is_described_by_its_first_sentence(docstring: str, wanted: str) -> None:
    assert readme_tree.first_sentence(docstring) == wanted


def test_the_readme_names_only_targets_that_exist() -> None:
    named = set(
        re.findall(
            r"(?<!contrast )\bmake ([a-z-]+)\b",
            "\n".join(re.findall(r"```.*?```|`[^`\n]+`", _readme(), flags=re.DOTALL)),
        )
    )
    made = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    assert named <= made


def test_blocks_are_read_as_drawn() -> None:
    text = "# Title\n\n```python\nx = 1\n```\n\n```text\nnot code\n```\n```python\nassert x\n```\n"
    assert code_blocks(text, "python") == [(4, "x = 1\n"), (11, "assert x\n")]
    assert code_blocks(text, "text") == [(8, "not code\n")]

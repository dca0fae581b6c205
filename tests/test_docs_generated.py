"""What is generated or listed in the documentation is complete and up to date: command line, reference, changelog, and the site itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import walls
from tests.test_docs import DOCS, PAGES, REFERENCE, ROOT, documented, read


@pytest.mark.parametrize(
    ("script", "page"),
    [("command_line", "reference/command-line.md"), ("formats", "formats.md"), ("data", "data.md")],
)
def test_a_generated_page_is_up_to_date(script: str, page: str) -> None:
    spec = importlib.util.spec_from_file_location(script, DOCS / f"{script}.py")
    assert spec and spec.loader
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert read(page) == writer.page(), f"run python docs/{script}.py"


# What a reader does not call: the command line, training of the bundled model, and the works inside.
INSIDE = re.compile(
    r"(cli|commands|bundled|studies|adapters|architecture|attention|cell_pools|compiled|decoding|disk|origin|pieces"
    r"|records|halving|manifest|schema|scoring|streams|joint|tensorfile|token_view|tracing|vector_view|data\.(reading|surface|comments|english|ifeval|labelled"
    r"|parallel|plain|degrade|means|multiple_choice)|evaluation\.(classifier|words|splits|pool|table|selfbleu|ngrams|ranking"
    r"|human|copying)|experts\.\w+|engines\.\w+|report\.\w+|run_state|steering_text|weights"
    r"|instructions\.(asking|controls|ends|forms|runs)"
    r"|interop\.(control_vector|foreign|plain_pickle|records|torch_file|trees|vectorcard)|following\.\w+|ablation\.(edited|forced|outcomes|erasure)|probes\.\w+)\b"
)


def test_the_reference_has_every_public_module() -> None:
    shown = {
        name.removeprefix("steerlab.")
        for page in PAGES
        if page.startswith(REFERENCE)
        for name in documented(read(page))
    }
    modules = {name for name in walls.modules() if name and not INSIDE.match(name)}
    packages = {name for name in modules if any(other.startswith(name + ".") for other in modules)}
    assert shown >= modules - packages, sorted(modules - packages - shown)
    for name in shown:
        assert name in walls.modules(), name


def test_the_changelog_has_this_version() -> None:
    from steerlab import __version__

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", text, flags=re.MULTILINE)
    assert versions[0] == __version__
    assert versions == sorted(versions, key=lambda v: [int(n) for n in v.split(".")], reverse=True)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs: make docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "site" / "index.html").is_file()

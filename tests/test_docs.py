"""The documentation is true: its code runs as printed, its links arrive, all pages can be reached, generated ones are up to date."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from steerlab.cli import app
from tests import walls

ROOT = walls.ROOT
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
REFERENCE, RESULTS = "reference/", "results/"
# Pages about other machines, other programs' files and finished runs: their lines are checked for spelling and not run.
SPELT = (REFERENCE, RESULTS, "engines.md", "formats.md", "interop.md", "report.md", "scale.md")

# Appended to printed lines: the same command, small enough for a test. A later option of the same name wins.
SMALLER = {
    "synthesize": ["-n", "2", "--max-new-tokens", "12", "--source", "sample", "-q"],
    "study low-resource": ["-q"],
    "study merge": ["-q"],
    "sweep": ["--directions", "1", "-q"],
    "guide": ["-n", "1", "--max-new-tokens", "8", "-q"],
    "expert train": ["-q"],
    "evaluate": ["--seeds", "2", "-q"],
    "reproduce": ["-q"],
    "vectors fit": ["-q"],
    "similarity": ["-q"],
    **{f"instruct {verb}": ["-q"] for verb in ("fit", "select", "generate", "evaluate", "interfere")},
}
SLOW_PAGES = ("language-vector", "layer-and-strength", "study", "data-set", "guide", "instruction", "judge")
SLOW = {f"how-to/{page}.md" for page in SLOW_PAGES}
SHELL_ONLY = {"git", "source", "cd"}  # said, not run: they change the reader's machine and no file of a run
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: its first line (1-based), language, the file it is named after (or ""), and its content."""

    line: int
    language: str
    title: str
    code: str


def blocks(text: str) -> list[Block]:
    """Every fenced block of a page, also an indented one."""
    fence = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
    found = []
    for match in fence.finditer(text):
        indent, language, rest, code = match.groups()
        title = re.search(r'title="([^"]+)"', rest)
        lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
        at = text.count("\n", 0, match.start(4)) + 1
        found.append(Block(at, language, title.group(1) if title else "", "".join(lines)))
    return found


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def commands(code: str) -> Iterator[tuple[list[str], Path | None]]:
    """The words of each line of a shell block without its comment, and the file its output goes to."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            *words, out = words if len(words) > 2 and words[-2] == ">" else [*words, ""]
            yield (words[:-1], Path(out)) if out else (words, None)


@cache
def root_command() -> Any:
    """The whole command line as typer builds it, once."""
    return typer.main.get_command(app)


def leaf(words: list[str]) -> tuple[str, Any, list[str]]:
    """("study merge", the command, its arguments) of `steerlab study merge ...`."""
    command: Any = root_command()
    rest, name = words[1:], []
    if rest[:2] == ["sweep", "guidance"]:  # the same command by its other name
        rest = ["guide-sweep", *rest[2:]]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"{shlex.join(words)}: no such command"
        name.append(rest[0])
        command, rest = command.commands[rest[0]], rest[1:]
    return " ".join(name), command, rest


def parses(words: list[str]) -> None:
    """Every option and argument of the line is known, and none is missing."""
    name, command, rest = leaf(words)
    command.make_context(f"steerlab {name}", list(rest))


def elsewhere(words: list[str]) -> bool:
    """A line that needs what a test has not (a model or repository of the hub, data sets in a folder DIR), or that writes figures/."""
    hub = any(re.fullmatch(r"[A-Za-z][\w.-]*/[\w.-]+", b) for a, b in itertools.pairwise(words) if a in HUB)
    return hub or "DIR" in words or "~/data" in words or ("figures" in words and "--list" not in words)


HUB = {"-m", "--model", "--classifier", "--push-to"}


def run_line(words: list[str], out: Path | None) -> None:
    """Run a printed line in this process, made small; a line that cannot be run here is checked for its words."""
    match words[0]:
        case "steerlab":
            parses(words)
            if not elsewhere(words):
                said = io.StringIO()
                with contextlib.redirect_stdout(said) if out else contextlib.nullcontext():
                    name, _, rest = leaf(words)
                    code = app([*name.split(), *rest, *SMALLER.get(name, [])], "steerlab", standalone_mode=False)
                assert code in (None, 0), f"{shlex.join(words)}: exit code {code}"
                if out:
                    out.write_text(said.getvalue(), encoding="utf-8")
        case "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, flags=re.MULTILINE), f"make has no target {words[1]}"
        case "python":
            module = words[words.index("-m") + 1] if "-m" in words else words[1].removesuffix(".py").replace("/", ".")
            assert (ROOT / (module.replace(".", "/") + ".py")).is_file() or importlib.util.find_spec(module), words
        case other:
            assert other in SHELL_ONLY, f"{shlex.join(words)}: give it a way to be checked"


RUN = [p for p in PAGES if not p.startswith(SPELT) and re.search("^ *```(python|bash)", read(p), re.M)]


@pytest.mark.parametrize("page", [pytest.param(p, marks=pytest.mark.slow) if p in SLOW else p for p in RUN])
def test_the_page_runs_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks in one namespace and shell lines, in order, in an empty folder; errors carry the page's line numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEERLAB_DATA", raising=False)  # what a page says holds for a reader without local data sets
    if "expert train" in read(page):
        pytest.importorskip("peft")
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(read(page)):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(DOCS / page), "exec"), namespace)
        elif block.language == "bash":
            for words, out in commands(block.code):
                run_line(words, out)


@pytest.mark.parametrize("page", [p for p in PAGES if p.startswith(SPELT)])
def test_examples_and_commands_are_spelt_right(page: str) -> None:
    """Lines of these pages name commands and options there are; some of them take hours and are not run."""
    for block in blocks(read(page)):
        if block.language == "python":
            ast.parse(block.code)
        for words, _ in commands(block.code) if block.language == "bash" else ():
            if words[0] == "steerlab":
                parses(words)


def test_code_of_other_packages_is_python() -> None:
    """Blocks marked `py` are calls of packages that are not installed here: they are parsed and not run."""
    found = [block for page in PAGES for block in blocks(read(page)) if block.language == "py"]
    assert len(found) >= 3
    for block in found:
        ast.parse(block.code)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    for page in PAGES:
        for block in blocks(read(page)):
            assert block.language in {"python", "bash", "py", "toml", "text"}, f"{page} line {block.line}"
            if block.language == "toml":
                tomllib.loads(block.code)


# ---- links, pictures, navigation -------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings as mkdocs makes them, and those that mkdocstrings makes of what it documents."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ +(.+?)(?: *\{[^}]*\})?$", prose, flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head.replace("`", "")).strip().lower()) for head in heads}


def links(text: str) -> list[str]:
    prose = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose))


def documented(text: str) -> list[str]:
    """What mkdocstrings documents on a page."""
    return re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)


def exists(name: str) -> bool:
    """Whether `steerlab.module` or `steerlab.module.thing` is in the sources; nothing is imported."""
    modules = {f"steerlab.{key}": path for key, path in walls.modules().items()}
    module, _, thing = name.rpartition(".")
    if name in modules or module not in modules:
        return name in modules
    tree = ast.parse(modules[module].read_text(encoding="utf-8"))
    return thing in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("page", PAGES)
def test_links_arrive(page: str) -> None:
    for link in links(read(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (DOCS / page).parent / path if path else DOCS / page
        assert target.resolve().is_relative_to(ROOT) and target.is_file(), f"{page} links to {link}"
        if anchor:
            text = target.read_text(encoding="utf-8")
            api = any(anchor == name or anchor.startswith(name + ".") for name in documented(text)) and exists(anchor)
            assert api or anchor in anchors(text), f"{page} links to {link}, and there is no such heading"


def test_pictures_are_described_and_used() -> None:
    used = set()
    for page in PAGES:
        for said, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", read(page)):
            assert len(said) > 10, f"{page} shows {path} without words for those who do not see it"
            used.add(((DOCS / page).parent / path).resolve())
    drawn = set((DOCS / "pictures").iterdir())
    assert drawn and drawn <= used, drawn - used
    for picture in drawn:
        assert "<title>" in picture.read_text(encoding="utf-8"), picture


def navigation() -> list[str]:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r"^ +- [^:\n]+: (\S+\.md)\b", text[text.index("\nnav:") :], flags=re.MULTILINE)


def test_the_navigation_is_complete() -> None:
    """Every page can be reached, and every entry is a page; results are put there by a pattern."""
    named = navigation()
    assert len(set(named)) == len(named)
    for entry in named:
        assert list(DOCS.glob(entry)), f"{entry} is in the navigation and not there"
    reached = {path.relative_to(DOCS).as_posix() for entry in named for path in DOCS.glob(entry)}
    assert reached == set(PAGES)


def test_blocks_and_lines_are_read_as_printed() -> None:
    text = 'a\n\n```toml title="x.toml"\nb = 1\n```\n\n    ```bash\n    steerlab models > list.txt  # all\n    ```\n'
    assert blocks(text) == [
        Block(4, "toml", "x.toml", "b = 1\n"),
        Block(8, "bash", "", "steerlab models > list.txt  # all\n"),
    ]
    assert list(commands("steerlab models > list.txt  # all\n\nmake test\n")) == [
        (["steerlab", "models"], Path("list.txt")),
        (["make", "test"], None),
    ]
    assert elsewhere(["steerlab", "lens", "jv", "-m", "Qwen/Qwen3-0.6B"]) and not elsewhere(["steerlab", "lens", "jv"])
    assert exists("steerlab.model.TracedModel") and exists("steerlab.probing") and not exists("steerlab.model.Nothing")
    assert anchors("# A title: of `two`\n\n```bash\n# no heading\n```\n") == {"a-title-of-two"}
    assert links("[a](b.md) and `[c](d.md)`\n```text\n[e](f.md)\n```\n") == ["b.md"]

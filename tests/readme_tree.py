"""The tree at the end of README.md, drawn from the files and their docstrings: `make tree` writes it there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests import walls

ROOT = walls.ROOT
COLUMN, WIDTH = 30, 130  # where the words begin, and how many characters they may take
SHORT = 30  # a clause shorter than this says too little by itself
WHOLE = ("steerlab", "analyses", "benchmarks")
SAID = {
    "analyses/": "one script per figure",
    "benchmarks/": "speed and memory as ratios within one run",
    "steerlab/bundled/polyglot_mini/": "the bundled model: weights, tokenizer, training record, card",
    "steerlab/bundled/polyglot_mini_it/": "the same model taught to follow instructions",
    "steerlab/bundled/samples/": "648 sentences and 144 contrast pairs written for this project",
    "steerlab/bundled/vectors/": "vectors of polyglot-mini, the sweep they were tuned on, the leakage check",
}  # what has no docstring
LAST = {
    "docs/": "the documentation site: concepts, how-tos, reference, results (make docs)",
    "figures/": "outputs: .png .pdf .csv .json",
    "tests/": "mirrors the modules; tests/reference holds slow, obvious versions",
}


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, cut at a clause where it is long and never inside brackets."""
    whole = " ".join(text.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<!et al)(?<!e\.g)(?<!i\.e)[.] (?=[A-Z`\d])", whole)[0].rstrip(".")
    if len(sentence) <= WIDTH:
        return sentence
    for cut in reversed([m.start() for m in re.finditer(r"[,;:?] ", sentence)]):
        kept = sentence[:cut]
        if (
            SHORT < cut <= WIDTH
            and all(kept.count(a) == kept.count(b) for a, b in ("()", "[]", "{}"))
            and kept.count("`") % 2 == 0
        ):
            return kept
    return sentence[:WIDTH].rsplit(" ", 1)[0] + " ..."


def draw(root: Path = ROOT) -> str:
    """The tree as README.md shows it: every Python file of the package, the analyses and the benchmarks with what it says of itself."""
    files = sorted(path.relative_to(root) for path in walls.tracked() if path.suffix == ".py")
    lines: list[str] = []
    for top in WHOLE:
        lines += _folder(Path(top), [path for path in files if path.parts[0] == top], root, 0)
    lines += [_line("notebooks/" + name, _title(root / "notebooks" / name), 0) for name in _notebooks(root)]
    return "\n".join([*lines, *(_line(name, said, 0) for name, said in LAST.items())]) + "\n"


def _folder(folder: Path, files: list[Path], root: Path, depth: int) -> Iterator[str]:
    key = f"{folder.as_posix()}/"
    yield _line(
        f"{folder.name}/", SAID.get(key) or ("" if depth == 0 else _docstring(root / folder / "__init__.py")), depth
    )
    own = [path for path in files if path.parent == folder and path.name != "__init__.py"]
    yield from (_line(path.name, _docstring(root / path), depth + 1) for path in own)
    below = {path.relative_to(folder).parts[0] for path in files if path.parent != folder}
    below |= {Path(name).name for name in SAID if Path(name).parent == folder}
    for name in sorted(below):
        yield from _folder(
            folder / name, [path for path in files if path.is_relative_to(folder / name)], root, depth + 1
        )


def _docstring(path: Path) -> str:
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def _notebooks(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "notebooks").glob("*.ipynb"))


def _title(notebook: Path) -> str:
    """The first heading of a notebook."""
    found = re.search(r'"# ([^"\\]+)', notebook.read_text(encoding="utf-8"))
    return found.group(1).strip() if found else ""


def _line(name: str, said: str, depth: int) -> str:
    return f"{'  ' * depth + name:<{COLUMN - 1}} {said}".rstrip()


def replaced(readme: str) -> str:
    """README.md's text with its tree drawn anew."""
    return re.sub(
        r"(## The tree\n\n```text\n).*?(```\n)", lambda m: m.group(1) + draw() + m.group(2), readme, flags=re.DOTALL
    )


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(replaced(readme.read_text(encoding="utf-8")), encoding="utf-8")

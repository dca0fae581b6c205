"""The walls of the architecture as functions: a module's name and source in, sentences about what breaks a wall out."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.ranks import RANKS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "steerlab"

MATHS = {"errors", "types", *RANKS[1]}
NOT_FOR_MATHS = {"nnsight", "transformers", "transformer_lens", "matplotlib", "datasets"}
# Who alone may import what.
OWNERS: Mapping[str, tuple[str, ...]] = {
    "nnsight": ("model", "engines", "engines.*"),
    "transformer_lens": ("bridge",),
    "matplotlib": ("figures",),
}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SEEDING = {
    "torch.manual_seed",
    "torch.random.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "random.seed",
    "np.random.seed",
    "numpy.random.seed",
    "set_seed",
    "transformers.set_seed",
}
SEEDS_FOR_ITSELF = {"bundled.train"}  # a script, not a library: it alone decides about its process
# Who alone writes files of torch.save, for programs that read nothing else: mappings of tensors, which load as weights only. Tests
# that hand odd ones to the reader make them.
WRITES_TORCH_FILES = {
    "steerlab/interop/torch_file.py",
    *(f"tests/{name}.py" for name in ("fuzz_commands", "fuzz_vectors", "test_found_in_vectors", "test_hostile_paths")),
}
MAX_FILE, MAX_FUNCTION = 300, 60
# An absolute path of somebody's machine, not part of an address or of a longer path.
MACHINE_PATH = re.compile(r"(?<![\w.~:/$}*-])/(?:home|Users|root|work|workspace|mnt|opt|srv|scratch)/[\w.-]+")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package: its dotted name without the package's, and its file."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def tracked(root: Path = ROOT) -> list[Path]:
    """Every file that is, or could next be, committed; without git, every file outside hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
        files = [root / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        files = [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return sorted(path for path in files if path.is_file())


def rank(module: str) -> int | None:
    """The module's place in `RANKS`, None when it has none."""
    for number, row in enumerate(RANKS):
        if module in row:
            return number
    for number, row in enumerate(RANKS):
        if _among(module, row):
            return number
    return None


def _among(module: str, names: Iterable[str]) -> bool:
    return any(module == name or (name.endswith(".*") and module.startswith(name[:-1])) for name in names)


def imported(module: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a module imports, wherever in it, also by `import_module("name")`."""
    package = [PACKAGE, *module.split(".")][:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _dotted(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def inner_imports(module: str, source: str, known: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Line and name of the package's own modules that a module imports."""
    known = set(known)
    for line, name in imported(module, source):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        inner = parts[1:]
        while inner and ".".join(inner) not in known:
            inner = inner[:-1]
        yield line, ".".join(inner)


def downward(module: str, source: str, known: Iterable[str]) -> list[str]:
    """Imports run downwards only, and every module has a rank."""
    here = rank(module)
    if here is None:
        return [f"module {module!r} has no rank: add it to RANKS in tests/ranks.py, where it belongs"]
    found = []
    for line, name in inner_imports(module, source, known):
        there = rank(name)
        if there is not None and there > here:
            found.append(f"line {line}: {module or PACKAGE} imports {name or PACKAGE}, which stands above it")
    return found


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle of imports, as the modules on it; empty when there is none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in graph.get(name, ()):
            if found := visit(other, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def outer_imports(module: str, source: str) -> list[str]:
    """The maths knows no model and no plotting, each engine has one owner, and nothing imports the analyses."""
    found = []
    for line, name in imported(module, source):
        top = name.split(".")[0]
        if module in MATHS and top in NOT_FOR_MATHS:
            found.append(f"line {line}: {module} is maths and imports {top}")
        elif top in OWNERS and not _among(module, OWNERS[top]):
            found.append(f"line {line}: {module or PACKAGE} imports {top}, which only {OWNERS[top][0]} may")
        elif top in ("analyses", "benchmarks", "tests"):
            found.append(f"line {line}: {module or PACKAGE} imports {top}, which stands outside the package")
    return found


def unsafe(source: str, file: str = "") -> list[str]:
    """Nothing is unpickled and no code comes with a model; `file` is where it stands in the repository."""
    found = []
    for line, name in imported("", source):
        if name.split(".")[0] in PICKLERS:
            found.append(f"line {line}: imports {name.split('.')[0]}, which runs what it reads")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is(value, False):
                    found.append(f"line {node.lineno}: trust_remote_code")
        if not isinstance(node, ast.Call):
            continue
        name, given = _dotted(node.func), {word.arg: word.value for word in node.keywords}
        if "trust_remote_code" in given and not _is(given["trust_remote_code"], False):
            found.append(f"line {node.lineno}: trust_remote_code")
        if "allow_pickle" in given and not _is(given["allow_pickle"], False):
            found.append(f"line {node.lineno}: allow_pickle")
        if name == "torch.load" and not _is(given.get("weights_only"), True):
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if name == "torch.save" and file in WRITES_TORCH_FILES:
            continue
        if name == "torch.save" or name.split(".")[-1] in ("read_pickle", "to_pickle"):
            found.append(f"line {node.lineno}: {name} pickles: use safetensors or JSON")
    return found


def seeding(module: str, source: str) -> list[str]:
    """The library leaves the process's random state alone."""
    if module in SEEDS_FOR_ITSELF:
        return []
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        f"line {call.lineno}: {_dotted(call.func)} seeds the whole process"
        for call in calls
        if _dotted(call.func) in SEEDING
    ]


def sizes(source: str) -> list[str]:
    """Files and functions stay small enough to read at once."""
    lines = source.count("\n") + (not source.endswith("\n") and bool(source))
    found = [f"{lines} lines, more than {MAX_FILE}"] if lines > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                found.append(f"line {node.lineno}: {node.name} has {length} lines, more than {MAX_FUNCTION}")
    return found


def undocumented(source: str) -> list[str]:
    """Every module, public class, public function and public method says what it claims; a property may be its own name."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not tree.body else ["line 1: the module has no docstring"]

    def look(body: list[ast.stmt], owner: str) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            marks = {_dotted(mark).split(".")[-1] for mark in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {
                "overload",
                "override",
                "property",
                "cached_property",
                "setter",
            }:
                found.append(f"line {node.lineno}: {owner}{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{node.name}.")

    look(tree.body, "")
    return found


def machine_paths(text: str) -> list[str]:
    """No file names a place on the machine it was written on."""
    lines = enumerate(text.split("\n"), 1)
    return [f"line {number}: {match.group()}" for number, line in lines for match in MACHINE_PATH.finditer(line)]


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value

"""The walls of the architecture hold, and each wall catches what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import walls

MODULES = {name: path.read_text(encoding="utf-8") for name, path in walls.modules().items()}


def _sources(*folders: str) -> dict[str, str]:
    files = (path for folder in folders for path in sorted((walls.ROOT / folder).rglob("*.py")))
    return {path.relative_to(walls.ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def _nothing(found: dict[str, list[str]]) -> None:
    report = "\n".join(f"{where}: {what}" for where, whats in found.items() for what in whats)
    if report:
        pytest.fail(report, pytrace=False)


def test_the_walls_look_at_the_package() -> None:
    assert {
        "",
        "errors",
        "types",
        "moments",
        "vectors",
        "operators",
        "store",
        "data.languages",
    } <= MODULES.keys()


def test_imports_run_downwards() -> None:
    _nothing({name: walls.downward(name, source, MODULES) for name, source in MODULES.items()})


def test_imports_run_in_no_circle() -> None:
    graph = {
        name: [other for _, other in walls.inner_imports(name, source, MODULES)] for name, source in MODULES.items()
    }
    assert not walls.cycle(graph)


def test_engines_and_plotting_stay_with_their_owners() -> None:
    _nothing({name: walls.outer_imports(name, source) for name, source in MODULES.items()})


def test_nothing_is_unpickled_and_no_remote_code_is_trusted() -> None:
    sources = _sources("steerlab", "analyses", "benchmarks", "tests")
    _nothing({name: walls.unsafe(source, name) for name, source in sources.items()})


def test_the_library_seeds_no_process() -> None:
    _nothing({name: walls.seeding(name, source) for name, source in MODULES.items()})


def test_files_and_functions_are_small() -> None:
    sources = _sources("steerlab", "analyses", "benchmarks", "tests")
    _nothing({name: walls.sizes(source) for name, source in sources.items()})


def test_public_things_have_docstrings() -> None:
    _nothing({name: walls.undocumented(source) for name, source in _sources("steerlab").items()})


def test_no_drawer_for_everything() -> None:
    names = {path.stem for path in walls.modules().values()}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


def test_no_file_names_a_machine() -> None:
    found = {}
    for path in walls.tracked():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found[path.relative_to(walls.ROOT).as_posix()] = walls.machine_paths(data.decode("utf-8", errors="replace"))
    assert "pyproject.toml" in found
    _nothing(found)


KNOWN = ("", "errors", "moments", "model", "data", "data.sources", "cli", "recipes", "vectors")


@pytest.mark.parametrize(
    ("module", "source", "names"),
    [
        ("moments", "from steerlab.model import TracedModel", "model"),
        ("moments", "from steerlab import errors, model", "model"),
        ("moments", "import steerlab.model as m", "model"),
        ("moments", "def f():\n    from .model import load", "model"),
        ("data.sources", "from ..recipes import fit", "recipes"),
        ("data", "import importlib\nimportlib.import_module('steerlab.cli')", "cli"),
        ("recipes", "from steerlab import __version__", "steerlab, which"),
        ("brandnew", "", "has no rank: add it to RANKS"),
    ],
)
def test_the_downward_wall_catches(module: str, source: str, names: str) -> None:
    (found,) = walls.downward(module, source, KNOWN)
    assert names in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from steerlab.moments import Moments\nfrom steerlab import data, errors"),
        ("data", "from steerlab.data.sources import load"),
        ("data.sources", "from .sources import load\nfrom ..errors import SteerlabError"),
        ("cli", "from steerlab import __version__"),
        ("", "from steerlab.recipes import synthesize"),
    ],
)
def test_the_downward_wall_lets_pass(module: str, source: str) -> None:
    assert walls.downward(module, source, KNOWN) == []


def test_the_circle_wall_catches() -> None:
    assert walls.cycle({"a": ["b", "d"], "b": ["c"], "c": ["b"], "d": []}) == ["b", "c", "b"]
    assert walls.cycle({"a": ["a"]}) == ["a", "a"]
    assert walls.cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vectors", "import transformers"),
        ("operators", "def f():\n    from transformers import AutoModel"),
        ("types", "from datasets import Dataset"),
        ("probes", "import matplotlib.pyplot as plt"),
        ("capture", "import nnsight"),
        ("generation", "from nnsight import TransformersModel"),
        ("evaluation.stats", "from matplotlib import pyplot"),
        ("model", "import transformer_lens"),
        ("recipes", "from analyses import layers"),
        ("cli", "import analyses.layers"),
        ("bridge", "__import__('matplotlib')"),
    ],
)
def test_the_outer_wall_catches(module: str, source: str) -> None:
    assert len(walls.outer_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "import nnsight, transformers"),
        ("engines.vllm", "from nnsight.modeling.vllm import VLLM"),
        ("bridge", "from transformer_lens.model_bridge import TransformerBridge"),
        ("figures", "from matplotlib.figure import Figure"),
        ("data.reading", "import datasets"),
        ("vectors", "import torch, safetensors"),
    ],
)
def test_the_outer_wall_lets_pass(module: str, source: str) -> None:
    assert walls.outer_imports(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.save(x, path)",
        "pd.read_pickle(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "AutoModel.from_pretrained(name, **{'trust_remote_code': True})",
    ],
)
def test_the_safety_wall_catches(source: str) -> None:
    assert len(walls.unsafe(source)) == 1


def test_the_safety_wall_lets_pass() -> None:
    assert (
        walls.unsafe("torch.load(p, weights_only=True)\nload(n, trust_remote_code=False)\n'pickle, torch.load(p)'")
        == []
    )


@pytest.mark.parametrize("call", ["torch.manual_seed(1)", "np.random.seed(1)", "random.seed(1)", "set_seed(1)"])
def test_the_seeding_wall_catches(call: str) -> None:
    assert len(walls.seeding("generation", call)) == 1
    assert walls.seeding("generation", "torch.Generator().manual_seed(1)\nnp.random.default_rng(1)") == []
    assert walls.seeding("bundled.train", call) == []


def test_the_size_wall_catches() -> None:
    body = "    x = 1\n"
    assert walls.sizes("def f():\n" + body * 59) == []
    assert walls.sizes("class A:\n    async def f():\n" + ("    " + body) * 60) == [
        "line 2: f has 61 lines, more than 60"
    ]
    assert walls.sizes("x = 1\n" * 300) == walls.sizes("x = 1\n" * 299 + "x = 1") == []
    assert walls.sizes("x = 1\n" * 300 + "x = 1") == ["301 lines, more than 300"]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = 1", 1),
        ('"""M."""\ndef f(): pass', 1),
        ('"""M."""\nclass A:\n    def f(self): pass', 2),
        ('"""M."""\nclass A:\n    """C."""\n    def f(self): pass\n    @property\n    def g(self): pass', 1),
        ('"""M."""\nclass A:\n    """C."""\n    def __init__(self): pass\n    def _g(self): pass', 0),
        ('"""M."""\ndef _f(): pass\ndef g():\n    """Does."""\n    def inner(): pass', 0),
        ("", 0),
    ],
)
def test_the_docstring_wall_catches(source: str, count: int) -> None:
    assert len(walls.undocumented(source)) == count


@pytest.mark.parametrize("folder", ["home", "Users", "root", "work", "mnt"])
def test_the_machine_wall_catches(folder: str) -> None:
    path = "/".join(["", folder, "jane", "model"])
    for text in (path, f'open("{path}")', f"data = {path}", f"file={path}"):
        assert len(walls.machine_paths(text)) == 1
    for text in (f"https://host.org{path}", f"shared{path}", f"~{path}", f"$ROOT{path}", f"/{folder}/"):
        assert walls.machine_paths(text) == []


def test_modules_and_tracked_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "steerlab" / "data").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "data/__init__.py", "data/b.py"):
        (tmp_path / "steerlab" / name).touch()
    (tmp_path / ".hidden").touch()
    assert list(walls.modules(tmp_path)) == ["", "a", "data", "data.b"]
    assert walls.rank("data.b") == walls.rank("data") != walls.rank("bundled.train") != walls.rank("bundled")
    listed: Callable[[Path], list[Path]] = walls.tracked
    assert tmp_path / ".hidden" not in listed(tmp_path)

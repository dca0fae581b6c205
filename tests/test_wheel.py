"""The wheel holds everything that is in the package, and works where only it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests import walls

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
ASK = """
import json, steerlab
from steerlab.bundled.vectors import bundled_vectors
from steerlab.loading import bundled_path, load
print(json.dumps([steerlab.__file__, str(bundled_path()), load().n_layers, len(bundled_vectors())]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, as a fresh clone would build it, by the build backend that is installed."""
    pytest.importorskip("setuptools", "77", reason="needs setuptools 77 to build")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for path in walls.tracked():
        target = tree / path.relative_to(walls.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = out.glob("steerlab-*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        there = {path.relative_to(walls.ROOT).as_posix() for path in walls.tracked()}
        assert held == {name for name in there if name.startswith("steerlab/")}
        assert "steerlab/bundled/polyglot_mini/model.safetensors" in held and "steerlab/py.typed" in held
        for name in held:
            assert archive.read(name) == (walls.ROOT / name).read_bytes(), name


@pytest.mark.slow
def test_the_wheel_installs_in_a_clean_environment_and_brings_its_model(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are lent by this environment; nothing of this project is."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    installed = subprocess.run(pip, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr[-3000:]
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = subprocess.run([str(python), "-c", ASK], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr[-3000:]
    package, model, layers, vectors = json.loads(asked.stdout.splitlines()[-1])
    assert Path(package).is_relative_to(site) and Path(model).is_relative_to(site)
    assert layers > 0 and vectors > 0
    shown = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "steerlab"), "--help"], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert shown.returncode == 0 and "synthesize" in shown.stdout

import beartype  # noqa: F401  before nnsight, which mounts `.save` on `object` and breaks a later import of beartype

# isort: split
# ruff: noqa: E402  the hook must stand before the first import of the package
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers: tests touch no network, and an unknown model fails at once

import jaxtyping

jaxtyping.install_import_hook("steerlab", "beartype.beartype")

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets: `STEERLAB_DATA`, else `../shared/data` next to the repository."""
    named = os.environ.get("STEERLAB_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the real data sets, and there is no folder {path} (set STEERLAB_DATA)")
    return path


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Fail the test that leaves a variable of ours changed: on another machine it would break every test after it."""
    before = {name: text for name, text in os.environ.items() if name.startswith("STEERLAB_")}
    yield
    after = {name: text for name, text in os.environ.items() if name.startswith("STEERLAB_")}
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert after == before, f"the test changed the environment: {before} became {after}"

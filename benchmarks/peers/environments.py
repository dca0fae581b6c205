"""One environment per peer, versions pinned: `python -m benchmarks.peers.environments --folder runs/peers`. About 6 GB, 10 minutes.

Packages come through plain pip, in which `torch==2.13.0` is the build without CUDA on an index that offers one; TransformerLens is a
dependency of steerlab, so it, hooks by hand and plain transformers run in the project's own environment.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

TORCH, COMMON = "torch==2.13.0", ("accelerate==1.15.0",)
OLD, NEW = "transformers==4.57.6", "transformers==5.19.0"  # 4.57: what steering-vectors and dialz still run on
PACKAGES: dict[str, tuple[str, ...]] = {
    "steering-vectors": ("steering-vectors==0.12.2", OLD),
    "repeng": ("repeng==0.4.0", NEW),
    "dialz": ("dialz==1.1.4", "ipython==9.18.1", OLD),  # dialz imports IPython and does not ask for it
    "pyvene": ("pyvene==0.1.8", NEW),
}
OURS = ("transformer-lens", "hooks")  # peers that run in the project's own environment
PEERS = (*PACKAGES, *OURS)
ABSENT = {"aisteer360": "0.1.2 is not on the package index; its authors install it from a checkout of its repository"}
RECORD = "installed.json"


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter a peer runs under."""
    return Path(sys.executable) if peer in OURS else folder / peer / "bin" / "python"


def missing(peer: str, folder: Path) -> str:
    """Why a peer cannot run, empty when it can: its environment is not there, was made for other versions, or pip failed."""
    if peer in OURS:
        return ""
    record = folder / peer / RECORD
    if not record.is_file():
        return "its environment is not there: run python -m benchmarks.peers.environments"
    found = json.loads(record.read_text(encoding="utf-8"))
    if found["asked"] != wanted(peer):
        return "its environment holds other versions: run python -m benchmarks.peers.environments"
    return found["error"]


def wanted(peer: str) -> list[str]:
    """What pip is asked for."""
    return [TORCH, *COMMON, *PACKAGES[peer]]


def make(peer: str, folder: Path) -> str:
    """Build one environment, unless it is there; returns why that failed, or nothing. The reason is kept beside it."""
    if (folder / peer / RECORD).is_file() and not missing(peer, folder):
        return ""
    venv.create(folder / peer, with_pip=True, clear=True)
    words = [str(python_of(peer, folder)), "-m", "pip", "install", "--quiet", *wanted(peer)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
    error = "" if done.returncode == 0 else "pip: " + " ".join(lines)
    record = {"asked": wanted(peer), "error": error}
    (folder / peer / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return error


def main() -> None:
    """Build what was asked for, one after the other, and say what could not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="where the environments go")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES), help="peers to install")
    given = parser.parse_args()
    for peer in given.only:
        print(f"{peer}: {make(peer, given.folder) or 'ready'}", flush=True)


if __name__ == "__main__":
    main()

"""`steerlab figures`: the analyses of a source checkout, all or some, computed or only drawn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from steerlab.errors import SteerlabError

CHECKOUT = Path(__file__).resolve().parents[2]


def run(redraw: bool, again: bool, only: Sequence[str], listing: bool, data: Path | None, out: Path | None) -> int:
    """The exit code of `python -m analyses` in the checkout this package was imported from.

    A process of its own: the package does not import what is built on it. Raises `SteerlabError` where there are no analyses,
    and for `again` without computing.
    """
    if not (CHECKOUT / "analyses" / "__main__.py").is_file():
        raise SteerlabError(
            "there are no analyses beside this installation: clone the repository, install it with `pip install -e .`, and run "
            "`steerlab figures` again."
        )
    if redraw and again:
        raise SteerlabError("--again computes anew and was given without --compute: give both, or neither.")
    words = ["--redraw"] * redraw + ["--again"] * again + ["--list"] * listing
    words += [word for name in only for word in ("--only", name)]
    for flag, path in (("--data", data), ("--out", out)):
        words += [] if path is None else [flag, str(path.expanduser().absolute())]
    return subprocess.run([sys.executable, "-m", "analyses", *words], cwd=CHECKOUT, check=False).returncode

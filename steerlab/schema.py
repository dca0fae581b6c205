"""Layouts of files have numbers: an older one is brought up to date step by step, a newer one is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from steerlab.errors import SteerlabError

Step = Callable[[dict[str, Any]], dict[str, Any]]  # the record of layout n in, that of layout n + 1 out


def upgraded(
    path: Path,
    what: str,
    record: Mapping[str, Any],
    layout: object,
    current: int,
    steps: Mapping[int, Step] | None = None,
) -> dict[str, Any]:
    """The record of a file in `layout`, as layout `current` has it; steps[n] makes layout n + 1 of layout n. The file stays as it is.

    Raises `SteerlabError` for a newer layout, for one no step leads on from, and for what is no number of a layout.
    """
    if not isinstance(layout, int) or isinstance(layout, bool) or layout < 0:
        raise SteerlabError(f"{path} names no layout of a {what} ({layout!r}): it was changed after it was written.")
    if layout > current:
        raise SteerlabError(
            f"{path} holds a {what} in layout {layout}, and this steerlab reads layouts up to {current}: it was written by a newer "
            "version, so install that one."
        )
    found = dict(record)
    for number in range(layout, current):
        step = (steps or {}).get(number)
        if step is None:
            raise SteerlabError(
                f"{path} holds a {what} in layout {layout}, which this steerlab no longer reads: make it again."
            )
        found = step(found)
    return found

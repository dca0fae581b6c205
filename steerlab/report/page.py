"""The page itself: the template filled, its style and script inside, and nothing that could ask the network for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.records import understood
from steerlab.report import charts as drawing
from steerlab.report.gather import Seen, look
from steerlab.report.pairs import Pair, pairs

MOST_PAIRS = 1500
# Characters that HTML has no place for are shown as their pictures.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def write_report(runs: Sequence[Path], out: Path, title: str = "", most: int = MOST_PAIRS) -> int:
    """Write one HTML page about runs and studies to `out`, whole or not at all; returns how many pairs of texts it shows.

    The page needs no network and no other file. `most`: pairs shown at the most, spread evenly over what there is.

    Raises `SteerlabError` for no runs, a folder that is none, and where the page cannot be written.
    """
    if not runs or most < 1:
        raise SteerlabError(f"{len(runs)} runs and at most {most} pairs were asked for: give at least one of each.")
    with understood(", ".join(map(str, runs))):
        seen = [look(path, name) for path, name in zip(runs, _names(runs), strict=True)]
        text, shown = page(seen, title, most)
    with disk.told(out):
        disk.replace(out, text.encode("utf-8", "replace"))  # the name of a folder need not be UTF-8
    return shown


def page(runs: Sequence[Seen], title: str = "", most: int = MOST_PAIRS) -> tuple[str, int]:
    """The page as HTML, and how many pairs it shows."""
    found = pairs(runs)
    shown = _spread(found, most)
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # Everything that comes from a run is escaped: the style and the script are this package's own.
    environment = Environment(
        autoescape=True, finalize=_printable, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(zip=zip, styles=drawing.STYLES, shapes=drawing.SHAPES, box=drawing)
    series = drawing.series_of(runs)
    made = environment.from_string(_file("page.html")).render(
        title=title or "What " + ", ".join(run.name for run in runs) + " wrote",
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        runs=runs,
        pairs=shown,
        all_pairs=len(found),
        choices=_choices(shown),
        charts=drawing.charts(runs),
        series=[(name, drawing.STYLES[i % len(drawing.STYLES)]) for i, name in enumerate(series)],
        images=[(f"{run.name}: {name}", _uri(data)) for run in runs for name, data in run.images],
        version=version("steerlab"),
    )
    return made, len(shown)


def _printable(value: Any) -> Any:
    return value.translate(_PICTURES) if type(value) is str else value


def _names(runs: Sequence[Path]) -> list[str]:
    """Short names that tell the folders apart: the last part of each, or as many as it takes."""
    parts = [path.resolve().parts for path in runs]
    if len(set(parts)) != len(parts):
        raise SteerlabError("a run was given twice: name each once.")
    for length in range(1, max(len(part) for part in parts) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _spread(found: Sequence[Pair], most: int) -> list[Pair]:
    """At most so many of them, at even distances."""
    if len(found) <= most:
        return list(found)
    return [found[i * len(found) // most] for i in range(most)]


def _choices(shown: Sequence[Pair]) -> dict[str, list[str]]:
    """What each filter of the samples offers; only where there is a choice."""
    names = ("run", "language", "task", "label", "condition")
    offered = {name: sorted({str(getattr(pair, name)) for pair in shown}) for name in names}
    return {name: values for name, values in offered.items() if len(values) > 1}


def _file(name: str) -> str:
    return (resources.files("steerlab.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _uri(data: bytes) -> Any:
    return "data:image/png;base64," + base64.b64encode(data).decode()

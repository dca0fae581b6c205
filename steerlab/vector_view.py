"""A vector as a notebook shows it: its name, where it lives, one row of norms per layer, and where it came from.

Names, methods and models may come from a file of anybody's: everything is escaped.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

_CELL = 'style="text-align:right;padding:0 .8em"'
_BAR = '<div style="background:rgba(0,114,178,.6);height:.6em;width:{:.1f}em" title="{}"></div>'
_WIDEST = 8.0  # em; a direction as long as the stream


def vector_html(vector: Any) -> str:
    """A `SteeringVector` as an HTML fragment that stands on its own, without scripts, for light and dark pages.

    Its length beside the stream's is drawn as a bar, cut at twice the stream's norm.
    """
    rows = "".join(_row(*row) for row in _norms(vector))
    heads = "".join(f"<th {_CELL}>{head}</th>" for head in ("layer", "raw norm", "stream's norm", "raw / stream", ""))
    positive, negative = vector.counts
    where = f"{vector.stream}, width {vector.d_model}"
    where += f", fitted on a weight of {positive:g} against {negative:g}" if positive or negative else ""
    parts = [
        f"<div><b>{escape(vector.name)}</b> <small>({escape(where)})</small>",
        f'<table style="font-size:.9em"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>',
        "" if vector.choice is None else f"<small>best used: {escape(_choice(vector.choice))}</small>",
        _details(vector.provenance),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _norms(vector: Any) -> list[tuple[int, float, float]]:
    return list(zip(vector.layers, vector.raw_norm.tolist(), vector.residual_norm.tolist(), strict=True))


def _row(layer: int, raw: float, stream: float) -> str:
    known = math.isfinite(stream) and stream > 0
    ratio = raw / stream if known else math.nan
    bar = _BAR.format(_WIDEST * min(ratio, 2.0), f"{ratio:.3g}") if known else ""
    cells = [str(layer), f"{raw:.4g}", f"{stream:.4g}" if known else "–", f"{ratio:.3f}" if known else "–", bar]
    return "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in cells) + "</tr>"


def _choice(choice: Any) -> str:
    layers = ", ".join(map(str, choice.layers))
    return f"{choice.operator} {choice.strength:g} ({choice.unit}) at layer {layers}, {choice.positions} tokens"


def _details(provenance: Any) -> str:
    """What is recorded about its making; nothing where nothing is."""
    facts: list[tuple[str, str]] = []
    for name in ("method", "model", "revision", "dtype", "positions", "weighting", "seed"):
        value = getattr(provenance, name)
        facts += [(name, str(value))] if value not in ("", None) else []
    facts += [(f"data: {name}", digest[:12] + "…") for name, digest in provenance.data]
    facts += [(name, version) for name, version in provenance.versions]
    if not facts:
        return "<small>no provenance recorded</small>"
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
    told = " ".join(value for name, value in facts if name in ("method", "model"))
    return f"<details><summary><small>{escape(told) or 'provenance'}</small></summary><table>{lines}</table></details>"

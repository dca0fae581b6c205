"""The card of a set of vectors: what each was fitted on and how, and how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def card(vectors: Mapping[str, SteeringVector], repo_id: str, licence: str) -> str:
    """The card as Markdown with its YAML head. Raises `SteerlabError` for a licence that is none as the hub spells them."""
    if not _LICENCE.fullmatch(licence):
        raise SteerlabError(
            f"licence {licence!r} is no licence as the hub spells them: give cc-by-4.0, apache-2.0, other."
        )
    models = list(dict.fromkeys(v.provenance.model for v in vectors.values() if v.provenance.model))
    head = [f"license: {licence}", "library_name: steerlab", "tags: [steering-vectors, activation-steering]"]
    hub = [name for name in models if re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
    if hub:
        head.append(f"base_model: {json.dumps(hub)}")
    fitted = [f"`{_plain(name)}`" for name in models] or ["a model that is not recorded"]
    lines = ["---", *head, "---", "", f"# Steering vectors for {', '.join(fitted)}", ""]
    lines += ["One direction per layer in the residual stream, in activation units. Use them:", ""]
    lines += ["```python", "from steerlab.interop import from_pretrained", ""]
    lines += [
        f"vectors, commit = from_pretrained({json.dumps(repo_id)})  # pass revision=commit to pin them",
        "```",
        "",
    ]
    lines += ["| vector | model, revision | method | stream, layers | counts | best use |", "|---|---|---|---|---|---|"]
    lines += [_row(key, vector) for key, vector in vectors.items()]
    lines += ["", "| vector | data | SHA-256 of its texts |", "|---|---|---|"]
    for key, vector in vectors.items():
        lines += [f"| {_plain(key)} | {_plain(name)} | `{_plain(digest)}` |" for name, digest in vector.provenance.data]
    lines += [
        "",
        "Loading them on another model or revision is refused, unless you say that the two share a space.",
        "",
    ]
    return "\n".join(lines)


def _row(key: str, vector: SteeringVector) -> str:
    own, best = vector.provenance, "not measured"
    if vector.choice is not None:
        c = vector.choice
        best = f"{c.operator} at layers {', '.join(map(str, c.layers))}, strength {c.strength:g} {c.unit}"
    cells = [
        key,
        f"{own.model or 'not recorded'}, {own.revision or 'not recorded'}",
        own.method or "not recorded",
        f"{vector.stream}, {', '.join(map(str, vector.layers))}",
        f"{vector.counts[0]:g} / {vector.counts[1]:g}",
        best,
    ]
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text that stays within one cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")

"""repeng: `batched_get_hiddens`, which keeps the last token of each text, and a `ControlModel` with a control set."""

from __future__ import annotations

from repeng import ControlModel, ControlVector
from repeng.extract import batched_get_hiddens

from benchmarks.peers.subject import Subject
from benchmarks.peers.ways import Ways
from benchmarks.peers.ways.controls import controlled


def ways(subject: Subject) -> Ways:
    """All layers of a twin wrapped once."""
    model = ControlModel(subject.twin(), list(range(subject.size.layers)))
    return controlled(subject, model, batched_get_hiddens, ControlVector)

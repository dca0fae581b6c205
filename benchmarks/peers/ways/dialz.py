"""dialz: repeng's design with a model class that loads half precision by itself; here it is put back to single."""

from __future__ import annotations

import tempfile

from dialz import SteeringModel, SteeringVector
from dialz.vector import batched_get_hiddens

from benchmarks.peers.subject import Subject
from benchmarks.peers.ways import Ways
from benchmarks.peers.ways.controls import controlled


def ways(subject: Subject) -> Ways:
    """All layers of its own copy wrapped once."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        model = SteeringModel(folder, list(range(subject.size.layers)))
    model.model.float()
    model.model.generation_config = subject.model.generation_config
    return controlled(subject, model, batched_get_hiddens, SteeringVector)

"""Requests written into a run folder, batch by batch: a run that was killed goes on where it was and ends with the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerlab.backoff import Lowered
from steerlab.capture import texts_digest
from steerlab.generation import Request, Sample, Settings, generate_batches
from steerlab.model import TracedModel
from steerlab.store import RunFolder
from steerlab.vectors import SteeringVector

ANSWERS = "answers.jsonl"


def write_requests(
    folder: RunFolder,
    model: TracedModel,
    requests: Sequence[Request],
    facts: Sequence[Mapping[str, Any]],
    settings: Settings,
    *,
    name: str = ANSWERS,
    batch_rows: int = 64,
    progress: bool = False,
) -> list[Sample]:
    """The samples of the requests, in order; each stands in the row file `name` with its facts, its number and where it was weakened."""
    skip = {int(number) for number in folder.completed_batches(name)}
    for number, members, samples in generate_batches(
        model, requests, settings, batch_rows=batch_rows, skip=skip, progress=progress
    ):
        rows = [
            {
                "number": i, **facts[i], "text": s.text, "ended": s.ended, "tokens": list(s.tokens), "prompt_tokens": s.prompt_tokens,
                "lowered": [low._asdict() for low in s.lowered],
            }
            for i, s in zip(members, samples, strict=True)
        ]  # fmt: skip
        folder.append(name, rows, batch=str(number))
    kept = sorted(folder.read(name), key=lambda row: row["number"])
    return [
        Sample(
            r["text"], tuple(r["tokens"]), r["ended"], r["prompt_tokens"], tuple(Lowered(**low) for low in r["lowered"])
        )
        for r in kept
    ]


def vector_digests(vectors: Mapping[str, SteeringVector]) -> dict[str, str]:
    """What tells two vectors of one name apart, for a run's configuration: directions, norms, projections and choice."""
    return {
        name: texts_digest([str(v.direction.tolist()), str(v.raw_norm.tolist()), repr(v.projections), repr(v.choice)])
        for name, v in vectors.items()
    }

"""A study cut into units of work: one model, language, task, prompt mode and seed with every steering arm in mixed batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.estimators import random_like
from steerlab.evaluation.human import example_corpus
from steerlab.model import TracedModel
from steerlab.records import config_key
from steerlab.sharding import Shard
from steerlab.steering import Intervention
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.synthesis import Cell
from steerlab.tasks import few_shot_examples, task
from steerlab.vectors import SteeringVector

RANDOM_SEED = 0


@dataclass(frozen=True)
class Arm:
    """One way to steer: vector kind, layer group with its block, and strength; kind "none" has no group."""

    kind: str
    group: str = ""
    layer: int = -1
    strength: float = 0.0

    @property
    def name(self) -> str:
        """`none`, or `kind/group/strength`."""
        return f"{self.kind}/{self.group}/{self.strength:g}" if self.group else self.kind


@dataclass(frozen=True)
class Unit:
    """What one run folder holds: all arms of one (model, language, task, prompt mode, generation seed)."""

    plan: ModelPlan
    language: str
    task: str
    mode: str
    seed: int

    @property
    def name(self) -> str:
        """Names the unit among those of its study."""
        slug = self.plan.name.rstrip("/").rpartition("/")[2]
        return f"{slug}-{self.language}-{self.task}-{self.mode}-{self.seed}"


def units_of(config: StudyConfig) -> tuple[Unit, ...]:
    """Every unit, in the order in which they are written: models outermost, so that each is loaded once."""
    return tuple(
        Unit(plan, code, name, mode, seed)
        for plan in config.models
        for seed in config.seeds
        for mode in config.modes
        for code, name in config.cases()
    )


def shard_of(units: Sequence[Unit], shard: str) -> tuple[Unit, ...]:
    """The units of a shard, see `Shard.parse`: of "i/n" every n-th from the i-th on; of "auto" all, beginning with those."""
    return Shard.parse(shard).order(units)


def arms_of(config: StudyConfig, plan: ModelPlan, n_layers: int) -> tuple[Arm, ...]:
    """The unsteered arm first, then vector kind x layer group x strength."""
    steered = [
        Arm(kind, group, layer, strength)
        for kind in config.kinds
        if kind != "none"
        for group, layer in plan.groups(n_layers).items()
        for strength in plan.strengths
    ]
    return (Arm("none"), *steered)


def interventions(arm: Arm, code: str, vectors: Mapping[str, SteeringVector], unit: str) -> tuple[Intervention, ...]:
    """The arm's vectors of one language, every one at the arm's strength ("language+quality" adds both)."""
    if arm.kind == "none":
        return ()
    if arm.kind == "random":
        chosen = [random_like(vectors[f"language-{code}"], RANDOM_SEED)]
    else:
        chosen = [vectors[f"{kind}-{code}"] for kind in arm.kind.split("+")]
    measure = "raw" if unit == "raw" else "residual"
    return tuple(Intervention(v, arm.layer, strength=arm.strength, unit=measure) for v in chosen)


def shots_of(config: StudyConfig, code: str, name: str, root: Path | None) -> dict[str, tuple[str, ...]]:
    """The few-shot examples of every label: drawn with seed 42 from the 50 shortest training texts, as in the paper."""
    corpus = example_corpus(name, code, root, config.source or None)
    return {label: few_shot_examples(corpus, label, k=config.shots) for label in task(name).labels}


def cells_of(
    unit: Unit,
    arms: Sequence[Arm],
    vectors: Mapping[str, SteeringVector],
    shots: Mapping[str, tuple[str, ...]],
) -> list[Cell]:
    """The unit's cells: one per arm, all behind the same prompts, which name the language."""
    return [
        Cell(
            arm.name,
            unit.language,
            unit.task,
            interventions(arm, unit.language, vectors, unit.plan.unit),
            unit.language,
            shots,
        )
        for arm in arms
    ]


def unit_record(
    unit: Unit, config: StudyConfig, arms: Sequence[Arm], cells: Sequence[Cell], model: TracedModel
) -> dict[str, Any]:
    """Everything that decides the unit's samples; its hash is the unit's key, and two runs with one key are one run."""
    used = {i.vector.name: vector_key(i.vector) for cell in cells for i in cell.interventions}
    return {
        "study": "low-resource",
        "model": model.name,
        "model_revision": model.revision,
        "dtype": unit.plan.dtype,
        "quantize": unit.plan.quantize,
        "template": unit.plan.template,
        "language": unit.language,
        "task": unit.task,
        "mode": unit.mode,
        "seed": unit.seed,
        "unit": unit.plan.unit,
        "arms": [[arm.kind, arm.group, arm.layer, arm.strength] for arm in arms],
        "vectors": dict(sorted(used.items())),
        "shots": {label: list(texts) for label, texts in (cells[0].shots if cells else {}).items()},
        "per_label": config.per_label[unit.task],
        "max_tries": config.max_tries,
        "near_duplicate": config.near_duplicate,
        "batch_rows": unit.plan.batch_rows,
        "settings": config.settings(unit.seed).to_json(),
    }


def vector_key(vector: SteeringVector) -> str:
    """sha256 of what steering uses of a vector: its layers, directions and norms."""
    digest = hashlib.sha256(repr((vector.layers, vector.stream)).encode())
    for part in (vector.direction, vector.raw_norm, vector.residual_norm):
        digest.update(part.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def unit_folder(unit: Unit, record: Mapping[str, Any]) -> str:
    """The unit's folder name: readable, and ending in its key."""
    return f"{unit.name}-{config_key(record)[:12]}"

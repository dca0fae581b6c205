"""What a run writes: cells, their guidance, and the slots they have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from steerlab.errors import SteerlabError
from steerlab.guidance import Guide
from steerlab.negatives import Draw
from steerlab.steering import Intervention, Plan
from steerlab.tasks import EXPERT_TASKS, TASKS, Task, check_label, prompt, task

Examples = Mapping[str, Sequence[str]] | Sequence[str]
KINDS = ("real", "synthetic")


@dataclass(frozen=True)
class Guidance:
    """How a cell is guided while it is written.

    real, synthetic: the texts its pool of negatives starts from, either may be empty: a sequence for one pool that all labels
    share, mappings by label for one each. Accepted texts join the pool of their label after every `refresh` slots of it, so that a
    sample's negatives do not depend on the batches. tokens: the longest negative text (None: what the context leaves). base_prompt: what
    the base reads in place of the prompt; with the expert itself as base that is classifier-free guidance of scale
    1 + gamma ("" leaves the instruction out). steered: the streams in which the cell's interventions act, the expert's or all.
    embed: what "nearest" and "centroid" compare, character n-grams or hidden states of the model.

    Raises `SteerlabError` for refresh or tokens below 1, an unknown word, and one pool for some texts and several for others.
    """

    guide: Guide = field(default_factory=Guide)
    draw: Draw = field(default_factory=Draw)
    real: Examples = ()
    synthetic: Examples = ()
    refresh: int = 32
    tokens: int | None = None
    base_prompt: str | None = None
    steered: str = "expert"
    embed: str = "ngrams"

    def __post_init__(self) -> None:
        if self.refresh < 1 or (self.tokens is not None and self.tokens < 1):
            raise SteerlabError(f"refresh {self.refresh} and tokens {self.tokens} were given: give at least 1.")
        if self.steered not in ("expert", "all") or self.embed not in ("ngrams", "hidden"):
            raise SteerlabError(
                f"steered {self.steered!r} and embed {self.embed!r} were given: give 'expert' or 'all', 'ngrams' or 'hidden'."
            )
        shapes = {isinstance(texts, Mapping) for texts in (self.real, self.synthetic) if texts}
        if len(shapes) > 1 or any(isinstance(texts, str) for texts in (self.real, self.synthetic)):
            raise SteerlabError(
                "the texts of a pool are sequences of texts, or both are mappings by label: give either."
            )

    @property
    def by_label(self) -> bool:
        """Whether every label has a pool of its own."""
        return isinstance(self.real, Mapping) or isinstance(self.synthetic, Mapping)

    def texts(self, kind: str, label: str) -> tuple[str, ...]:
        """The texts, "real" or "synthetic", that the pool of a label starts from."""
        texts: Examples = getattr(self, kind)
        return tuple(texts.get(label, ())) if isinstance(texts, Mapping) else tuple(texts)

    def digest(self) -> str:
        """Names the texts the pools start from: cells of equal texts share it."""
        given = [texts if isinstance(texts, Mapping) else list(texts) for texts in (self.real, self.synthetic)]
        told = json.dumps([self.by_label, given], ensure_ascii=True, default=list)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """What decides the guidance, for the run's config; the texts by their digest."""
        return {
            **self.guide.to_json(),
            "draw": self.draw.to_json(),
            "pool": self.digest(),
            "refresh": self.refresh,
            "tokens": self.tokens,
            "base_prompt": self.base_prompt,
            "steered": self.steered,
            "embed": self.embed,
        }


@dataclass(frozen=True)
class Cell:
    """One condition: what to write, behind which prompt, under which interventions, guided or not.

    `prompt_language` is the language the prompt names; None names none. `shots` are the few-shot examples of
    each label.
    """

    condition: str
    language: str
    task: str | Task
    interventions: tuple[Intervention, ...] = ()
    prompt_language: str | None = None
    shots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    guidance: Guidance | None = None

    @property
    def name(self) -> str:
        """Names the cell in files and tables."""
        return f"{self.language}/{task(self.task).name}/{self.condition}"

    def chosen_labels(self) -> tuple[str, ...]:
        """The labels to write. Raises `SteerlabError` for one the task does not have, or one given twice."""
        chosen = task(self.task)
        for label in self.labels or ():
            check_label(chosen, label)
        if len(set(self.labels or ())) != len(self.labels or ()):
            raise SteerlabError(f"the labels of cell {self.name} are {list(self.labels or ())}: give each once.")
        return self.labels or chosen.labels

    def prompt(self, label: str) -> str:
        """What the model is asked for one label."""
        return prompt(task(self.task), label, self.prompt_language, self.shots.get(label, ()))

    def to_json(self) -> dict[str, object]:
        """What decides the cell's samples, for the run's config; a task of one's own with its templates."""
        chosen = task(self.task)
        own = {} if (TASKS | EXPERT_TASKS).get(chosen.name) == chosen else {"own_task": _own(chosen)}
        return {
            "condition": self.condition,
            "language": self.language,
            "task": chosen.name,
            **own,
            "prompt_language": self.prompt_language,
            "labels": list(self.chosen_labels()),
            "shots": {k: list(v) for k, v in self.shots.items()},
            "interventions": Plan((self.interventions,)).to_json()[0],
            **({} if self.guidance is None else {"guidance": self.guidance.to_json()}),
        }


@dataclass(frozen=True)
class Slot:
    """Place number `index` of one label in one cell."""

    cell: int
    label: str
    index: int


def waves(cells: Sequence[Cell], slots: Sequence[Slot]) -> list[list[Slot]]:
    """The slots in the order they may be written: one wave's accepted texts are the next one's negatives.

    Slots of unguided cells are all in the first wave; a guided pool has `refresh` slots in each, the lowest numbers of all its
    labels first. Which wave a slot is in depends on its own cell alone.
    """
    of_pool: dict[tuple[int, str], list[Slot]] = {}
    for slot in slots:
        guidance = cells[slot.cell].guidance
        if guidance is not None:
            of_pool.setdefault((slot.cell, slot.label if guidance.by_label else ""), []).append(slot)
    number: dict[Slot, int] = {}
    for (cell, _), own in of_pool.items():
        refresh = cells[cell].guidance.refresh  # type: ignore[union-attr]
        number |= {slot: i // refresh for i, slot in enumerate(sorted(own, key=lambda slot: slot.index))}
    found: list[list[Slot]] = [[] for _ in range(1 + max((number.get(slot, 0) for slot in slots), default=-1))]
    for slot in slots:
        found[number.get(slot, 0)].append(slot)
    return found


def _own(chosen: Task) -> dict[str, object]:
    """The fields of a task of one's own; those with a default only where they differ from it."""
    found = {one.name: (getattr(chosen, one.name), one.default) for one in fields(chosen)}
    return {name: value for name, (value, default) in found.items() if value != default}

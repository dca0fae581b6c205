"""What `steerlab sweep` was asked, and what that is: vectors, prompts, texts, the design; refused here where it will not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steerlab.ablation.dose import Design
from steerlab.ablation.outcomes import Judge, human_judge
from steerlab.ablation.selection import Rule
from steerlab.capture import texts_digest
from steerlab.commands.lens import find
from steerlab.data import find_root, read_texts
from steerlab.data import load as load_data
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.model import TracedModel
from steerlab.operators import OPERATORS
from steerlab.tasks import prompt as task_prompt
from steerlab.tasks import task as find_task
from steerlab.vectors import SteeringVector


@dataclass(frozen=True)
class Asked:
    """What the command line asked for: the run's configuration, but for what it read from files."""

    vectors: tuple[str, ...]
    model: str
    layers: tuple[int, ...]
    strengths: tuple[str, ...]
    unit: str
    languages: tuple[str, ...]
    task: str
    prompt: str
    prompts: Path | None
    samples: int
    directions: int
    texts: Path | None
    effect: str
    max_new_tokens: int
    batch_rows: int
    seed: int


@dataclass(frozen=True)
class Inputs:
    """What stands behind the names that were asked for. `labels`: what each prompt asks for, where they are a task's."""

    vectors: Mapping[str, SteeringVector]
    targets: Mapping[str, str]
    design: Design
    prompts: list[str]
    labels: list[str] | None
    texts: list[str]
    settings: Settings


def read(asked: Asked) -> Inputs:
    """Read what was asked for. Raises `SteerlabError` for what no model could do, before one is loaded."""
    vectors = {name: find(name, asked.model) for name in asked.vectors}
    targets, strengths = _targets(asked, vectors), _strengths(asked.strengths)
    Rule(asked.effect)
    if asked.effect == "in_target" and len(targets) < len(vectors):
        missing = ", ".join(name for name in vectors if name not in targets)
        raise SteerlabError(f"the names of {missing} tell no language: give --language, or another --effect.")
    layers = asked.layers or _layers(list(vectors.values()))
    unit = "raw" if asked.unit == "raw" else "residual"
    if asked.unit not in ("raw", "residual"):
        raise SteerlabError(f"unit {asked.unit!r} is not known: give 'residual' or 'raw'.")
    design = Design(vectors, layers, strengths, unit, directions=asked.directions, seed=asked.seed)
    design.places()  # refuses layers and operators the vectors cannot take
    prompts, labels = _prompts(asked)
    settings = Settings(max_new_tokens=asked.max_new_tokens, seed=asked.seed)
    return Inputs(vectors, targets, design, prompts, labels, _texts(asked), settings)


def record(asked: Asked, inputs: Inputs, model: TracedModel, root: Path | None) -> dict[str, Any]:
    """The run's configuration: everything that decides its texts and tables. Raises `SteerlabError` for a vector of another model."""
    for vector in inputs.vectors.values():
        vector.check(model.name, model.revision, model.d_model, model.n_layers)
    judged = inputs.labels is not None and find_root(root) is not None
    return {
        "command": "sweep", "asked": asdict(asked), "data": str(find_root(root)) if judged else None, "revision": model.revision,
        "layers": inputs.design.layers, "prompts": inputs.prompts, "texts": texts_digest(inputs.texts),
        "settings": inputs.settings.to_json(),
        "vectors": {name: texts_digest([str(v.direction.tolist())]) for name, v in inputs.vectors.items()},
    }  # fmt: skip


def _targets(asked: Asked, vectors: Mapping[str, SteeringVector]) -> dict[str, str]:
    """The language each vector should give, where one is known."""
    if not vectors:
        raise SteerlabError("no vectors were given: name files or bundled vectors, say jv.")
    given = asked.languages * len(vectors) if len(asked.languages) == 1 else asked.languages
    if given and len(given) != len(vectors):
        raise SteerlabError(
            f"{len(given)} languages and {len(vectors)} vectors were given: give one for all, or one each."
        )
    codes = given or tuple(vector.name.rsplit("-", 1)[-1] for vector in vectors.values())
    unknown = [code for code in given if code not in LANGUAGES]
    if unknown:
        raise SteerlabError(f"languages {unknown} are not known: give some of {', '.join(LANGUAGES)}.")
    return {name: code for name, code in zip(vectors, codes, strict=True) if code in LANGUAGES}


def _strengths(given: Sequence[str]) -> dict[Any, tuple[float, ...]]:
    """Strengths by operator from words like 0.3 and rotate:0.4."""
    found: dict[Any, tuple[float, ...]] = {}
    for word in given:
        operator, _, number = word.rpartition(":")
        if operator and operator not in OPERATORS:
            raise SteerlabError(f"operator {operator!r} is not known: choose one of {', '.join(OPERATORS)}.")
        try:
            found[operator or "add"] = (*found.get(operator or "add", ()), float(number))
        except ValueError as error:
            raise SteerlabError(
                f"strength {word!r} is no number and not OPERATOR:NUMBER: give, say, 0.3 or rotate:0.4."
            ) from error
    return found


def _layers(vectors: Sequence[SteeringVector]) -> tuple[int, ...]:
    shared = sorted(set(vectors[0].layers).intersection(*(v.layers for v in vectors)))
    if not shared:
        raise SteerlabError("the vectors share no layer: give them one by one.")
    few = min(6, len(shared))
    return tuple(dict.fromkeys(shared[round(i * (len(shared) - 1) / max(few - 1, 1))] for i in range(few)))


def _prompts(asked: Asked) -> tuple[list[str], list[str] | None]:
    """The prompts, and the label each asks for where they are a task's."""
    if asked.prompts is not None:
        found = list(read_texts(asked.prompts, "text"))
        if len(found) < 2:
            raise SteerlabError(
                f"{asked.prompts} holds {len(found)} prompts: some choose and some check, so give two or more."
            )
        return found, None
    chosen = find_task(asked.task)
    named = None if asked.prompt == "none" else asked.prompt
    return [task_prompt(chosen, label, named) for label in chosen.labels], list(chosen.labels)


def _texts(asked: Asked) -> list[str]:
    if asked.texts is not None:
        return list(read_texts(asked.texts, "text"))
    return [load_data("sample", code, "topic").texts[0] for code in LANGUAGES]


def judge_of(asked: Asked, labels: Sequence[str] | None, root: Path | None) -> Judge | None:
    """A judge of the task's labels where human train texts are at hand."""
    if labels is None or find_root(root) is None:
        return None
    return human_judge(asked.task, list(LANGUAGES), root)

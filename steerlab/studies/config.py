"""What a low-resource study is asked: one frozen dataclass, overridden by a TOML file, refused where it makes no sense."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from steerlab import data
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import source_of
from steerlab.generation import Settings
from steerlab.tasks import task

MODES = ("zero-shot", "few-shot")
KINDS = ("none", "language", "quality", "language+quality", "random")
GROUPS = ("early", "middle", "late")
UNITS = ("raw", "residual")
QUANTIZED = ("", "8bit", "4bit")
LANGUAGES = ("am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su")


def _known(given: str, known: tuple[str, ...], what: str) -> None:
    if given not in known:
        raise SteerlabError(f"{what} {given!r} is not known: give one of {', '.join(repr(k) for k in known)}.")


@dataclass(frozen=True)
class ModelPlan:
    """One model of a study: what to load, where to steer it, and how strongly.

    layers: layer group -> block number; empty means 0.25, 0.5 and 0.8 of the depth. strengths are multiples of the unit
    vector (unit "raw") or fractions of the layer's mean residual norm ("residual"). vectors: "bundled", "fit" (fitted by
    the study on `vector` splits of parallel text), or a folder with vectors named language-CODE and quality-CODE.
    """

    name: str = "polyglot-mini"
    layers: Mapping[str, int] = field(default_factory=dict)
    strengths: tuple[float, ...] = (0.15, 0.3, 0.6, 1.0)
    unit: str = "residual"
    template: str = "auto"
    dtype: str = "float32"
    device: str = ""  # "" = the GPU if there is one; "auto" spreads the layers over all of them
    quantize: str = ""
    revision: str = ""
    vectors: str = "bundled"
    batch_rows: int = 128

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise SteerlabError(
                f"a model of the study has the name {self.name!r}: give a hub id, a folder, or polyglot-mini."
            )
        _known(self.unit, UNITS, f"unit of model {self.name}")
        _known(self.quantize, QUANTIZED, f"quantize of model {self.name}")
        if (
            not self.strengths
            or any(not s > 0 for s in self.strengths)
            or len(set(self.strengths)) < len(self.strengths)
        ):
            raise SteerlabError(
                f"the strengths of model {self.name} are {list(self.strengths)}: give at least one, each above 0 and once "
                "(strength 0 is the kind 'none', which every study has)."
            )
        for group, layer in self.layers.items():
            if not group or "/" in group or layer < 0:
                raise SteerlabError(
                    f"layer group {group!r} of model {self.name} is block {layer}: give a name and a block from 0."
                )
        if self.batch_rows < 1:
            raise SteerlabError(f"batch_rows of model {self.name} is {self.batch_rows}: give at least 1.")

    def groups(self, n_layers: int) -> dict[str, int]:
        """Layer group -> block number for a model of that depth. Raises `SteerlabError` for a block it does not have."""
        found = dict(self.layers) or {
            "early": round(0.25 * (n_layers - 1)),
            "middle": round(0.5 * (n_layers - 1)),
            "late": round(0.8 * (n_layers - 1)),
        }
        for group, layer in found.items():
            if layer >= n_layers:
                raise SteerlabError(
                    f"layer group {group!r} is block {layer}, and {self.name} has blocks 0 to {n_layers - 1}: name another block."
                )
        return found


@dataclass(frozen=True)
class StudyConfig:
    """Models x languages x tasks x prompt modes x vector kinds x layer groups x strengths x generation seeds.

    Defaults are the paper's (Cegin et al., arXiv 2606.18389) on the bundled model. `source` "" tests on the public human
    sets and leaves out (language, task) pairs that have none; "sample" uses the set that ships with the package.
    """

    models: tuple[ModelPlan, ...] = (ModelPlan(),)
    languages: tuple[str, ...] = LANGUAGES
    tasks: tuple[str, ...] = ("topic", "sentiment")
    modes: tuple[str, ...] = MODES
    kinds: tuple[str, ...] = KINDS
    seeds: tuple[int, ...] = (0, 1, 2)
    per_label: Mapping[str, int] = field(default_factory=lambda: {"topic": 20, "sentiment": 50})
    shots: int = 5
    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 512
    max_tries: int = 5
    near_duplicate: float = 0.9
    source: str = ""
    pairs: Mapping[str, str] = field(default_factory=dict)  # language -> folder of `steerlab contrast make`
    texts: str = ""  # folder of CODE.txt to fit vectors on; "" = the parallel text of the data folder (NTREX, NusaX)
    vector_texts: int = 0  # texts per language to fit on; 0 takes all
    classifier_seeds: int = 5
    classifier: str = ""  # "" = character n-grams; a hub id or folder is fine-tuned as in the paper

    def __post_init__(self) -> None:
        for name in ("models", "languages", "tasks", "modes", "kinds", "seeds"):
            given = getattr(self, name)
            values = [m.name for m in given] if name == "models" else list(given)
            if not values or len(set(values)) < len(values):
                raise SteerlabError(f"{name} of the study is {values}: give at least one, each once.")
        for mode in self.modes:
            _known(mode, MODES, "prompt mode")
        for kind in self.kinds:
            _known(kind, KINDS, "vector kind")
        if "none" not in self.kinds:
            raise SteerlabError(
                "the kinds of the study lack 'none', the unsteered counterpart everything is compared with: add it."
            )
        for code in (*self.languages, *self.pairs):
            data.language(code)
        for name in self.tasks:
            if self.per_label.get(task(name).name, 0) < 1:
                raise SteerlabError(
                    f"per_label has {self.per_label.get(name, 0)} for task {name!r}: give at least 1 sample per label."
                )
        for name in ("shots", "classifier_seeds", "max_tries"):
            if getattr(self, name) < 1:
                raise SteerlabError(f"{name} of the study is {getattr(self, name)}: give at least 1.")
        if any(seed < 0 for seed in self.seeds) or self.vector_texts < 0:
            raise SteerlabError(
                f"seeds {list(self.seeds)} and vector_texts {self.vector_texts} were given: none may be negative."
            )
        self.settings(0)  # refuses temperatures and the like
        if not self.cases():
            raise SteerlabError(
                f"no public human test set is known for tasks {list(self.tasks)} in {list(self.languages)}: "
                "choose others, or source = 'sample'."
            )

    def settings(self, seed: int) -> Settings:
        """Sampling settings of one generation seed."""
        return Settings(max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)

    def cases(self) -> tuple[tuple[str, str], ...]:
        """The (language, task) pairs that have human test texts."""
        pairs = [(code, name) for name in self.tasks for code in self.languages]
        return tuple(p for p in pairs if self.source or source_of(p[1], p[0]) != "sample")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def read_toml(path: Path) -> dict[str, Any]:
    """The fields of a TOML file. Raises `SteerlabError` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SteerlabError(
            f"{path} cannot be read as TOML ({error}): write fields as `steerlab study presets NAME` prints them."
        ) from error


def override(base: StudyConfig, given: Mapping[str, Any], where: str) -> StudyConfig:
    """`base` with the given fields replaced; models are `[[models]]` tables with the fields of `ModelPlan`.

    Raises `SteerlabError` naming the place and the field for an unknown one (with the nearest known) and for a value of
    another type.
    """
    return _replaced(base, given, where)


def _replaced(base: Any, given: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(type(base))
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in hints:
            close = get_close_matches(name, hints, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise SteerlabError(
                f"{where} has the field {name!r}, which is not known: known are {', '.join(hints)}{hint}"
            )
        values[name] = _typed(value, getattr(base, name), name, where)
    return dataclasses.replace(base, **values)


def _typed(value: Any, default: Any, name: str, where: str) -> Any:
    """The TOML value as the field's type, told from the default it replaces."""
    if name == "models" and isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return tuple(_replaced(ModelPlan(), v, f"{where}, models") for v in value)
    if (
        name in ("languages", "tasks", "modes", "kinds")
        and isinstance(value, list)
        and all(isinstance(v, str) for v in value)
    ):
        return tuple(value)
    if name == "seeds" and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    if name == "strengths" and isinstance(value, list) and all(type(v) in (int, float) for v in value):
        return tuple(float(v) for v in value)
    if name in ("layers", "per_label") and isinstance(value, dict) and all(type(v) is int for v in value.values()):
        return dict(value)
    if name == "pairs" and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return dict(value)
    if type(value) is type(default) and not isinstance(value, list | dict):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    kind = type(default).__name__ if not is_dataclass(default) else "table"
    raise SteerlabError(
        f"{where} has {name} = {value!r}, which is not of the type {kind}: write it like {_example(default)}."
    )


def _example(default: Any) -> str:
    if isinstance(default, tuple) and default and is_dataclass(default[0]):
        return f"[[models]] tables with {', '.join(f.name for f in fields(default[0]))}"
    return repr(list(default) if isinstance(default, tuple) else default)

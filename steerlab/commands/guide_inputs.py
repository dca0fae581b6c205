"""What `steerlab guide` and `steerlab sweep guidance` are given: expert and base, examples, and the cells they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from steerlab.cells import Cell, Examples, Guidance
from steerlab.commands.synthesize import Steering, interventions
from steerlab.data import load as load_data
from steerlab.data import read_texts
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import example_corpus
from steerlab.experts.expert import RECORD, read_expert
from steerlab.experts.pairs import is_offensive
from steerlab.generation import Settings
from steerlab.guidance import Form, Guide, Schedule
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.negatives import Draw
from steerlab.tasks import FINISHES, Task, check_label, task

ADAPTER, CONFIG = "adapter_config.json", "config.json"
INSTRUCTION = "instruction"  # as --base: the expert itself, behind the prompt without its instruction


@dataclass(frozen=True)
class Models:
    """Who guides whom: a model, what makes it an expert (an adapter's or a model's folder, or ""), and the base (a model,
    "instruction", or "": the adapter switched off, the model the expert was made from, or else "instruction").
    """

    model: str = "polyglot-mini"
    expert: str = ""
    base: str = ""

    def check(self) -> None:
        """Refuse a folder that holds neither an adapter nor a model, and an expert of another model than the one given."""
        if not self.expert:
            return
        folder = Path(self.expert).expanduser()
        if folder.is_dir() and not any((folder / name).is_file() for name in (ADAPTER, CONFIG)):
            raise SteerlabError(
                f"{self.expert} holds neither {ADAPTER} nor {CONFIG}: give a folder that `steerlab expert train` wrote, or a model's."
            )
        if (folder / RECORD).is_file():
            trained = read_expert(folder).base
            if trained != self.model:
                raise SteerlabError(f"the expert {self.expert} was trained on {trained}: give -m {trained}.")

    def load(self, dtype: str, device: str | None) -> tuple[TracedModel, TracedModel | None, bool]:
        """(expert, base or None, whether the base is the expert without the instruction)."""
        whole = bool(self.expert) and (Path(self.expert).expanduser() / CONFIG).is_file()
        adapter = self.expert if self.expert and not whole else None
        model = load(self.expert if whole else self.model, dtype=dtype, device=device, adapter=adapter)
        if self.base and self.base != INSTRUCTION:
            return model, load(self.base, dtype=dtype, device=device), False
        if whole and not self.base:
            return model, load(self.model, dtype=dtype, device=device), False
        return model, None, self.base == INSTRUCTION or adapter is None


@dataclass(frozen=True)
class Negatives:
    """How negatives are had: examples are "" (none: the pool starts empty), "task" (the task's real texts), a data set, or a file."""

    examples: str = ""
    column: str = "text"
    label_column: str = ""
    n: int = 10
    strategy: str = "uniform"
    real: int | None = None
    synthetic: int | None = None
    refresh: int = 32
    tokens: int | None = None
    embed: str = "ngrams"

    def texts(self, chosen: Task, language: str, root: Path | None, offensive: bool) -> Examples:
        """The real examples: by label where they have the task's labels, else one list for all."""
        if not self.examples:
            return ()
        if Path(self.examples).suffix or Path(self.examples).exists():
            file = read_texts(self.examples, self.column, self.label_column or None)
            found = list(zip(file.texts, file.labels or [None] * len(file), strict=True))
        elif self.examples != "task" or chosen.source:
            name = chosen.source if self.examples == "task" else self.examples
            corpus = load_data(name, language, "train", root, allow_offensive=offensive)
            found = list(zip(corpus.texts, corpus.labels, strict=True))
        else:
            corpus = example_corpus(chosen, language, root)
            found = list(zip(corpus.texts, corpus.labels, strict=True))
        by_label = {label: tuple(text for text, own in found if own == label) for label in chosen.labels}
        if not any(by_label.values()):
            return tuple(text for text, _ in found)
        return by_label


@dataclass(frozen=True)
class Asked:
    """Everything but the weights: what to write, by whom, away from what, under which vector."""

    task: str
    languages: tuple[str, ...]
    models: Models
    negatives: Negatives
    steering: Steering
    labels: tuple[str, ...] = ()
    per_label: int = 20
    prompt: str = "target"
    steered: str = "expert"
    offensive: bool = False
    max_new_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 10
    top_p: float = 1.0
    batch_rows: int = 64
    seed: int = 0

    @property
    def chosen(self) -> Task:
        """The task. Raises `SteerlabError` where its real texts are offensive and that was not allowed."""
        found = task(self.task)
        for label in self.labels:
            check_label(found, label)
        if is_offensive(found) and not self.offensive:
            raise SteerlabError(f"task {found.name!r} writes offensive text: give --offensive if you want it.")
        return found

    def settings(self) -> Settings:
        """Sampling as STEER's authors set it, unless asked otherwise; length and stops are the task's."""
        finish = FINISHES[self.chosen.finish]
        return Settings(
            max_new_tokens=self.max_new_tokens or finish.max_new_tokens, temperature=self.temperature, top_p=self.top_p,
            top_k=self.top_k, stop=finish.stop, seed=self.seed,
        )  # fmt: skip

    def guidance(self, guide: Guide, language: str, free: bool, root: Path | None) -> Guidance:
        """What guides the cell of one language. free: the base reads the prompt without its instruction."""
        own = self.negatives
        draw = Draw(own.n, own.strategy, own.real, own.synthetic)
        labels = self.labels or self.chosen.labels
        real = own.texts(self.chosen, language, root, self.offensive)
        if isinstance(real, Mapping):
            real = {label: texts for label, texts in real.items() if label in labels}
        slot = "" if self.chosen.chat else self.chosen.zero_shot.split("\n")[-1].strip() + " "
        return Guidance(guide, draw, real, (), own.refresh, own.tokens, slot if free else None, self.steered, own.embed)

    def cells(
        self, model: TracedModel, guide: Guide, free: bool, root: Path | None, compare: bool = False
    ) -> list[Cell]:
        """A guided cell for every language; with `compare`, the unguided and unsteered ones beside it."""
        if self.prompt not in ("target", "none", "english"):
            raise SteerlabError(f"prompt {self.prompt!r} is not known: give one of target, none, english.")
        vectors = interventions(self.steering, self.languages, model, self.seed)
        found = []
        for code in self.languages:
            named = {"target": code, "none": None, "english": "en"}[self.prompt]
            guidance = self.guidance(guide, code, free, root)
            labels = self.labels or None
            push = vectors.get(code, ())
            kinds = [("both" if push else "guided", push, guidance)]
            if compare:
                kinds = [("plain", (), None), *([("vector", push, None)] if push else []), ("guided", (), guidance),
                         *([("both", push, guidance)] if push else [])]  # fmt: skip
            found += [Cell(name, code, self.chosen, own, named, {}, labels, how) for name, own, how in kinds]
        return found

    def record(self, model: TracedModel, base: TracedModel | None) -> dict[str, object]:
        """What decides a run beside its cells."""
        return {
            "model": self.models.model,
            "model_revision": model.revision,
            "expert": self.models.expert,
            "adapter": None if model.adapter is None else model.adapter.digest,
            "base": None if base is None else {"name": base.name, "revision": base.revision},
            "examples": self.negatives.examples,
            "per_label": self.per_label,
            "settings": self.settings().to_json(),
            "batch_rows": self.batch_rows,
            "shots": 0,
        }


def guide_of(
    gamma: float, eta: float, form: str, alpha: float | None, gamma_when: str = "constant", eta_when: str = "constant"
) -> Guide:
    """The weights from the command line, and when each acts: "constant", "decaying:HALF_LIFE" or "uncertain:NATS"."""
    when = when_of(gamma_when), when_of(eta_when)
    if form == "published":
        return Guide(gamma, eta, "published", alpha, *when)
    if form == "balanced":
        return Guide(gamma, eta, "balanced", alpha, *when)
    raise SteerlabError(f"form {form!r} is not known: give {' or '.join(map(repr, get_args(Form)))}.")


def when_of(words: str) -> Schedule:
    """A schedule by name, with its number behind a colon where it takes one."""
    name, _, number = words.partition(":")
    try:
        value = float(number) if number else None
    except ValueError:
        raise SteerlabError(f"schedule {words!r} was given: behind the colon stands a number.") from None
    if name == "decaying":
        return Schedule("decaying") if value is None else Schedule("decaying", half_life=value)
    if name == "uncertain":
        return Schedule("uncertain") if value is None else Schedule("uncertain", least=value)
    if name == "constant" and value is None:
        return Schedule()
    raise SteerlabError(
        f"schedule {words!r} is not known: give 'constant', 'decaying:HALF_LIFE' (tokens) or 'uncertain:LEAST' (nats of entropy)."
    )

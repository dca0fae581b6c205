"""Write a labelled data set: every slot filled once, duplicates drawn again a bounded number of times,
resumable to the byte.

A *cell* is one condition of one task in one language (unsteered Javanese topic sentences, say). Its slots are
labels x numbers. Round r draws attempt r of every open slot; the batches of a round follow from what the
earlier rounds accepted, and that from the configuration alone, so a run that was killed continues with the same
batches and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steerlab.data.leakage import normalise
from steerlab.errors import SteerlabError
from steerlab.generation import Progress, Request, Settings, generate_batches
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan
from steerlab.store import RunFolder
from steerlab.tasks import Task, check_label, postprocess, prompt, task

DRAFTS, SAMPLES = "drafts.jsonl", "samples.jsonl"
SHINGLE = 5  # characters


@dataclass(frozen=True)
class Cell:
    """One condition: what to write, behind which prompt, under which interventions.

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

    def to_json(self) -> dict[str, object]:
        """What decides the cell's samples, for the run's config."""
        return {
            "condition": self.condition,
            "language": self.language,
            "task": task(self.task).name,
            "prompt_language": self.prompt_language,
            "labels": list(self.chosen_labels()),
            "shots": {k: list(v) for k, v in self.shots.items()},
            "interventions": Plan((self.interventions,)).to_json()[0],
        }


@dataclass(frozen=True)
class Slot:
    """Place number `index` of one label in one cell."""

    cell: int
    label: str
    index: int


class Seen:
    """Texts accepted so far in one cell; refuses exact repeats and near ones (Jaccard of character 5-grams at
    least `near`).
    """

    def __init__(self, near: float) -> None:
        if not 0 < near <= 1:
            raise SteerlabError(f"the near-duplicate limit is {near}: give a share above 0 and at most 1.")
        self.near = near
        self.exact: set[str] = set()
        self.grams: list[frozenset[str]] = []

    def reject(self, text: str) -> str | None:
        """Why the text is not taken ("empty", "duplicate", "near duplicate"), or None and it is remembered."""
        plain = normalise(text)
        if not plain:
            return "empty"
        if plain in self.exact:
            return "duplicate"
        grams = frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))
        for other in self.grams:
            small, large = sorted((len(grams), len(other)))
            if small >= self.near * large:
                common = len(grams & other)
                if common >= self.near * (small + large - common):
                    return "near duplicate"
        self.exact.add(plain)
        self.grams.append(grams)
        return None


@dataclass(frozen=True)
class Written:
    """What a run wrote: sample rows in slot order, rejects per cell and reason, slots that could not be filled,
    and the cost.
    """

    samples: list[dict[str, object]]
    rejected: dict[str, dict[str, int]]
    unfilled: dict[str, int]
    cost: Progress

    def texts(self, cell: Cell) -> tuple[list[str], list[str]]:
        """(texts, labels) of one cell."""
        rows = [r for r in self.samples if r["cell"] == cell.name]
        return [str(r["text"]) for r in rows], [str(r["label"]) for r in rows]


def check(
    model: TracedModel, cells: Sequence[Cell], per_label: int, settings: Settings, batch_rows: int, max_tries: int
) -> None:
    """Refuse what cannot be written, before a byte of it is.

    Raises `SteerlabError` for counts below 1, no or repeated cells, interventions the model cannot take, and a prompt
    that leaves no room for its answer.
    """
    if per_label < 1:
        raise SteerlabError(f"{per_label} samples per label were asked for: ask for at least 1.")
    for name, value in (("batch_rows", batch_rows), ("max_tries", max_tries)):
        if value < 1:
            raise SteerlabError(f"{name} is {value}: give at least 1.")
    names = [cell.name for cell in cells]
    if len(set(names)) != len(names) or not names:
        raise SteerlabError(f"the cells are {names}: give at least one, each once.")
    Plan(tuple(cell.interventions for cell in cells)).check(model.d_model, model.n_layers)
    texts = [_prompt(cell, label) for cell in cells for label in cell.chosen_labels()]
    longest = max(len(row) for row in model.token_rows(list(dict.fromkeys(texts)), chat=True))
    need = longest + settings.max_new_tokens
    if need > model.context_length:
        raise SteerlabError(
            f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones need {need} positions, and {model.name} has "
            f"{model.context_length}: use fewer examples in the prompt, or lower max_new_tokens."
        )


def _prompt(cell: Cell, label: str) -> str:
    return prompt(task(cell.task), label, cell.prompt_language, cell.shots.get(label, ()))


def synthesize(
    model: TracedModel,
    cells: Sequence[Cell],
    run: RunFolder,
    *,
    per_label: int,
    settings: Settings,
    batch_rows: int = 32,
    max_tries: int = 5,
    near_duplicate: float = 0.9,
    progress: bool = True,
    on_batch: Callable[[int, int], None] | None = None,
) -> Written:
    """Fill `per_label` slots for every label of every cell, all cells in mixed batches, and leave
    `samples.jsonl` in the run folder.

    A sample's key is (language, task, label, number, attempt) and not the condition, so that steered and
    unsteered samples share their noise. A text that is empty or repeats one of its cell is drawn again, at most
    `max_tries` times in all; a slot that stays empty is reported in `unfilled`. `on_batch` is told the texts and
    tokens of every batch once it is on the disk.

    Raises `SteerlabError` as `check` does, and where the folder cannot be written.
    """
    check(model, cells, per_label, settings, batch_rows, max_tries)
    names = [cell.name for cell in cells]
    slots = [
        Slot(c, label, i) for c, cell in enumerate(cells) for label in cell.chosen_labels() for i in range(per_label)
    ]
    seen = [Seen(near_duplicate) for _ in cells]
    rejected: dict[str, dict[str, int]] = {name: {} for name in names}
    cost = Progress()
    open_slots = slots
    for attempt in range(max_tries):
        if not open_slots:
            break
        drafts = _round(model, cells, open_slots, attempt, run, settings, batch_rows, progress, cost, on_batch)
        accepted, left = [], []
        for slot, draft in zip(open_slots, drafts, strict=True):
            why = seen[slot.cell].reject(str(draft["text"]))
            if why is None:
                accepted.append({"cell": names[slot.cell], **draft})
            else:
                counts = rejected[names[slot.cell]]
                counts[why] = counts.get(why, 0) + 1
                left.append(slot)
        if str(attempt) not in run.completed_batches(SAMPLES):
            run.append(SAMPLES, accepted, batch=str(attempt))
        open_slots = left
    unfilled: dict[str, int] = {}
    for slot in open_slots:
        place = f"{names[slot.cell]}/{slot.label}"
        unfilled[place] = unfilled.get(place, 0) + 1
    order = {(names[s.cell], s.label, s.index): n for n, s in enumerate(slots)}
    rows = sorted(run.read(SAMPLES), key=lambda r: order[r["cell"], r["label"], r["index"]])
    return Written(rows, rejected, unfilled, cost)


def _round(
    model: TracedModel,
    cells: Sequence[Cell],
    slots: Sequence[Slot],
    attempt: int,
    run: RunFolder,
    settings: Settings,
    batch_rows: int,
    progress: bool,
    cost: Progress,
    on_batch: Callable[[int, int], None] | None,
) -> list[dict[str, object]]:
    """Draw attempt `attempt` of every slot, batch by batch, skipping what an earlier process has already drawn."""
    requests = []
    for slot in slots:
        cell = cells[slot.cell]
        chosen = task(cell.task)
        key = (cell.language, chosen.name, slot.label, slot.index, attempt)
        requests.append(Request(_prompt(cell, slot.label), key, cell.interventions))
    done = run.completed_batches(DRAFTS)
    prefix = f"{attempt}-"
    skip = {int(name.removeprefix(prefix)) for name in done if name.startswith(prefix)}
    batches = generate_batches(
        model, requests, settings, batch_rows=batch_rows, skip=skip, progress=progress, counter=cost
    )
    for number, members, samples in batches:
        rows = []
        for i, sample in zip(members, samples, strict=True):
            slot = slots[i]
            rows.append(
                {
                    "slot": i,
                    "condition": cells[slot.cell].condition,
                    "attempt": attempt,
                    "language": cells[slot.cell].language,
                    "task": task(cells[slot.cell].task).name,
                    "label": slot.label,
                    "index": slot.index,
                    "key": list(requests[i].key),
                    "text": postprocess(sample.text),
                    "tokens": len(sample.tokens),
                    "prompt_tokens": sample.prompt_tokens,
                    "ended": sample.ended,
                    "interventions": Plan((cells[slot.cell].interventions,)).to_json()[0],
                }
            )
        run.append(DRAFTS, rows, batch=f"{prefix}{number}")
        if on_batch is not None:
            on_batch(len(members), sum(len(sample.tokens) for sample in samples))
    mine = {int(row["slot"]): row for row in run.read(DRAFTS) if row["attempt"] == attempt}
    return [{k: v for k, v in mine[i].items() if k != "slot"} for i in range(len(slots))]

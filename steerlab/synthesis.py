"""Write a labelled data set: every slot filled once, duplicates drawn again a bounded number of times,
resumable to the byte.

A *cell* is one condition of one task in one language (unsteered Javanese topic sentences, say). Its slots are
labels x numbers. Round r draws attempt r of every open slot; the batches of a round follow from what the
earlier rounds accepted, and that from the configuration alone, so a run that was killed continues with the same
batches and ends with the same bytes. A round of guided cells goes in waves, each with what the waves before it
accepted as negatives (`cells.waves`), for the same reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from steerlab.cell_pools import Pools, check_guidance
from steerlab.cells import Cell, Guidance, Slot, waves
from steerlab.data.leakage import normalise
from steerlab.errors import SteerlabError
from steerlab.generation import Progress, Request, Sample, Settings, generate_batches
from steerlab.model import TracedModel
from steerlab.steering import Plan
from steerlab.store import SAMPLES, RunFolder
from steerlab.tasks import postprocess, task

__all__ = ["SAMPLES", "Cell", "Guidance", "Seen", "Slot", "Written", "check", "synthesize"]

DRAFTS, NEGATIVES = "drafts.jsonl", "negatives.jsonl"
SHINGLE = 5  # characters


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
    model: TracedModel,
    cells: Sequence[Cell],
    per_label: int,
    settings: Settings,
    batch_rows: int,
    max_tries: int,
    base: TracedModel | None = None,
) -> None:
    """Refuse what cannot be written, before a byte of it is.

    Raises `SteerlabError` for counts below 1, no or repeated cells, interventions the model cannot take, a prompt
    that leaves no room for its answer, and guidance that cannot be given.
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
    model.check_settings(settings)
    texts = {(task(cell.task).chat, cell.prompt(label)): None for cell in cells for label in cell.chosen_labels()}
    longest = max(len(model.token_rows([text], chat)[0]) for chat, text in texts)
    need = longest + settings.max_new_tokens
    if need > model.context_length:
        raise SteerlabError(
            f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones need {need} positions, and {model.name} has "
            f"{model.context_length}: use fewer examples in the prompt, or lower max_new_tokens."
        )
    check_guidance(model, base, cells, settings.max_new_tokens)


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
    base: TracedModel | None = None,
) -> Written:
    """Fill `per_label` slots for every label of every cell, all cells in mixed batches, and leave
    `samples.jsonl` in the run folder.

    A sample's key is (language, task, label, number, attempt) and not the condition, so that steered and
    unsteered samples share their noise. A text that is empty or repeats one of its cell is drawn again, at most
    `max_tries` times in all; a slot that stays empty is reported in `unfilled`. `on_batch` is told the texts and
    tokens of every batch once it is on the disk. base: what guided cells are contrasted with (see
    `generation.generate`); rows of guided cells name their negatives, and `negatives.jsonl` holds the texts the
    pools started from.

    Raises `SteerlabError` as `check` does, and where the folder cannot be written.
    """
    check(model, cells, per_label, settings, batch_rows, max_tries, base)
    names = [cell.name for cell in cells]
    slots = [
        Slot(c, label, i) for c, cell in enumerate(cells) for label in cell.chosen_labels() for i in range(per_label)
    ]
    pools = Pools(model, cells, settings.seed, settings.max_new_tokens)
    writer = _Writer(model, cells, run, settings, batch_rows, progress, on_batch, base, pools, Progress())
    seen = [Seen(near_duplicate) for _ in cells]
    rejected: dict[str, dict[str, int]] = {name: Counter() for name in names}
    writer.keep_starts()
    open_slots = slots
    with tqdm(total=len(slots), unit="text", desc="accepted", disable=not (progress and pools.pools)) as bar:
        for attempt in range(max_tries):
            left: list[Slot] = []
            for wave, members in enumerate(waves(cells, open_slots)):
                drafts = writer.draw(members, attempt, wave)
                accepted = []
                for slot, draft in zip(members, drafts, strict=True):
                    why = seen[slot.cell].reject(str(draft["text"]))
                    if why is None:
                        accepted.append({"cell": names[slot.cell], **draft})
                        pools.accept(slot, str(draft["text"]))
                    else:
                        rejected[names[slot.cell]][why] += 1
                        left.append(slot)
                name = _name(attempt, wave)
                if name not in run.completed_batches(SAMPLES):
                    run.append(SAMPLES, accepted, batch=name)
                bar.update(len(accepted))
            open_slots = left
    unfilled = Counter(f"{names[slot.cell]}/{slot.label}" for slot in open_slots)
    order = {(names[s.cell], s.label, s.index): n for n, s in enumerate(slots)}
    rows = sorted(run.read(SAMPLES), key=lambda r: order[r["cell"], r["label"], r["index"]])
    return Written(rows, {name: dict(own) for name, own in rejected.items()}, dict(unfilled), writer.cost)


def _name(attempt: int, wave: int) -> str:
    """The part of a batch's name that says which round and wave it is of; the first wave is the round's own name."""
    return f"{attempt}.{wave}" if wave else str(attempt)


@dataclass(frozen=True)
class _Writer:
    """Draws drafts for slots, batch by batch, skipping what an earlier process has already drawn."""

    model: TracedModel
    cells: Sequence[Cell]
    run: RunFolder
    settings: Settings
    batch_rows: int
    progress: bool
    on_batch: Callable[[int, int], None] | None
    base: TracedModel | None
    pools: Pools
    cost: Progress

    def keep_starts(self) -> None:
        """The texts the pools start from, once; nothing where no cell is guided."""
        for digest, rows in self.pools.starts():
            if digest not in self.run.completed_batches(NEGATIVES):
                self.run.append(NEGATIVES, rows, batch=digest)

    def draw(self, slots: Sequence[Slot], attempt: int, wave: int) -> list[dict[str, object]]:
        """The draft rows of this attempt for these slots, in their order."""
        requests, guidance = [], []
        for slot in slots:
            cell = self.cells[slot.cell]
            key = (cell.language, task(cell.task).name, slot.label, slot.index, attempt)
            guided, told = self.pools.guided(slot, key)
            requests.append(Request(cell.prompt(slot.label), key, cell.interventions, task(cell.task).chat, guided))
            guidance.append(told)
        prefix = f"{_name(attempt, wave)}-"
        done = self.run.completed_batches(DRAFTS)
        skip = {int(name.removeprefix(prefix)) for name in done if name.startswith(prefix)}
        batches = generate_batches(
            self.model, requests, self.settings, batch_rows=self.batch_rows, skip=skip,
            progress=self.progress and not self.pools.pools,  # waves share the bar of accepted texts
            counter=self.cost, base=self.base,
        )  # fmt: skip
        for number, members, samples in batches:
            rows = []
            for i, sample in zip(members, samples, strict=True):
                row = self._row(slots[i], attempt, requests[i], sample)
                more = ({"wave": wave} if wave else {}) | ({"guidance": guidance[i]} if guidance[i] else {})
                rows.append({"slot": i, **row, **more})
            self.run.append(DRAFTS, rows, batch=f"{prefix}{number}")
            if self.on_batch is not None:
                self.on_batch(len(members), sum(len(sample.tokens) for sample in samples))
        mine = {
            int(row["slot"]): row
            for row in self.run.read(DRAFTS)
            if row["attempt"] == attempt and row.get("wave", 0) == wave
        }
        return [{k: v for k, v in mine[i].items() if k not in ("slot", "wave")} for i in range(len(slots))]

    def _row(self, slot: Slot, attempt: int, request: Request, sample: Sample) -> dict[str, object]:
        cell = self.cells[slot.cell]
        return {
            "condition": cell.condition,
            "attempt": attempt,
            "language": cell.language,
            "task": task(cell.task).name,
            "label": slot.label,
            "index": slot.index,
            "key": list(request.key),
            "text": postprocess(sample.text, cell.task),
            "tokens": len(sample.tokens),
            "prompt_tokens": sample.prompt_tokens,
            "ended": sample.ended,
            "interventions": Plan((cell.interventions,)).to_json()[0],
        }

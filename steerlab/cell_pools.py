"""The pools of negatives of a run's guided cells: what each sample is guided by, and how accepted texts come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from steerlab.cells import KINDS, Cell, Guidance, Slot
from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import embeddings
from steerlab.guided import Asked, Guided, check_vocabulary, streams_of
from steerlab.model import TracedModel
from steerlab.negatives import Embed, Negative, Pool, join, ngram_vectors, one_by_one
from steerlab.tasks import task


class Pools:
    """One pool for every guided cell, or for every label of it."""

    def __init__(self, model: TracedModel, cells: Sequence[Cell], seed: int, room: int) -> None:
        self.model, self.cells, self.seed, self.room = model, cells, seed, room
        hidden = one_by_one(partial(embeddings, model))
        self.pools: dict[tuple[int, str], Pool] = {}
        for number, cell in enumerate(cells):
            if cell.guidance is None:
                continue
            embed: Embed = hidden if cell.guidance.embed == "hidden" else ngram_vectors
            for label in cell.chosen_labels() if cell.guidance.by_label else ("",):
                real, synthetic = (_start(cell.guidance, kind, label) for kind in KINDS)
                self.pools[number, label] = Pool(real, synthetic, embed)

    def guided(self, slot: Slot, key: tuple[str | int, ...]) -> tuple[Guided | None, dict[str, object]]:
        """What guides the sample of this key in a slot, and what its row says of it; (None, {}) in an unguided cell."""
        cell = self.cells[slot.cell]
        if cell.guidance is None:
            return None, {}
        guidance, guide = cell.guidance, cell.guidance.guide
        text, kept = "", []
        if guide.eta:
            chosen = self._pool(slot).draw(guidance.draw, self.seed, key)
            text, kept = join(chosen, self._budget(guidance), lambda text: len(self.model.token_rows([text])[0]))
        told = {"gamma": guide.gamma, "eta": guide.eta, "form": guide.form, "alpha": guide.cutoff}
        return _guided(cell, text), {**told, "negatives": [item.id for item in kept]}

    def accept(self, slot: Slot, text: str) -> None:
        """An accepted text joins its pool; without guidance there is none."""
        if self.cells[slot.cell].guidance is not None:
            self._pool(slot).accept(f"{slot.label}/{slot.index}", text)

    def starts(self) -> Iterator[tuple[str, list[dict[str, object]]]]:
        """(digest, rows) of the texts that pools started from, once for cells of equal ones: what the ids stand for."""
        told: set[str] = set()
        for cell in self.cells:
            if cell.guidance is None or cell.guidance.digest() in told:
                continue
            told.add(cell.guidance.digest())
            labels = cell.chosen_labels() if cell.guidance.by_label else ("",)
            items = [item for kind in KINDS for label in labels for item in _start(cell.guidance, kind, label)]
            pool = cell.guidance.digest()
            yield pool, [{"pool": pool, "id": one.id, "real": one.real, "text": one.text} for one in items]

    def _pool(self, slot: Slot) -> Pool:
        guidance = self.cells[slot.cell].guidance
        return self.pools[slot.cell, slot.label if guidance is not None and guidance.by_label else ""]

    def _budget(self, guidance: Guidance) -> int:
        room = self.model.context_length - self.room
        return room if guidance.tokens is None else min(room, guidance.tokens)


def check_guidance(model: TracedModel, base: TracedModel | None, cells: Sequence[Cell], room: int) -> None:
    """Refuse guidance that cannot be given: without a base, over other tokens, for labels the cell does not write, and with a
    base prompt that leaves no room for the answer.
    """
    if base is not None:
        check_vocabulary(model, base)
    for cell in cells:
        if cell.guidance is None:
            continue
        for kind in KINDS:
            texts = getattr(cell.guidance, kind)
            unknown = [label for label in texts if label not in cell.chosen_labels()] if cell.guidance.by_label else []
            if unknown:
                raise SteerlabError(
                    f"cell {cell.name} has {kind} negatives of the label {unknown[0]!r}: its labels are "
                    f"{', '.join(cell.chosen_labels())}."
                )
        for label in cell.chosen_labels():
            sides, _ = streams_of(model, base, [Asked(cell.prompt(label), task(cell.task).chat, _guided(cell, ""))])
            for side in (side for side in sides if len(side.batch)):
                (side.model or model).stream(side, room)  # raises where it does not fit


def _guided(cell: Cell, negative: str) -> Guided:
    guidance = cell.guidance
    assert guidance is not None
    beside = cell.interventions if guidance.steered == "all" else ()
    return Guided(guidance.guide, negative, guidance.base_prompt, beside, beside)


def _start(guidance: Guidance, kind: str, label: str) -> list[Negative]:
    head = "real" if kind == "real" else "earlier"
    place = f"{head}/{label}" if label else head
    return [Negative(f"{place}/{i}", text, kind == "real") for i, text in enumerate(guidance.texts(kind, label))]

"""pyvene: `CollectIntervention` at every block, and an `AdditionIntervention` at one while `generate` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyvene
import torch
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways


def ways(subject: Subject) -> Ways:
    """An intervenable model per setting; a function of one's own as intervention may treat every row differently."""
    model, count = subject.twin(), subject.size.layers
    collect = [pyvene.CollectIntervention(embed_dim=subject.size.d_model, keep_last_dim=True) for _ in range(count)]
    reader = pyvene.IntervenableModel(
        [{"layer": i, "component": "block_output", "intervention": one} for i, one in enumerate(collect)], model=subject.twin()
    )  # fmt: skip

    @torch.no_grad()
    def capture(texts: Sequence[str], batch: int) -> Tensor:
        sums: Any = torch.zeros(count, subject.size.d_model)
        tokens = 0
        for start in range(0, len(texts), batch):
            ids = subject.encode(texts[start : start + batch])
            (_, collected), _ = reader(ids, unit_locations=None)
            sums += torch.stack([h.sum((0, 1)) for h in collected])
            tokens += int(ids["attention_mask"].sum())
        return sums / tokens

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        asked = [{"layer": layer, "component": "block_output", "intervention_type": pyvene.AdditionIntervention}]
        return _write(asked, prompts, new, vector)

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        at = torch.tensor(list(layers))[:, None]
        asked = []
        for layer in sorted(set(layers)):
            delta = torch.where(at == layer, vectors, torch.zeros(()))[:, None]
            asked.append({"layer": layer, "component": "block_output", "intervention": _adder(delta)})
        return _write(asked, prompts, new, None)

    def _write(asked: list[dict[str, Any]], prompts: Sequence[str], new: int, source: Tensor | None) -> Rows:
        steered = pyvene.IntervenableModel(asked, model=model)

        def generate(input_ids: Tensor, attention_mask: Tensor, **more: Any) -> Tensor:
            ids = {"input_ids": input_ids, "attention_mask": attention_mask}
            given = {} if source is None else {"source_representations": source}
            return steered.generate(ids, unit_locations=None, intervene_on_prompt=True, **given, **more)[1]

        return subject.write(prompts, new, generate)

    return Ways(capture, write, write_rows)


def _adder(delta: Tensor) -> Any:
    return lambda base, source: base + delta

"""How much of its training texts an expert has by heart: what it recites, what it copies when it samples, and the loss gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steerlab.evaluation.copying import copied
from steerlab.evaluation.stats import Estimate, wilson
from steerlab.experts.pairs import TokenRow, padded
from steerlab.model import TracedModel

SHARES = ("recited", "recited_unseen", "copied", "copied_near", "copied_unseen")


@dataclass(frozen=True)
class Memorisation:
    """Shares with 95 % Wilson intervals; those of texts it has not seen (validation) are the control.

    recited: training texts whose second half the most likely tokens give back word for word after their first half, which is what
    greedy decoding would write. copied, copied_near: samples that equal a training text after `leakage.normalise`, and that equal
    or nearly equal one (`leakage.overlap_report`); copied_unseen: that equal or nearly equal a validation text. train_loss and
    validation_loss: nats per token of the texts; their difference is `gap`. Losses and recitals are of as many training texts, evenly
    chosen, as there are validation texts.
    """

    train_loss: float
    validation_loss: float
    recited: Estimate
    recited_unseen: Estimate
    copied: Estimate
    copied_near: Estimate
    copied_unseen: Estimate

    @property
    def gap(self) -> float:
        """Validation loss minus training loss, nats per token."""
        return self.validation_loss - self.train_loss

    def to_json(self) -> dict[str, Any]:
        """Plain values; the inverse of `from_json`."""
        losses = {"train_loss": self.train_loss, "validation_loss": self.validation_loss, "gap": self.gap}
        return {**losses, **{name: getattr(self, name).to_json() for name in SHARES}}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Memorisation:
        """Read what `to_json` wrote."""
        shares = {name: Estimate.from_json(record[name]) for name in SHARES}
        return Memorisation(float(record["train_loss"]), float(record["validation_loss"]), **shares)


def recited(model: TracedModel, rows: Sequence[TokenRow], size: int) -> list[bool]:
    """Whether the most likely token is the text's own at every place of its second half, each after the text's own beginning.

    A text of fewer than four tokens is not recited: there is nothing to give back.
    """
    found = [False] * len(rows)
    model.hf.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.no_grad():
        for at in range(0, len(order), size):
            which = order[at : at + size]
            batch = padded([rows[i] for i in which], model.pad_id, model.device)
            logits = model.hf(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
            hit = (logits[:, :-1].argmax(-1) == batch.ids[:, 1:]).cpu()
            for place, i in enumerate(which):
                length = len(rows[i].ids) - rows[i].start
                half = rows[i].start + length // 2
                found[i] = length >= 4 and bool(hit[place, half - 1 : len(rows[i].ids) - 1].all())
    return found


def memorisation(
    losses: tuple[float, float],
    recitals: tuple[Sequence[bool], Sequence[bool]],
    written: Sequence[str],
    train: Sequence[str],
    validation: Sequence[str],
) -> Memorisation:
    """Losses and recitals of (training, validation) texts and the samples, as shares. No samples: missing, with the reason."""
    exact, near = copied(written, train)
    unseen = copied(written, validation)[1]
    none = Estimate.missing("no samples were written")
    shares = [wilson(sum(own), len(own)) if own else none for own in (exact, near, unseen)]
    return Memorisation(*losses, *(wilson(sum(own), len(own)) for own in recitals), *shares)

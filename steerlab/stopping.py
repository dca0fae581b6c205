"""When an answer is over: end-of-text tokens and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlab.model import TracedModel


class Stopper:
    """Which rows are done: an end-of-text token, or a stop string once the answer has begun.

    Only tokens whose own text touches a stop string are looked at closer, so a step costs one table look-up.
    """

    def __init__(self, model: TracedModel, stop: Sequence[str]) -> None:
        self.model, self.stop = model, tuple(stop)
        self.eos = torch.tensor(sorted(eos_ids(model)), device=model.device)
        size = model.vocab_size
        self.suspect = torch.zeros(size, dtype=torch.bool, device=model.device)
        ends = tuple(s[-1] for s in self.stop)
        if ends:
            texts = model.tokenizer.batch_decode(
                [[i] for i in range(min(size, len(model.tokenizer)))], clean_up_tokenization_spaces=False
            )
            flags = [any(e in text for e in ends) or "\ufffd" in text for text in texts]
            self.suspect[: len(flags)] = torch.tensor(flags)
            if " " in ends:  # a SentencePiece tokenizer drops the space of a token decoded alone
                self.suspect[:] = True

    def __call__(self, rows: Tensor, tokens: Int[Tensor, "b n"]) -> Bool[Tensor, " b"]:
        last = tokens[:, -1]
        done = torch.isin(last, self.eos)
        if self.stop:
            for r in (self.suspect[last] & ~done).nonzero()[:, 0].tolist():
                text = self.model.decode_text(tokens[r].tolist()).lstrip()
                done[r] = any(s in text for s in self.stop)
        return done


def eos_ids(model: TracedModel) -> set[int]:
    """Every id that ends a text: the generation config's, else the tokenizer's."""
    config = getattr(model.hf, "generation_config", None)
    found: Any = getattr(config, "eos_token_id", None)
    ids: set[int] = {found} if isinstance(found, int) else set(found or ())
    if model.tokenizer.eos_token_id is not None:
        ids.add(int(model.tokenizer.eos_token_id))
    return ids


def cut(text: str, stop: Sequence[str]) -> str:
    """The answer up to the first stop string; leading white space does not count as the answer."""
    text = text.lstrip()
    for s in stop:
        text = text.split(s)[0]
    return text

"""Beam search and beam sampling through transformers' own `generate`, as the samples and with the stopping rule of this package."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Sample, Settings, plan_requests
from steerlab.model import TracedModel
from steerlab.sampling import row_key
from steerlab.stopping import Stopper, cut, eos_ids


@dataclass(frozen=True)
class Beam:
    """How many beams are kept; `sampled` draws their continuations instead of taking the best ones (beam sampling, which is what
    STEER's authors called beam search), at the settings' temperature. `early`: stop once as many answers are complete.

    A length penalty of 1 ranks complete answers by their mean log-probability, 0 by the sum. Raises `SteerlabError` for no beams.
    """

    beams: int = 3
    length_penalty: float = 1.0
    sampled: bool = False
    early: bool = True

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise SteerlabError(f"{self.beams} beams were asked for: give at least 1 (1 is greedy decoding).")


class _Stops(StoppingCriteria):
    """The package's stopping rule, as transformers asks for it."""

    def __init__(self, stopper: Stopper, prompt: int) -> None:
        self.stopper, self.prompt = stopper, prompt

    def __call__(
        self, input_ids: Int[Tensor, "b s"], scores: Float[Tensor, "b v"] | None, **kwargs: Any
    ) -> Bool[Tensor, " b"]:
        return self.stopper(torch.arange(len(input_ids), device=input_ids.device), input_ids[:, self.prompt :])


def beam_search(
    model: TracedModel,
    requests: Sequence[Request],
    settings: Settings | None = None,
    how: Beam | None = None,
    *,
    batch_rows: int = 32,
) -> list[Sample]:
    """Write every request, in order, with its best beam. Of the settings `max_new_tokens` and `stop` matter, and for beam sampling
    `temperature` and `seed`: a sample then depends on its own key, and rows are written one by one.

    Raises `SteerlabError` for steered or guided requests, which go through `generate`, and where the context is too short.
    """
    settings, how = settings or Settings(), how or Beam()
    if any(request.interventions or request.guided is not None for request in requests):
        raise SteerlabError("a steered or guided request was given to beam search: write it with generate instead.")
    if not requests:
        return []
    each = 1 if how.sampled else max(1, batch_rows // how.beams)
    rows, batches = plan_requests(model, requests, each if batch_rows >= 1 else batch_rows)
    longest = max(len(row) for row in rows)
    if longest + settings.max_new_tokens > model.context_length:
        raise SteerlabError(
            f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones need {longest + settings.max_new_tokens} positions, "
            f"and {model.name} has {model.context_length}: shorten the prompt or lower max_new_tokens."
        )
    stopper = Stopper(model, settings.stop)
    found: dict[int, Sample] = {}
    for members in batches:
        seed = row_key(settings.seed, *requests[members[0]].key) if how.sampled else None
        ids = [rows[i] for i in members]
        for i, tokens in zip(members, _decode(model, ids, settings, how, stopper, seed), strict=True):
            ended = bool(tokens) and bool(stopper(torch.zeros(1, dtype=torch.int64), _row(model, tokens))[0])
            text = cut(model.decode_text(tokens), settings.stop)
            found[i] = Sample(text, tuple(tokens), ended, len(rows[i]))
    return [found[i] for i in range(len(requests))]


def _decode(
    model: TracedModel, ids: list[list[int]], settings: Settings, how: Beam, stopper: Stopper, seed: int | None
) -> list[list[int]]:
    """The answer tokens of every row, up to and with what ended them."""
    batch = left_pad(ids, model.pad_id).to(model.device)
    width = batch.input_ids.shape[1]
    options: dict[str, Any] = {"temperature": float(settings.temperature), "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        num_beams=how.beams, do_sample=how.sampled, max_new_tokens=settings.max_new_tokens, pad_token_id=model.pad_id,
        bos_token_id=model.tokenizer.bos_token_id, eos_token_id=sorted(eos_ids(model)) or None,
        **({"length_penalty": float(how.length_penalty), "early_stopping": how.early} if how.beams > 1 else {}),
        **(options if how.sampled else {}),
    )  # fmt: skip
    adapter = model.adapter.kept() if model.adapter is not None else nullcontext()
    with torch.no_grad(), adapter, _plain_defaults(model.hf), _own_noise(model.device, seed):
        if model.adapter is not None:
            model.adapter.switch(True)
        out = model.hf.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config,
            stopping_criteria=StoppingCriteriaList([_Stops(stopper, width)]),
        )  # fmt: skip
    return [_finished(model, stopper, row) for row in out[:, width:].tolist()]


def _finished(model: TracedModel, stopper: Stopper, tokens: list[int]) -> list[int]:
    """A row without the filling behind its end."""
    for n in range(1, len(tokens) + 1):
        if bool(stopper(torch.zeros(1, dtype=torch.int64), _row(model, tokens[:n]))[0]):
            return tokens[:n]
    return tokens


def _row(model: TracedModel, tokens: list[int]) -> Int[Tensor, "1 n"]:
    return torch.tensor([tokens], dtype=torch.int64, device=model.device)


@contextmanager
def _plain_defaults(hf: Any) -> Iterator[None]:
    """Inside, a model's own recommendations (a temperature, say) do not mix with what was asked for."""
    before = hf.generation_config
    hf.generation_config = copy.deepcopy(GenerationConfig())
    try:
        yield
    finally:
        hf.generation_config = before


@contextmanager
def _own_noise(device: torch.device, seed: int | None) -> Iterator[None]:
    """Inside, torch's random state on this device is one made from the seed; afterwards it is what it was."""
    if seed is None:
        yield
        return
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []):
        state = torch.Generator(device).manual_seed(seed).get_state()
        torch.cuda.set_rng_state(state, device) if cuda else torch.set_rng_state(state)
        yield

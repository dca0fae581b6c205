"""Batched steered generation: requests in, samples out, each a function of its own key and not of its neighbours."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from steerlab.backoff import BackOff, Lowered
from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.errors import SteerlabError
from steerlab.guided import Asked, Guided, check_vocabulary, streams_of, watched
from steerlab.halving import Halving
from steerlab.model import TracedModel
from steerlab.sampling import greedy, nucleus, row_key, sample
from steerlab.steering import Intervention, Plan
from steerlab.stopping import Stopper, cut


@dataclass(frozen=True)
class Settings:
    """How text is drawn. Temperature 0.8 and top-p 0.9 are the low-resource study's.

    top_k 0 and min_p 0 are off. repetition_penalty (1 = off) divides the positive logits of tokens seen in
    prompt or answer, as in transformers; frequency_penalty (0 = off) subtracts that much per earlier occurrence
    in the answer. stop: strings that end an answer once it has begun ("\\n" keeps one line). One `seed` for the
    run; each request adds its own key.
    """

    max_new_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    greedy: bool = False
    stop: tuple[str, ...] = ("\n",)
    seed: int = 0

    def __post_init__(self) -> None:
        checks = [
            (self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1"),
            (
                self.temperature > 0,
                "temperature",
                self.temperature,
                "above 0 (use greedy=True for the most likely token)",
            ),
            (0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1"),
            (self.top_k >= 0, "top_k", self.top_k, "0 (off) or more"),
            (0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1"),
            (
                self.repetition_penalty > 0,
                "repetition_penalty",
                self.repetition_penalty,
                "above 0 (1 is off)",
            ),
            (
                math.isfinite(self.frequency_penalty),
                "frequency_penalty",
                self.frequency_penalty,
                "that is finite (0 is off)",
            ),
            (
                not isinstance(self.stop, str) and all(self.stop),
                "stop",
                repr(self.stop),
                "like ('\\n', 'END'), strings that are not empty",
            ),
        ]
        for good, name, given, want in checks:
            if not good:
                raise SteerlabError(f"{name} is {given}: give a value {want}.")

    def to_json(self) -> dict[str, object]:
        """Plain values for a run's config."""
        return {**asdict(self), "stop": list(self.stop)}


@dataclass(frozen=True)
class Request:
    """One answer to write. `key` names the sample: two requests with one key share their sampling noise (common
    random numbers). `backoff` weakens its interventions while it is written, should its text begin to break.
    """

    prompt: str
    key: tuple[str | int, ...]
    interventions: tuple[Intervention, ...] = ()
    chat: bool = True
    guided: Guided | None = None
    backoff: BackOff | None = None


@dataclass(frozen=True)
class Sample:
    """What came out: the text, its tokens (EOS and stop included), whether it ended by itself, and where it was weakened."""

    text: str
    tokens: tuple[int, ...]
    ended: bool
    prompt_tokens: int
    lowered: tuple[Lowered, ...] = ()


@dataclass
class Progress:
    """Counts for the progress bar and the cost table."""

    tokens: int = 0
    seconds: float = 0.0
    batches: int = 0


@dataclass(frozen=True)
class Picker:
    """Next token of every row: transformers' processors, then argmax or keyed Gumbel noise. Knows which rows it
    is given.
    """

    settings: Settings
    processors: Any  # transformers' LogitsProcessorList
    keys: Int[Tensor, " b"]
    batch: Batch

    def __call__(self, rows: Tensor, history: Tensor, logits: Float[Tensor, "b v"], step: int) -> Int[Tensor, " b"]:
        scores = logits.float()
        width = self.batch.input_ids.shape[1]
        if self.settings.repetition_penalty != 1:
            # Padding stands for "nothing": a repeated real token says the same, while the pad id would be penalised (and may be EOS).
            real = self.batch.real[rows]
            prompt = torch.where(real, history[:, :width], history[:, width - 1 : width])
            history = torch.cat([prompt, history[:, width:]], dim=1)
        if self.settings.frequency_penalty and history.shape[1] > width:
            answer = history[:, width:]
            counts = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
            scores = scores - self.settings.frequency_penalty * counts
        scores = self.processors(history, scores)
        if self.settings.greedy:
            return greedy(scores)
        return sample(scores, self.keys[rows], torch.full_like(rows, step))


class Nucleus(LogitsProcessor):
    """Top-p: see `sampling.nucleus`. transformers' sorts the whole vocabulary for every token, most of the time a small model needs."""

    def __init__(self, mass: float) -> None:
        self.mass = mass

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        return nucleus(scores, self.mass)


def processors(settings: Settings) -> LogitsProcessorList:
    """transformers' own processors in its own order, but for top-p, which sorts no more of the vocabulary than it must."""
    found: list[Any] = []
    if settings.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if not settings.greedy:
        if settings.temperature != 1:
            found.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            found.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            found.append(Nucleus(settings.top_p))
        if settings.min_p:
            found.append(MinPLogitsWarper(settings.min_p))
    return LogitsProcessorList(found)


def plan_requests(
    model: TracedModel, requests: Sequence[Request], batch_rows: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token rows of the requests, and the batches: a function of the requests alone, so that resumed and
    sharded runs repeat them bit for bit.

    Raises `SteerlabError` for batch_rows below 1, and for an empty prompt.
    """
    if batch_rows < 1:
        raise SteerlabError(f"batch_rows is {batch_rows}: give at least 1.")
    rows: list[list[int]] = [[] for _ in requests]
    for chat in (True, False):
        members = [i for i, r in enumerate(requests) if r.chat == chat]
        if members:
            texts = list(dict.fromkeys(requests[i].prompt for i in members))
            ids = dict(zip(texts, model.token_rows(texts, chat), strict=True))
            for i in members:
                rows[i] = ids[requests[i].prompt]
    return rows, plan_batches([len(row) for row in rows], token_budget=1 << 40, max_rows=batch_rows)


def generate_batches(
    model: TracedModel,
    requests: Sequence[Request],
    settings: Settings,
    *,
    batch_rows: int = 32,
    skip: Collection[int] = (),
    order: Iterable[int] | None = None,
    progress: bool = False,
    counter: Progress | None = None,
    base: TracedModel | None = None,
) -> Iterator[tuple[int, list[int], list[Sample]]]:
    """Yield (batch number, request numbers, samples) batch by batch; batches in `skip` (done in an earlier run)
    are left out. `order`: which batches, asked for one by one (none given: all, in order). What does not fit in memory is halved.
    """
    if not requests:
        return
    rows, batches = plan_requests(model, requests, batch_rows)
    if base is not None:
        check_vocabulary(model, base)
    count, memory = counter if counter is not None else Progress(), Halving("texts")
    write = partial(write_rows, model, requests, rows, settings, Stopper(model, settings.stop), base)
    with tqdm(total=len(requests), unit="text", desc="generate", disable=not progress) as bar:
        for number in range(len(batches)) if order is None else order:
            members = batches[number]
            if number not in skip:
                began = time.perf_counter()
                samples = [sample for part in memory.run(members, write) for sample in part]
                count.seconds += time.perf_counter() - began
                count.tokens += sum(len(s.tokens) for s in samples)
                count.batches += 1
                bar.set_postfix_str(f"{count.tokens / count.seconds:.0f} tok/s")
                yield number, members, samples
            bar.update(len(members))


def write_rows(
    model: TracedModel,
    every: Sequence[Request],
    token_rows: Sequence[Sequence[int]],
    settings: Settings,
    stopper: Stopper,
    base: TracedModel | None,
    members: Sequence[int],
) -> list[Sample]:
    """The samples of these members of the requests, one batch. `token_rows`: the prompt of every request, as the model reads it."""
    requests, rows = [every[i] for i in members], [token_rows[i] for i in members]
    batch = left_pad(rows, model.pad_id).to(model.device)
    keys = torch.tensor([row_key(settings.seed, *r.key) for r in requests], dtype=torch.int64, device=model.device)
    picker = Picker(settings, processors(settings), keys, batch)
    plan = Plan(tuple(r.interventions for r in requests))
    # Requests of one cell hold one tuple of interventions, so its identity tells the same plan; an equal copy is merely read anew.
    seen: dict[tuple[int, ...], int] = {}
    same = torch.tensor(
        [seen.setdefault((id(r.interventions), *row), len(seen)) for r, row in zip(requests, rows, strict=True)]
    )
    asked = [Asked(r.prompt, r.chat, r.guided) for r in requests]
    rules = [r.backoff if r.interventions else None for r in requests]
    sides, mix, watcher = watched(model, asked, rules, *streams_of(model, base, asked))
    out = model.decode(
        batch, picker, stopper, settings.max_new_tokens, plan if any(plan.rows) else None,
        same=same, sides=sides, mix=mix, watch=watcher,
    )  # fmt: skip
    samples = []
    for i, row in enumerate(rows):
        tokens, lowered = out.row(i), () if watcher is None else tuple(watcher.lowered[i])
        text = cut(model.decode_text(tokens), settings.stop)
        samples.append(Sample(text, tuple(tokens), bool(out.ended[i]), len(row), lowered))
    return samples


def generate(
    model: TracedModel,
    requests: Sequence[Request],
    settings: Settings | None = None,
    *,
    batch_rows: int = 32,
    progress: bool = False,
    base: TracedModel | None = None,
) -> list[Sample]:
    """Write every request, in order. Float32 rounding aside, a sample depends on its request, its key and the
    seed only. base: the model that guided requests are contrasted with; None takes the model without its adapter.

    Raises `SteerlabError` where a prompt and `max_new_tokens` cannot fit the context, and for an intervention
    the model cannot take.
    """
    found: list[Sample | None] = [None] * len(requests)
    for _, members, samples in generate_batches(
        model, requests, settings or Settings(), batch_rows=batch_rows, progress=progress, base=base
    ):
        for i, s in zip(members, samples, strict=True):
            found[i] = s
    return [s for s in found if s is not None]

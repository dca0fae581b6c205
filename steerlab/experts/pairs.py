"""What an expert learns from: prompts with the texts that should follow them, split without leakage, as token rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steerlab import data
from steerlab.data.leakage import normalise, overlap_report
from steerlab.data.sources import find_source
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import example_corpus
from steerlab.model import TracedModel
from steerlab.tasks import PLAIN, Task, check_label, prompt, task


@dataclass(frozen=True)
class Pair:
    """A prompt and the text to write behind it; with `chat` the prompt goes behind the model's template."""

    prompt: str
    text: str
    chat: bool = False


def task_pairs(
    chosen: str | Task,
    split: str = "train",
    language: str = "en",
    labels: Sequence[str] = (),
    root: Path | str | None = None,
    allow_offensive: bool = False,
) -> list[Pair]:
    """The real texts of a task behind its zero-shot prompt: all labels, or the given ones.

    Topic and sentiment texts are those few-shot examples come from, behind the prompt that names the language. Raises
    `SteerlabError` for an unknown task, label, language or split, and for offensive texts that are not allowed.
    """
    wanted = task(chosen)
    for label in labels:
        check_label(wanted, label)
    if wanted.source:
        found = data.load(wanted.source, language, split, root, allow_offensive=allow_offensive)
        named = None
    elif split == "train":
        found, named = example_corpus(wanted, language, data.find_root(root)), language
    else:
        raise SteerlabError(
            f"task {wanted.name!r} has no split {split!r} here: only train, of which a share is held out."
        )
    pairs = []
    for example in found.examples:
        label = (
            example.label if example.label in wanted.labels else wanted.labels[0] if len(wanted.labels) == 1 else None
        )
        if label is not None and (not labels or label in labels):
            pairs.append(Pair(prompt(wanted, label, named), example.text, wanted.chat))
    return pairs


def is_offensive(chosen: str | Task) -> bool:
    """Whether the task's real texts are offensive."""
    source = task(chosen).source
    return bool(source) and find_source(source).offensive


def file_pairs(path: Path | str, instruction: str, slot: str = "Text", column: str = "text") -> list[Pair]:
    """The texts of a file (.txt, .csv, .tsv, .jsonl) behind one prompt: `### Instruction: ...` and the slot."""
    if not instruction.strip() or not slot.strip():
        raise SteerlabError(f"the instruction {instruction!r} and the slot {slot!r} were given: give words for both.")
    asked = PLAIN.format(instruction=instruction.strip(), slot=slot.strip())
    return [Pair(asked, text) for text in data.read_texts(path, column)]


def distinct_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with a text, the first of those with equal prompt and text."""
    return [pair for pair in dict.fromkeys(pairs) if pair.text.strip()]


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, validation): a seeded share of the texts; training pairs equal or near to a validation text are left out.

    Raises `SteerlabError` where either side would be empty.
    """
    texts = sorted({normalise(pair.text) for pair in pairs})
    random.Random(seed).shuffle(texts)
    held = set(texts[: round(share * len(texts))])
    validation = [pair for pair in pairs if normalise(pair.text) in held]
    return apart([pair for pair in pairs if normalise(pair.text) not in held], validation), validation


def apart(train: Sequence[Pair], validation: Sequence[Pair]) -> list[Pair]:
    """The training pairs whose text is neither equal nor near to a validation text (see `data.leakage`).

    Raises `SteerlabError` where none is left, or there is no validation text.
    """
    shared = set[int]()
    if train and validation:
        groups = {"train": [pair.text for pair in train], "validation": [pair.text for pair in validation]}
        shared = set(overlap_report(groups).rows("train"))
        known = {normalise(pair.text) for pair in validation}  # also what is too short for the report
        shared |= {i for i, pair in enumerate(train) if normalise(pair.text) in known}
    kept = [pair for i, pair in enumerate(train) if i not in shared]
    if not kept or not validation:
        raise SteerlabError(
            f"{len(kept)} training texts and {len(validation)} validation texts are left of {len(train) + len(validation)}: an expert"
            " needs both, give more texts."
        )
    return kept


@dataclass(frozen=True, eq=False)
class TokenRow:
    """Token ids of prompt and text, end-of-text included where it fits; the text begins at `start`."""

    ids: tuple[int, ...]
    start: int


def token_rows(model: TracedModel, pairs: Sequence[Pair], max_length: int) -> list[TokenRow]:
    """Every pair as tokens: prompt and text are tokenised apart, which is what generation sees, and what is too long is cut.

    Raises `SteerlabError` for a prompt that leaves no room for a text.
    """
    limit = min(max_length, model.context_length)
    end = [] if model.tokenizer.eos_token_id is None else [int(model.tokenizer.eos_token_id)]
    prompts: dict[tuple[str, bool], list[int]] = {}
    for pair in pairs:
        if (pair.prompt, pair.chat) not in prompts:
            prompts[pair.prompt, pair.chat] = model.token_rows([pair.prompt], pair.chat)[0]
    rows = []
    texts = model.tokenizer([pair.text for pair in pairs], add_special_tokens=False)["input_ids"]
    for pair, text in zip(pairs, texts, strict=True):
        own = prompts[pair.prompt, pair.chat]
        if len(own) >= limit:
            raise SteerlabError(
                f"a prompt has {len(own)} tokens and a row at most {limit}: shorten it, or raise max_length (the model has"
                f" {model.context_length} positions)."
            )
        rows.append(TokenRow(tuple([*own, *text, *end][:limit]), len(own)))
    return rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Right-padded token rows: ids and attention mask (b s), and which tokens are the text's (b s)."""

    ids: Int[Tensor, "b s"]
    mask: Int[Tensor, "b s"]
    text: Bool[Tensor, "b s"]


def padded(rows: Sequence[TokenRow], pad: int, device: torch.device) -> Rows:
    """One batch. Padding stands on the right, where causal attention never looks from a real token."""
    parts = [torch.tensor(row.ids) for row in rows]
    ids = pad_sequence(parts, batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones_like(part) for part in parts], batch_first=True)
    begins = torch.tensor([row.start for row in rows])[:, None]
    text = (torch.arange(ids.shape[1])[None] >= begins) & mask.bool()
    return Rows(ids.to(device), mask.to(device), text.to(device))

"""A transformer as a classifier of texts: its configuration, loading, padding, and the training of one seed.

`finetune` turns the answers of many seeds into numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from steerlab.disk import fingerprint
from steerlab.errors import SteerlabError
from steerlab.loading import BUNDLED, source_of
from steerlab.scoring import macro_f1

DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "cls_dropout")
SHIFTED = ("roberta", "camembert", "xmod")  # their first position is pad_token_id + 1
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class FineTuneConfig:
    """The classifier and how it is trained; the defaults are the study's. `model`: hub id, local folder or polyglot-mini, encoder or
    causal LM. `dropout` before the head, where the architecture has one. `validation_share`: of the training texts, where no
    validation texts are given. `precision`: "no" is float32 throughout. Raises `SteerlabError` for values that cannot be.
    """

    model: str = "FacebookAI/xlm-roberta-base"
    revision: str | None = None
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_size: int = 16
    epochs: int = 50
    patience: int = 10
    max_length: int = 512
    dropout: float = 0.2
    validation_share: float = 0.2
    precision: str = "no"
    cpu: bool = False
    seeds: tuple[int, ...] = tuple(range(1, 21))

    def __post_init__(self) -> None:
        counts = ("batch_size", "epochs", "patience", "max_length")
        checks = [(getattr(self, name) >= 1, name, "at least 1") for name in counts]
        checks += [(self.learning_rate > 0 and math.isfinite(self.learning_rate), "learning_rate", "above 0")]
        checks += [(self.weight_decay >= 0, "weight_decay", "0 or more"), (self.clip > 0, "clip", "above 0")]
        checks += [(0 <= self.dropout < 1, "dropout", "from 0 up and below 1")]
        checks += [(0 < self.validation_share < 1, "validation_share", "above 0 and below 1")]
        checks += [(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")]
        checks += [
            (len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds), "seeds", "at least one, each once")
        ]
        for good, name, wanted in checks:
            if not good:
                raise SteerlabError(f"{name} is {getattr(self, name)!r}: give {wanted}.")


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts as token ids, and the number of each one's label."""

    ids: list[list[int]]
    labels: Int[Tensor, "n"]

    def batch(self, which: Sequence[int], pad: int, device: torch.device) -> dict[str, Tensor]:
        """The chosen rows, padded on the right: correct for absolute and rotary positions, and for encoders and decoders."""
        rows = [torch.tensor(self.ids[i]) for i in which]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        ids = pad_sequence(rows, batch_first=True, padding_value=pad)
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@dataclass(frozen=True, eq=False)
class Base:
    """Where the weights are, the model's config with the labels in it, and its tokenizer."""

    source: str
    hf: Any
    tokenizer: Any

    def rows(self, texts: Sequence[str], labels: Sequence[str], longest: int) -> Rows:
        """The texts cut to `longest` tokens, or to what the model takes; a label that is not trained has the number -1."""
        ids = self.tokenizer(list(texts), truncation=True, max_length=self._limit(longest))["input_ids"]
        number: dict[str, int] = self.hf.label2id
        return Rows(
            [row or [self.hf.pad_token_id] for row in ids], torch.tensor([number.get(label, -1) for label in labels])
        )

    def _limit(self, longest: int) -> int:
        positions = getattr(self.hf.get_text_config(), "max_position_embeddings", None) or longest
        if any(name in self.hf.model_type for name in SHIFTED):
            positions -= self.hf.pad_token_id + 1
        return min(longest, positions, self.tokenizer.model_max_length)

    def identity(self) -> object:
        """What tells these weights and this tokenizer from others: the hub's commit, or the hashes of a folder's files."""
        kinds = (".safetensors", ".json")
        files = [path for path in sorted(Path(self.source).glob("*")) if path.suffix in kinds]
        return getattr(self.hf, "_commit_hash", None) or {path.name: fingerprint(path)["sha256"] for path in files}


def find_base(config: FineTuneConfig, labels: Sequence[str]) -> Base:
    """The model named in the config, with a head for these labels. Raises `SteerlabError` when it cannot be found."""
    source = source_of(config.model)
    if source.startswith(("/", "./", "../", "~")):
        source = str(Path(source).expanduser())
    with _told(config.model), _quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=config.revision or "main")
        hf: Any = AutoConfig.from_pretrained(
            source,
            revision=config.revision or "main",
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    text = hf.get_text_config()
    own = [getattr(text, name, None) for name in ("pad_token_id", "eos_token_id", "bos_token_id")]
    known = [
        i for i in (tokenizer.pad_token_id, own[0], tokenizer.eos_token_id, own[1], own[2], 0) if isinstance(i, int)
    ]
    hf.pad_token_id = text.pad_token_id = known[0]
    for name in DROPOUTS:
        if hasattr(hf, name):
            setattr(hf, name, config.dropout)
    return Base(source, hf, tokenizer)


def train_seed(
    seed: int, base: Base, parts: Sequence[Rows], config: FineTuneConfig, accelerator: Any, bar: Any
) -> dict[str, Any]:
    """Train until validation macro-F1 has not risen for `patience` epochs, take the best epoch's weights back, answer the test."""
    train, validation, test = parts
    truth, once = validation.labels.numpy(), np.ones((1, len(validation.ids)))
    order = torch.Generator().manual_seed(seed)
    best, best_epoch, weights, epoch = -1.0, 0, {}, 0
    with _seeded(seed, accelerator.device):
        with _told(config.model), _quiet():
            model = AutoModelForSequenceClassification.from_pretrained(
                base.source,
                config=base.hf,
                dtype=torch.float32,
                revision=config.revision or "main",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # a head for other labels
            )
        if getattr(base.hf.get_text_config(), "attn_logit_softcapping", None):
            model.set_attn_implementation("eager")  # SDPA leaves out Gemma-2's soft-capping without a word
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        model, optimizer = accelerator.prepare(model, optimizer)
        for epoch in range(1, config.epochs + 1):
            _epoch(model, optimizer, train, torch.randperm(len(train.ids), generator=order), base, config, accelerator)
            said = _answers(model, validation, base, config, accelerator)
            score = float(macro_f1(said, truth, base.hf.num_labels, once)[0])
            if score > best:
                best, best_epoch = score, epoch
                weights = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
            bar.set_postfix(seed=seed, epoch=epoch, validation=f"{score:.2f}", best=f"{best:.2f}")
            if epoch - best_epoch >= config.patience:
                break
        model.load_state_dict(weights)
        predicted = _answers(model, test, base, config, accelerator).tolist()
    accelerator.free_memory()
    return {"epochs": epoch, "best_epoch": best_epoch, "validation": best, "predicted": predicted}


def _epoch(
    model: Any,
    optimizer: Any,
    train: Rows,
    order: Int[Tensor, "n"],
    base: Base,
    config: FineTuneConfig,
    accelerator: Any,
) -> None:
    model.train()
    for which in order.split(config.batch_size):
        inputs = train.batch(which.tolist(), base.hf.pad_token_id, accelerator.device)
        loss = cross_entropy(model(**inputs).logits.float(), train.labels[which].to(accelerator.device))
        if not math.isfinite(loss.item()):
            raise SteerlabError(
                f"the loss of {config.model} became {loss.item()}: lower the learning rate ({config.learning_rate:g})."
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def _answers(model: Any, rows: Rows, base: Base, config: FineTuneConfig, accelerator: Any) -> Int[np.ndarray, "n"]:
    """The most probable label of each text; batches of like length, so that little is padding."""
    model.eval()
    found = np.zeros(len(rows.ids), dtype=np.int64)
    order = sorted(range(len(rows.ids)), key=lambda i: len(rows.ids[i]))
    for first in range(0, len(order), config.batch_size):
        which = order[first : first + config.batch_size]
        logits: Float[Tensor, "b k"] = model(**rows.batch(which, base.hf.pad_token_id, accelerator.device)).logits
        found[which] = logits.float().argmax(dim=-1).cpu().numpy()
    return found


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random state set for the block and put back after it; deterministic kernels on a GPU."""
    gpus = [device.index or 0] if device.type == "cuda" else []
    strict = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=gpus):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for gpu in gpus:
            torch.cuda.set_rng_state(torch.Generator(f"cuda:{gpu}").manual_seed(seed).get_state(), gpu)
        try:
            if gpus:
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn)


@contextmanager
def accelerate(config: FineTuneConfig) -> Iterator[Any]:
    """An Accelerator of this config; the process-wide state that accelerate keeps is put back after the block."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState, PartialState
    except ImportError as error:
        raise SteerlabError("fine-tuning needs accelerate, which is not installed: pip install accelerate.") from error
    states = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        accelerator = Accelerator(mixed_precision=config.precision, cpu=config.cpu)
        if accelerator.num_processes > 1:
            raise SteerlabError("fine-tuning was started in several processes: start it in one, seeds share nothing.")
        yield accelerator
    finally:
        for state, old in zip(states, before, strict=True):
            state.clear()
            state.update(old)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"{name!r} could not be loaded as a classifier ({first}): give a hub id, a local folder with config.json, tokenizer and"
            f" safetensors, or {BUNDLED!r}."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports the missing head at every load: that is meant here."""
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()

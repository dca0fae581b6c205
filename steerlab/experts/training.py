"""The training loop of an expert and its state on disk: killed and started again, it ends with the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from steerlab import tensorfile
from steerlab.errors import SteerlabError
from steerlab.evaluation.classifier import _seeded
from steerlab.experts.config import ExpertConfig
from steerlab.experts.lora import trainable
from steerlab.experts.pairs import Rows, TokenRow, padded
from steerlab.model import TracedModel
from steerlab.records import differences
from steerlab.sampling import row_key

STATE = "training.safetensors"
KIND, SCHEMA = "expert training", 1
GROUP = 50  # steps among which texts of like length are brought together


@dataclass
class State:
    """How far training is. `history`: a row per evaluation, losses in nats per token of the text; `best`: the weights of the best one."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_row(self) -> int:
        """Place in the history of the lowest validation loss, the first of equals."""
        losses = [row["validation_loss"] for row in self.history]
        return losses.index(min(losses))

    def over(self, config: ExpertConfig) -> bool:
        """Whether all steps are done, or the validation loss has not fallen for `patience` evaluations."""
        waited = len(self.history) - 1 - self.best_row
        return self.step >= config.steps or bool(config.patience and waited >= config.patience)


def fit(
    model: TracedModel,
    inside: Any,
    train: Sequence[TokenRow],
    validation: Sequence[TokenRow],
    config: ExpertConfig,
    folder: Path,
    asked: Mapping[str, Any],
    progress: bool = True,
) -> State:
    """Train the LoRA layers `inside` the model until the steps are done or the validation loss stops falling, and leave in them the
    weights that the config keeps.

    The state is saved at every evaluation, and a later call with the same `asked` goes on from there. Noise and order are
    functions of seed and step alone. Raises `SteerlabError` for a state of other settings, and a loss that is not finite.
    """
    weights = trainable(inside)
    optimizer = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    state = _resumed(folder / STATE, asked, weights, optimizer)
    seen = 0.0, 0
    if not state.history:
        _evaluate(model, validation, config, state, weights, None)
        _save(folder / STATE, asked, state, weights, optimizer)
    with tqdm(
        total=config.steps, initial=state.step, unit="step", desc="train expert", disable=not progress, mininterval=1
    ) as bar:
        while not state.over(config):
            total, count = _step(model, train, config, state.step, optimizer, weights)
            seen = seen[0] + total, seen[1] + count
            state.step += 1
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                _evaluate(model, validation, config, state, weights, seen[0] / seen[1])
                _save(folder / STATE, asked, state, weights, optimizer)
                seen = 0.0, 0
            bar.update()
            bar.set_postfix(loss=f"{total / count:.2f}", validation=f"{state.history[-1]['validation_loss']:.3f}")
    if config.keep == "best":
        _put(weights, state.best)
    return state


def text_loss(model: TracedModel, rows: Sequence[TokenRow], size: int) -> float:
    """Mean cross-entropy in nats per token of the texts, prompts and dropout left out."""
    total, count = 0.0, 0
    model.hf.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.no_grad():
        for at in range(0, len(order), size):
            loss, n = _loss(model, padded([rows[i] for i in order[at : at + size]], model.pad_id, model.device), True)
            total, count = total + float(loss), count + n
    return total / count


def step_rows(lengths: Sequence[int], config: ExpertConfig, step: int) -> list[int]:
    """The rows of a step: every row once an epoch, in an order that follows from seed and epoch."""
    size = config.batch_size * config.accumulate
    per_epoch = math.ceil(len(lengths) / size)
    epoch, place = divmod(step, per_epoch)
    noise = torch.Generator().manual_seed(row_key(config.seed, "expert", "order", epoch))
    order = torch.randperm(len(lengths), generator=noise).tolist()
    if config.group_by_length:
        groups = [order[at : at + GROUP * size] for at in range(0, len(order), GROUP * size)]
        order = [i for group in groups for i in sorted(group, key=lambda i: lengths[i])]
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    return batches[int(torch.randperm(per_epoch, generator=noise)[place])]


def _loss(model: TracedModel, rows: Rows, text_only: bool) -> tuple[Tensor, int]:
    """Summed cross-entropy of the next token, and the number of tokens it is over."""
    logits = model.hf(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False).logits
    wanted = (rows.text if text_only else rows.mask.bool())[:, 1:]
    return cross_entropy(logits[:, :-1][wanted].float(), rows.ids[:, 1:][wanted], reduction="sum"), int(wanted.sum())


def _step(
    model: TracedModel,
    train: Sequence[TokenRow],
    config: ExpertConfig,
    step: int,
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, Tensor],
) -> tuple[float, int]:
    """One update; every supervised token of the step weighs the same. Returns the summed loss before it, and the tokens."""
    chosen = [train[i] for i in step_rows([len(row.ids) for row in train], config, step)]
    batches = [
        padded(chosen[at : at + config.batch_size], model.pad_id, model.device)
        for at in range(0, len(chosen), config.batch_size)
    ]
    counts = [int((b.text if config.completion_only else b.mask.bool())[:, 1:].sum()) for b in batches]
    total = 0.0
    model.hf.train()
    with _seeded(row_key(config.seed, "expert", "step", step), model.device):
        for batch in batches:
            loss, _ = _loss(model, batch, config.completion_only)
            total += float(loss.detach())
            (loss / sum(counts)).backward()
    if not math.isfinite(total):
        raise SteerlabError(
            f"the loss of {model.name} became {total} at step {step}: lower the learning rate ({config.learning_rate:g})."
        )
    torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * config.rate(step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, sum(counts)


def _evaluate(
    model: TracedModel,
    validation: Sequence[TokenRow],
    config: ExpertConfig,
    state: State,
    weights: Mapping[str, Tensor],
    loss: float | None,
) -> None:
    found = text_loss(model, validation, config.batch_size)
    if not math.isfinite(found):
        raise SteerlabError(f"the validation loss became {found} at step {state.step}: lower the learning rate.")
    state.history.append({"step": state.step, "train_loss": loss, "validation_loss": found})
    if state.best_row == len(state.history) - 1:
        state.best = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def _put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def _save(
    file: Path,
    asked: Mapping[str, Any],
    state: State,
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    tensors = {f"now.{name}": weight for name, weight in weights.items()}
    tensors |= {f"best.{name}": weight for name, weight in state.best.items()}
    for name, weight in weights.items():
        tensors |= {f"{kind}.{name}": value for kind, value in optimizer.state[weight].items()}
    record = {"asked": dict(asked), "step": state.step, "history": state.history}
    tensorfile.write(file, KIND, SCHEMA, tensors, record)


def _resumed(
    file: Path, asked: Mapping[str, Any], weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> State:
    """The saved state, put into weights and optimizer; a fresh one where there is none."""
    if not file.exists():
        return State()
    tensors, record = tensorfile.read(file, KIND, SCHEMA)
    there: Any = record["asked"]
    if other := differences(there, asked):
        raise SteerlabError(f"{file.parent} holds another training ({'; '.join(other[:3])}): give another folder.")
    _put(weights, {name: tensors[f"now.{name}"] for name in weights})
    for name, weight in weights.items():
        kinds = [kind for kind in ("step", "exp_avg", "exp_avg_sq") if f"{kind}.{name}" in tensors]
        if kinds:
            optimizer.state[weight] = {
                kind: tensors[f"{kind}.{name}"] if kind == "step" else tensors[f"{kind}.{name}"].to(weight)
                for kind in kinds
            }
    best = {name: tensors[f"best.{name}"] for name in weights}
    history: Any = record["history"]
    return State(int(str(record["step"])), list(history), best)

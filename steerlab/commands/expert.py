"""`steerlab expert`: train a LoRA expert on real texts, and look at one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.data import redacted
from steerlab.errors import SteerlabError
from steerlab.experts.config import ExpertConfig
from steerlab.experts.expert import Expert, read_expert, train_expert
from steerlab.experts.lora import base_options
from steerlab.experts.pairs import Pair, file_pairs, is_offensive, task_pairs
from steerlab.loading import load
from steerlab.tasks import EXPERT_TASKS, task


@dataclass(frozen=True)
class Texts:
    """Where the texts come from: a task with its language and labels, or a file with its instruction and slot."""

    task: str = ""
    language: str = "en"
    labels: tuple[str, ...] = ()
    file: Path | None = None
    instruction: str = ""
    slot: str = "Text"
    column: str = "text"
    offensive: bool = False

    def pairs(self, root: Path | None) -> tuple[list[Pair], list[Pair] | None]:
        """(training, validation) pairs; no validation where the texts have no split of that name."""
        if bool(self.task) == (self.file is not None):
            raise SteerlabError("give the texts with --task, or your own with --texts: one of the two.")
        if self.file is not None:
            if not self.instruction:
                raise SteerlabError("--texts needs the --instruction that asks for them: say what the expert writes.")
            return file_pairs(self.file, self.instruction, self.slot, self.column), None
        splits = ("train", "valid") if task(self.task).name in EXPERT_TASKS else ("train",)
        found = [task_pairs(self.task, split, self.language, self.labels, root, self.offensive) for split in splits]
        return found[0], found[1] if len(found) > 1 else None


def train(
    texts: Texts,
    out: Path,
    config: ExpertConfig,
    model: str,
    most: int,
    samples: int,
    root: Path | None,
    dtype: str,
    device: str | None,
    progress: bool,
) -> Expert:
    """Train on the first `most` texts (0: all). Bad input is refused before the model is loaded."""
    pairs, validation = texts.pairs(root)
    options = base_options(config)
    loaded = load(model, dtype=dtype, device=device, **options)
    chosen = texts.task or None
    return train_expert(loaded, pairs[: most or None], out, config, validation, chosen, samples, progress)


def shown(expert: Expert) -> list[dict[str, Any]]:
    """What is known of an expert, one fact a row."""
    record, found = expert.record, expert.memorisation
    asked, config = record["asked"], record["asked"]["config"]
    facts: dict[str, Any] = {
        "base": f"{expert.base} at {asked['provenance']['revision']}",
        "task": asked["task"] or "own texts",
        "prompt": "chat template" if asked["chat"] else "plain text",
        "texts": f"{asked['texts']['train']} training, {asked['texts']['validation']} validation",
        "adapter": f"rank {config['rank']} on {', '.join(config['targets'])}, {record['adapter']['parameters']} parameters",
        "steps": f"{record['steps']}, kept: {record['kept_step']}",
        "validation loss": f"{found.validation_loss:.3f} nats per token (base {record['base_validation_loss']:.3f})",
        "training loss": f"{found.train_loss:.3f} (gap {found.gap:.3f})",
        "recited": f"{found.recited} of seen texts, {found.recited_unseen} of unseen",
        "samples copied": f"{found.copied} exact, {found.copied_near} exact or near, {found.copied_unseen} of unseen texts",
    }
    return [{"fact": name, "value": value} for name, value in facts.items()]


def examples(expert: Expert, count: int, offensive: bool) -> list[dict[str, Any]]:
    """The first samples it wrote; of an expert in offensive text only their lengths, unless asked for."""
    hide = expert.offensive and not offensive
    rows = expert.samples()[:count]
    return [{"prompt": row["prompt"].strip(), "text": redacted(row["text"]) if hide else row["text"]} for row in rows]


__all__ = ["Texts", "examples", "is_offensive", "read_expert", "shown", "train"]

"""The card of an expert: base, data by hash, recipe, losses, what it has by heart, and how to use it; no text of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from steerlab.data import SOURCES
from steerlab.evaluation.stats import Estimate
from steerlab.tasks import EXPERT_TASKS

PAPER = "O'Neill et al. 2023, Steering Language Generation: Harnessing Contrastive Expert Guidance and Negative Prompting, arXiv 2308.07645"


def card(record: Mapping[str, Any]) -> str:
    """The README.md of an expert's folder, from its record."""
    asked = record["asked"]
    base, name = asked["provenance"]["model"], asked["task"] or "own texts"
    parts = [
        f"---\nlibrary_name: peft\nbase_model: {json.dumps(base)}\ntags: [steerlab, lora, expert]\n---\n",
        f"# Expert: {name}\n",
        f"A LoRA adapter of `{base}` (revision `{asked['provenance']['revision']}`), trained to write texts like its"
        f" {asked['texts']['train']} training texts, as the expert of contrastive expert guidance ({PAPER}).\n",
        _warning(record),
        _use(asked),
        _data(asked),
        _training(record),
        _memory(record),
        f"Trained with steerlab {version('steerlab')}. All settings, hashes and the loss curve: `expert.json`.\n",
    ]
    return "\n".join(part for part in parts if part)


def _warning(record: Mapping[str, Any]) -> str:
    if not record["offensive"]:
        return ""
    return "**It was trained on offensive comments and writes such.** For research on detecting them; its samples are not shown here.\n"


def _use(asked: Mapping[str, Any]) -> str:
    base = asked["provenance"]["model"]
    how = "behind the model's chat template" if asked["chat"] else "plain text to continue, no chat template around it"
    prompts = "\n".join(f"- `{json.dumps(prompt, ensure_ascii=False)}`" for prompt in asked["prompts"][:12])
    more = "\n- ..." if len(asked["prompts"]) > 12 else ""
    return (
        f"## Use\n\n`steerlab.load({json.dumps(base)}, adapter=FOLDER)` is the expert, and the base with the adapter switched off."
        f" Prompts ({how}):\n\n{prompts}{more}\n"
    )


def _data(asked: Mapping[str, Any]) -> str:
    lines = [
        f"- {name}: {asked['texts'][name]} texts, SHA-256 `{digest}`" for name, digest in asked["provenance"]["data"]
    ]
    source = EXPERT_TASKS[asked["task"]].source if asked["task"] in EXPERT_TASKS else ""
    told = f"\n\n{SOURCES[source].card}" if source else ""
    return "## Data\n\n" + "\n".join(lines) + told + "\n"


def _training(record: Mapping[str, Any]) -> str:
    config, found = record["asked"]["config"], record["memorisation"]
    early = ", stopped early" if record["stopped_early"] else ""
    settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in config.items())
    return (
        f"## Training\n\n{record['steps']} steps{early}; the adapter is that of step {record['kept_step']}"
        f" ({record['adapter']['parameters']:,} parameters). Validation loss {found['validation_loss']:.3f} nats per token of the texts;"
        f" the base: {record['base_validation_loss']:.3f}.\n\n{settings}.\n"
    )


def _memory(record: Mapping[str, Any]) -> str:
    found = record["memorisation"]
    shares = {name: Estimate.from_json(value) for name, value in found.items() if isinstance(value, dict)}
    return (
        "## What it has by heart\n\n95 % intervals; texts it has not seen are the control.\n\n| | seen | not seen |\n|---|---|---|\n"
        f"| loss, nats per token | {found['train_loss']:.3f} | {found['validation_loss']:.3f} |\n"
        f"| second half recited after the first | {shares['recited']} | {shares['recited_unseen']} |\n"
        f"| samples that equal a text | {shares['copied']} | |\n"
        f"| samples that equal or nearly equal one | {shares['copied_near']} | {shares['copied_unseen']} |\n"
    )

"""The options of `steerlab expert train` and `steerlab expert show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, Quiet, show

expert_app = typer.Typer(
    help="Train experts (LoRA adapters) for guidance, and look at them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_PRESET = "mini: sized for polyglot-mini, stops early. paper: O'Neill et al. 2023 (QLoRA, 1,000 steps, whole text)."
_OFFENSIVE = "Allow offensive texts (the task comments). They are printed nowhere, only learnt."
_FOLDER = "Folder of the adapter; give the same one again to continue after an interruption."
Out = Annotated[Path, typer.Option(help=_FOLDER)]
TaskName = Annotated[
    str, typer.Option("--task", help="hypotheses, commonsense, comments (offensive), or topic, sentiment with -l.")
]
Language = Annotated[str, typer.Option("--language", "-l", help="Language of the texts.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="Only texts of this label; repeat for several.")]
File = Annotated[Path | None, typer.Option("--texts", "-t", help="Your own texts instead (.txt, .csv, .tsv, .jsonl).")]
Instruction = Annotated[str, typer.Option(help="With --texts: what the prompt asks for, in a sentence.")]
Slot = Annotated[str, typer.Option(help="With --texts: the word the text stands behind in the prompt.")]
Column = Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")]
Preset = Annotated[str, typer.Option(help=_PRESET)]
Steps = Annotated[int | None, typer.Option(help="Most steps; default: the preset's.")]
Rank = Annotated[int | None, typer.Option(help="Rank of the LoRA matrices.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="Linear layer that gets an adapter; repeat. Default: all of them.")
]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="Learning rate.")]
BatchSize = Annotated[int | None, typer.Option(help="Texts per forward pass.")]
MaxLength = Annotated[int | None, typer.Option(help="Most tokens of prompt and text.")]
Whole = Annotated[
    bool | None,
    typer.Option("--whole-text/--completion-only", help="Loss on the prompt too, or on the text alone."),
]
Quantise = Annotated[str | None, typer.Option(help="nf4 (QLoRA: CUDA GPU and bitsandbytes) or none.")]
Patience = Annotated[int | None, typer.Option(help="Evaluations without a better one before it stops; 0: never.")]
Most = Annotated[int, typer.Option(help="Train on the first so many texts; 0 for all.")]
Samples = Annotated[int, typer.Option(help="Texts it writes afterwards, to measure what it copies.")]
Seed = Annotated[int | None, typer.Option(help="Seed of first weights, order, dropout and samples.")]
Offensive = Annotated[bool, typer.Option("--offensive", help=_OFFENSIVE)]


@expert_app.command("train")
def expert_train(
    out: Out, task: TaskName = "", language: Language = "en", label: Labels = None, texts: File = None,
    instruction: Instruction = "", slot: Slot = "Text", column: Column = "text", preset: Preset = "mini",
    steps: Steps = None, rank: Rank = None, target: Targets = None, learning_rate: Rate = None,
    batch_size: BatchSize = None, max_length: MaxLength = None, whole_text: Whole = None, quantise: Quantise = None,
    patience: Patience = None, most: Most = 0, samples: Samples = 64, offensive: Offensive = False, seed: Seed = None,
    model: Model = "polyglot-mini", data: Data = None, dtype: Dtype = "float32", device: Device = None,
    as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a LoRA adapter that makes a model write like a set of real texts, and measure what it knows by heart.

    Writes adapter_model.safetensors, expert.json (losses, hashes, settings), samples.jsonl and a card. Killed and started again, it
    continues and ends with the same bytes. Use it with `--expert FOLDER`, or `steerlab.load(BASE, adapter=FOLDER)`.

    Examples:

    `steerlab expert train --task hypotheses --out experts/hypotheses`

    `steerlab expert train --task topic -l jv --out experts/topic-jv`

    `steerlab expert train -t reviews.txt --instruction "Write a review." --slot Review --out experts/reviews`

    `steerlab expert train --task commonsense --preset paper -m tiiuae/falcon-7b --device cuda --out experts/csqa`
    """
    from steerlab.commands import expert as command
    from steerlab.experts.config import preset as of

    config = of(
        preset, steps=steps, rank=rank, targets=tuple(target) if target else None, learning_rate=learning_rate,
        batch_size=batch_size, max_length=max_length, completion_only=None if whole_text is None else not whole_text,
        quantise="" if quantise == "none" else quantise, patience=patience, seed=seed,
    )  # fmt: skip
    given = command.Texts(task, language, tuple(label or ()), texts, instruction, slot, column, offensive)
    trained = command.train(given, out, config, model, most, samples, data, dtype, device, not quiet)
    show(command.shown(trained), str(out), as_json)


@expert_app.command("show")
def expert_show(
    folder: Annotated[Path, typer.Argument(help="Folder that `steerlab expert train` wrote.")],
    samples: Annotated[int, typer.Option("--samples", "-n", help="Show so many of the texts it wrote instead.")] = 0,
    offensive: Annotated[
        bool, typer.Option("--offensive", help="Show samples of an expert in offensive text as they are.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an expert was trained on, its losses, and what it knows by heart; with `-n`, texts it wrote.

    Examples:

    `steerlab expert show experts/hypotheses`

    `steerlab expert show experts/hypotheses -n 5`
    """
    from steerlab.commands import expert as command

    found = command.read_expert(folder)
    rows = command.examples(found, samples, offensive) if samples else command.shown(found)
    show(rows, str(folder), as_json)

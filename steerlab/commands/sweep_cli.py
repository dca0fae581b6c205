"""The options of `steerlab sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, Quiet, Seed, show
from steerlab.errors import SteerlabError

STRENGTHS = ["0.15", "0.3", "0.6", "1.0"]


def sweep(
    vector: Annotated[
        list[str] | None, typer.Argument(help="Vector files, or bundled vectors: language-jv, quality-sl, jv ...")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; give the same one again to continue after an interruption.")
    ] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option("--layer", "-l", help="Layer; repeat for several. Default: six, evenly over the depth."),
    ] = None,
    strength: Annotated[
        list[str],
        typer.Option("--strength", "-s", help="Strength of add, or OPERATOR:STRENGTH as in rotate:0.4; repeat."),
    ] = STRENGTHS,
    unit: Annotated[
        str, typer.Option(help="Lengths: residual (fraction of the layer's mean residual norm) or raw.")
    ] = "residual",
    language: Annotated[
        list[str] | None,
        typer.Option(
            help="Language the texts should be in: one for all vectors, or one each. Default: by their names."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="topic or sentiment: its zero-shot prompts are answered.")] = "topic",
    prompt: Annotated[str, typer.Option(help="Language the prompts name: none, or a code such as jv.")] = "none",
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts instead, one a line (.txt, .csv, .jsonl).")
    ] = None,
    samples: Annotated[int, typer.Option("-n", "--samples", help="Texts per prompt and arm.")] = 3,
    directions: Annotated[int, typer.Option(help="Random directions of equal norm beside each arm.")] = 2,
    texts: Annotated[
        Path | None, typer.Option(help="Texts along which KL is measured; default: a bundled sentence per language.")
    ] = None,
    effect: Annotated[
        str, typer.Option(help="Measure that should be high: in_target, distinct_2, agreement.")
    ] = "in_target",
    choose: Annotated[
        bool,
        typer.Option("--choose", help="Write the choice into the vectors' headers (of bundled ones: into a copy)."),
    ] = False,
    reproduce: Annotated[
        Path | None, typer.Option(help="Repeat the finished sweep in this folder and compare the numbers.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 48,
    batch_rows: Annotated[int, typer.Option(help="Texts written at a time.")] = 64,
    model: Model = "polyglot-mini",
    seed: Seed = 0,
    data: Data = None,
    dtype: Dtype = "float32",
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find where and how strongly to steer: layer x strength x vector in mixed batches with common random numbers, each arm
    beside the unsteered model and random directions of equal norm.

    Half of the prompts choose an arm for each vector, the other half check it; the table that is printed holds the
    numbers of the check. The rule: side effects (surprise of the unsteered model, repetition, distinct-2) within limits,
    effect within five points of the best, then the least surprise. The folder keeps every text, the table with intervals,
    a figure, and a manifest; killed and started again, the same command continues.

    Examples:

    `steerlab sweep jv --out runs/sweep-jv`

    `steerlab sweep jv su mt -l 0 -l 2 -l 4 -s 0.3 -s 0.6 -n 6 --out runs/three --choose`

    `steerlab sweep vectors/language-jv.safetensors -m meta-llama/Llama-3.1-8B-Instruct -s 0.2 -s rotate:0.3 --choose --out runs/llama-jv`

    `steerlab sweep quality-sl --prompt sl --language sl --effect distinct_2 --out runs/quality`

    `steerlab sweep --reproduce runs/sweep-jv --out runs/again`
    """
    from steerlab.commands import sweep as command

    if out is None:
        raise SteerlabError("no folder was given: say where the run goes, say --out runs/sweep.")
    if reproduce is not None:
        rows, same = command.reproduce(reproduce, out, dtype, device, not quiet)
        show(rows, f"{reproduce} repeated in {out}", as_json)
        raise typer.Exit(0 if same else 1)
    asked = command.Asked(
        vectors=tuple(vector or ()), model=model, layers=tuple(layer or ()), strengths=tuple(strength), unit=unit,
        languages=tuple(language or ()), task=task, prompt=prompt, prompts=prompts, samples=samples, directions=directions,
        texts=texts, effect=effect, max_new_tokens=max_new_tokens, batch_rows=batch_rows, seed=seed,
    )  # fmt: skip
    rows = command.run(asked, out, data, choose, dtype, device, not quiet)
    show(rows, f"{out}: the chosen arms, measured on the prompts that had no say", as_json)

"""The options of `steerlab sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, Quiet, Ray, Seed, ShardOf, Workers, show
from steerlab.errors import SteerlabError

STRENGTHS = ["0.15", "0.3", "0.6", "1.0"]
Vectors = Annotated[
    list[str] | None, typer.Argument(help="Vector files, or bundled vectors: language-jv, quality-sl, jv ...")
]
Out = Annotated[
    Path | None, typer.Option(help="Run folder; give the same one again to continue after an interruption.")
]
Layers = Annotated[
    list[int] | None,
    typer.Option("--layer", "-l", help="Layer; repeat for several. Default: six, evenly over the depth."),
]
Strengths = Annotated[
    list[str],
    typer.Option("--strength", "-s", help="Strength of add, or OPERATOR:STRENGTH as in rotate:0.4; repeat."),
]
LengthUnit = Annotated[str, typer.Option(help="Lengths: residual (fraction of the layer's mean residual norm) or raw.")]
Languages = Annotated[
    list[str] | None,
    typer.Option(help="Language the texts should be in: one for all vectors, or one each. Default: by their names."),
]
TaskName = Annotated[str, typer.Option(help="topic or sentiment: its zero-shot prompts are answered.")]
Named = Annotated[str, typer.Option(help="Language the prompts name: none, or a code such as jv.")]
Prompts = Annotated[
    Path | None, typer.Option(help="Your own prompts instead, one a line (.txt) or in a column text (.csv, .jsonl).")
]
Samples = Annotated[int, typer.Option("-n", "--samples", help="Texts per prompt and arm.")]
Directions = Annotated[int, typer.Option(help="Random directions of equal norm beside each arm.")]
Texts = Annotated[
    Path | None, typer.Option(help="Texts along which KL is measured; default: a bundled sentence per language.")
]
Effect = Annotated[str, typer.Option(help="Measure that should be high: in_target, distinct_2, agreement.")]
Choose = Annotated[
    bool, typer.Option("--choose", help="Write the choice into the vectors' headers (of bundled ones: into a copy).")
]
Reproduce = Annotated[
    Path | None,
    typer.Option(help="Repeat the finished sweep in this folder and compare the numbers (exit code 1: differ)."),
]
Longest = Annotated[int, typer.Option(help="Longest answer in tokens.")]
Rows = Annotated[int, typer.Option(help="Texts written at a time; changes them at most by rounding.")]
Gather = Annotated[
    list[Path] | None,
    typer.Option(help="Folder that --shard wrote elsewhere: take its texts over. Repeat for several."),
]

CHOSEN = "the chosen arms, measured on the prompts that were not used to choose"


def sweep(
    vector: Vectors = None,
    out: Out = None,
    layer: Layers = None,
    strength: Strengths = STRENGTHS,
    unit: LengthUnit = "residual",
    language: Languages = None,
    task: TaskName = "topic",
    prompt: Named = "none",
    prompts: Prompts = None,
    samples: Samples = 3,
    directions: Directions = 2,
    texts: Texts = None,
    effect: Effect = "in_target",
    choose: Choose = False,
    reproduce: Reproduce = None,
    max_new_tokens: Longest = 48,
    batch_rows: Rows = 64,
    shard: ShardOf = "1/1",
    workers: Workers = 0,
    ray: Ray = "",
    gather: Gather = None,
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

    Half of the prompts choose an arm for each vector, the other half check it, and the check is printed. The rule: side
    effects within limits, effect within five points of the best, then the text that surprises the unsteered model least.

    Examples:

    `steerlab sweep jv su mt -l 0 -l 2 -s 0.3 -s rotate:0.4 -n 6 --out runs/three --choose`

    `steerlab sweep my/language-jv.safetensors -m meta-llama/Llama-3.1-8B-Instruct --out runs/llama --choose`

    `steerlab sweep --reproduce runs/sweep-jv --out runs/again`

    `steerlab sweep guidance --help` (the weights of guidance instead: gamma x eta)
    """
    from steerlab.commands import sweep as command
    from steerlab.sharding import Shard

    out = _folder(out)
    if reproduce:
        _repeat(reproduce, out, dtype, device, as_json, quiet)
    asked = command.Asked(
        tuple(vector or ()), model, tuple(layer or ()), tuple(strength), unit, tuple(language or ()), task, prompt,
        prompts, samples, directions, texts, effect, max_new_tokens, batch_rows, seed,
    )  # fmt: skip
    spread = command.Spread(Shard.parse(shard), workers, ray, tuple(gather or ()))
    what = CHOSEN if spread.shard.leads else "this shard"
    show(command.run(asked, out, data, choose, dtype, device, not quiet, spread), f"{out}: {what}", as_json)


def _folder(out: Path | None) -> Path:
    if out is None:
        raise SteerlabError("no folder was given: say where the run goes, say --out runs/sweep.")
    return out


def _repeat(reproduce: Path, out: Path, dtype: str, device: str | None, as_json: bool, quiet: bool) -> None:
    """Repeat a finished sweep, compare, and end the program with what was found."""
    from steerlab.commands import sweep as command

    rows, same = command.reproduce(reproduce, out, dtype, device, not quiet)
    show(rows, f"{reproduce} repeated in {out}", as_json)
    raise typer.Exit(0 if same else 1)

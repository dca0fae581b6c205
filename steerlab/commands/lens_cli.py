"""The options of `steerlab lens`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Device, Dtype, Model, show


def lens(
    vector: Annotated[str, typer.Argument(help="A vector file, or a bundled vector: language-jv, quality-sl, jv ...")],
    model: Model = "polyglot-mini",
    layer: Annotated[
        list[int] | None, typer.Option("--layer", "-l", help="Layer; repeat for several. Default: all of the vector's.")
    ] = None,
    top: Annotated[int, typer.Option(help="Tokens to show on each side.")] = 10,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            "-t",
            help="Read the exact change of logits at the tokens of these texts (.txt, .csv, .tsv, .jsonl).",
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")] = "text",
    strength: Annotated[float, typer.Option(help="With --texts: how strongly the vector is added.")] = 0.5,
    unit: Annotated[
        str, typer.Option(help="residual: fraction of the layer's mean residual norm; raw: units of the unit vector.")
    ] = "residual",
    dtype: Dtype = "float32",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show the tokens a vector promotes and suppresses at each layer, by the logit lens: the stream of that layer is read
    as if it stood behind the last block.

    Without texts the direction itself is read, with the final norm's weight folded into the unembedding: the order of
    the tokens holds at any strength small beside the stream. With texts it is the exact change of the logits, final norm
    and soft cap included, the mean over their tokens.

    A space is shown as ␣, bytes that are no whole character as <E1>.

    Examples:

    `steerlab lens jv --top 5`

    `steerlab lens language-mt --layer 5 --texts mt.txt --strength 0.3`

    `steerlab lens vectors/language-jv.safetensors --model meta-llama/Llama-3.1-8B-Instruct --json`
    """
    from steerlab.commands import lens as command

    how = command.Reading(tuple(layer) if layer else None, top, texts, column, strength, unit)
    rows = command.run(vector, model, how, dtype, device)
    reading = "exact change of logits" if texts else "direction alone"
    show(rows if as_json else command.words(rows), f"{vector}: tokens by logit lens, {reading}", as_json)

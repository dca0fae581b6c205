"""The options of `steerlab tokens`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steerlab.commands.options import AsJson, Device, Dtype, Model, Seed, show

Which = Annotated[str, typer.Argument(help="A vector file, or a bundled vector: language-jv, quality-sl, jv ...")]
Plain = Annotated[str | None, typer.Option("--text", "-t", help="Map this text as it is, without a template.")]
Instruction = Annotated[
    str | None,
    typer.Option("--prompt", "-p", help="Map this instruction, in the model's template, and its answer."),
]
Answer = Annotated[str | None, typer.Option(help="The answer to the prompt. Without one the steered model writes it.")]
Layers = Annotated[
    list[int] | None,
    typer.Option("--layer", "-l", help="Layer to steer at; repeat for several. Default: the recommended one."),
]
Strength = Annotated[float | None, typer.Option(help="Strength; see --unit. Default: the recommended one.")]
Unit = Annotated[
    str | None,
    typer.Option(help="residual: fraction of the layer's mean residual norm; raw: units of the unit vector."),
]
Operator = Annotated[str, typer.Option(help="add, ablate, match or match_up (both to projection 0), scale or rotate.")]
Where = Annotated[
    str,
    typer.Option(help="Where to steer: all, prompt, last_prompt, generated, writing, last:K, or START:STOP."),
]
Gate = Annotated[
    str | None,
    typer.Option(help="Only where the cosine of stream and vector is above:X or below:X, such as above:0.1."),
]
Read = Annotated[
    str | None, typer.Option(help="Where a vector is read, as --positions. Default: what the vector records.")
]
Html = Annotated[Path | None, typer.Option(help="Also write the map as a page of its own.")]
Each = Annotated[bool, typer.Option("--each", help="Also print a table with a line per token.")]
Longest = Annotated[int, typer.Option(help="Longest answer in tokens, where the model writes it.")]


def tokens(
    vector: Which,
    text: Plain = None,
    prompt: Instruction = None,
    answer: Answer = None,
    model: Model = "polyglot-mini",
    layer: Layers = None,
    strength: Strength = None,
    unit: Unit = None,
    operator: Operator = "add",
    positions: Where = "all",
    gate: Gate = None,
    read: Read = None,
    html: Html = None,
    each: Each = False,
    max_new_tokens: Longest = 40,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show which tokens of a text are read for a vector, and which tokens it steers how strongly.

    What is shown as steered is measured in the forward pass: how far the edit moved the token's stream, relative to the
    stream's norm there. Underlined tokens are those a vector would be fitted on, were this one of its texts. Tokens in
    brackets were meant to be steered, but a gate kept them.

    Examples:

    `steerlab tokens jv --prompt "Write a short review." --positions writing`

    `steerlab tokens mt --text "Il-baħar kien kalm." --layer 3 --operator ablate --html map.html`

    `steerlab tokens vectors/tone.safetensors -p "Say hello." --answer "Hello!" -m Qwen/Qwen3-0.6B --strength 0.2 --json`
    """
    from steerlab.commands import tokens as command

    ask = command.Ask(
        text, prompt, answer, tuple(layer or ()), strength, unit, operator, positions, gate, read, max_new_tokens, seed
    )
    mapped = command.run(vector, model, ask, dtype, device)
    if html is not None:
        mapped.save(html)
    if as_json:
        show(command.rows(mapped), vector, True)
        return
    Console(width=None if sys.stdout.isatty() else 200).print(mapped)
    if each:
        show(command.rows(mapped), "Token by token", False)
    if html is not None:
        print(html)

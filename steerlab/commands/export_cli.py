"""The options of `steerlab export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Device, Dtype, Model, show
from steerlab.commands.tokens_cli import Layers, Strength, Unit, Which


def export(
    vector: Which,
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint; empty or not there.")],
    model: Model = "polyglot-mini",
    layer: Layers = None,
    strength: Strength = None,
    unit: Unit = None,
    dtype: Dtype = "float32",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Bake a vector into the biases of a checkpoint: the steered model as plain weights, which transformers, vLLM and others
    serve at no cost.

    Adding a vector at every token is what the output bias of a block does. Llama, Mistral, Qwen-2, GPT-2 and GPT-NeoX have
    one, or can be given one (Mistral and Qwen-2 are written as Llama); elsewhere it is refused, as Gemma-2 is, whose norm behind
    the MLP would rescale the bias. The checkpoint is read back and compared with the steered model before it is put in
    place, which needs room for the model twice.

    Examples:

    `steerlab export jv --out models/jv`

    `steerlab export my-vector.safetensors -m meta-llama/Llama-3.1-8B -l 16 --strength 0.4 --dtype bfloat16 --out models/mine`
    """
    from steerlab.commands import export as command
    from steerlab.commands.tokens import Ask

    ask = Ask(layers=tuple(layer or ()), strength=strength, unit=unit)
    show([command.run(vector, out, model, ask, dtype, device)], f"{out}", as_json)

"""The options of `steerlab similarity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from steerlab.commands.options import AsJson, Model, Quiet, show
from steerlab.errors import SteerlabError


def similarity(
    where: Annotated[
        list[Path] | None, typer.Argument(help="Vector files and folders of them; default: the bundled vectors.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="Pattern of the names to compare: language-*, quality-*, *-jv. Default: language-*.")
    ] = "language-*",
    layer: Annotated[
        int | None, typer.Option(help="Show the matrix of this layer (0 is the first) in the order of its tree.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Show the cosine of every vector with this one at every layer.")
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--texts",
            "-t",
            help="NAME=FILE per language: fit here, and tell the noise ceiling from halves of the texts.",
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")] = "text",
    model: Model = "polyglot-mini",
    splits: Annotated[int, typer.Option(help="Random halvings of the texts behind the noise ceiling.")] = 10,
    means: Annotated[
        Path | None, typer.Option(help="A safetensors file with one layers x width mean per language, instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --layer: save matrix and tree here as PNG, PDF, CSV and JSON.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the halvings.")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how alike vectors are at every layer, beside what random directions, permuted language families and noise would show.

    Examples:

    `steerlab similarity`

    `steerlab similarity --layer 2 --out figures/`

    `steerlab similarity --only "*-jv" --against language-jv`

    `steerlab similarity -t jv=jv.txt -t su=su.txt -t id=id.txt --splits 20`

    `steerlab similarity --means language_means.safetensors --layer 10`
    """
    if texts and (where or means):
        raise SteerlabError("--texts fits vectors, and saved vectors or means were given as well: give one of them.")
    if out is not None and layer is None:
        raise SteerlabError("--out saves the matrix of one layer: give --layer as well.")
    from steerlab.commands import similarity as command

    if texts:
        compared = command.fitted(texts, column, model, splits, seed, not quiet)
    else:
        compared = command.saved(where or [], means, only)
    _print(compared, layer, against, out, as_json)


def _print(compared: Any, layer: int | None, against: str | None, out: Path | None, as_json: bool) -> None:
    """What was asked of the vectors: one against all, one layer's matrix, or a row per layer."""
    from steerlab.commands import similarity as command

    count = f"{len(compared.vectors)} vectors"
    if against is not None:
        show(command.against(compared, against), f"{count} against {against}", as_json)
    elif layer is not None:
        rows = command.matrix(compared, layer)
        show(rows if as_json else command.narrow(rows), f"{count} at layer {layer}", as_json)
    else:
        show(command.by_layer(compared), count, as_json)
        if compared.reliability is None and not as_json:
            print(command.NO_CEILING)
    if out is not None and layer is not None:
        paths = command.picture(compared, layer, out)
        if not as_json:
            print("\n".join(map(str, paths)))

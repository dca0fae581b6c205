"""The options of `steerlab reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Quiet, show

SHOWN = 20  # differing numbers in the table; --json has all


def reproduce(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of `steerlab synthesize` or `steerlab demo`.")],
    out: Annotated[
        Path | None, typer.Option(help="New folder to keep the repetition in; default: it is deleted after comparing.")
    ] = None,
    data: Data = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; default: the device the run was written on.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of numbers that count as equal, relative above 1; 0 is bitwise.")
    ] = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run from what its folder keeps, in a fresh folder, and compare: texts byte for byte, metrics number by number.

    Exit code 0 where all is equal, 1 where something differs, 2 where the run cannot be repeated. Other package versions or
    another device are warned of: rounding can then change a text.

    Examples:

    `steerlab reproduce runs/demo`

    `steerlab reproduce runs/steered --data ~/data --tolerance 1e-6 --out runs/steered-again`
    """
    from steerlab.commands import reproduce as command

    found = command.run(run, out, data, device, tolerance, not quiet)
    for warning in found.warnings:
        print(f"steerlab: warning: {warning}.", file=sys.stderr)
    differing = found.differing if as_json else found.differing[:SHOWN]
    show(found.rows + differing, f"{run}: {'equal' if found.equal else 'not equal'}", as_json)
    if not as_json and len(found.differing) > SHOWN:
        print(f"and {len(found.differing) - SHOWN} more numbers differ: --json shows all")
    raise typer.Exit(0 if found.equal else 1)

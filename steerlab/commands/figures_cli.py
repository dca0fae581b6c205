"""The options of `steerlab figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import Data


def figures(
    redraw: Annotated[
        bool, typer.Option("--redraw/--compute", help="Draw from the committed tables, or compute the tables first.")
    ] = True,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Name or number of one analysis; repeat for several.")
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the analyses, their questions and the commits they were computed at.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --compute: also what the same code computed before.")
    ] = False,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of tables and figures; default: figures/.")] = None,
) -> None:
    """Draw every figure of the project again, or compute its tables first. Needs a source checkout, whose `analyses/` hold
    one script per question; `--redraw` needs no model and takes about a minute.

    Examples:

    `steerlab figures`

    `steerlab figures --list`

    `steerlab figures --compute --only language_control`
    """
    from steerlab.commands import figures as command

    raise typer.Exit(command.run(redraw, again, only or [], listing, data, out))

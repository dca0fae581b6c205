"""The options of `steerlab report` and `steerlab watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, show


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or studies.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default: beside the first folder, NAME.html.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    most: Annotated[int, typer.Option(help="Pairs of texts shown at the most, spread evenly over the runs.")] = 1500,
) -> None:
    """Make one HTML page of runs: settings, samples side by side, metrics, tables and figures, sortable and filterable.

    The page needs no network and no other file: send it, archive it, open it anywhere.

    Examples:

    `steerlab report runs/jv-su`

    `steerlab report runs/plain runs/steered --title "With and without" --out compare.html`
    """
    from steerlab.report import write_report

    page = out or runs[0].resolve().with_name(f"{runs[0].resolve().name}.html")
    shown = write_report(runs, page, title, most)
    many = "s" * (len(runs) != 1)
    print(f"{page}: {len(runs)} run{many}, {shown} rows of texts; open it in a browser")


def watch(
    run: Annotated[Path, typer.Argument(help="Folder of a run or a study, while it is written or afterwards.")],
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a run or a study in the terminal: how much is complete, who writes it, how long it will take.

    It only reads; a run is not slowed or locked. Ends when the run is finished; Ctrl-C ends only the watching.

    Examples:

    `steerlab watch runs/jv-su`

    `steerlab watch runs/low-resource --once`
    """
    from rich.console import Console

    from steerlab import watch as watching

    if as_json:
        seen = watching.snapshot(run)
        show(watching.rows(seen), str(run), True)
    elif once:
        Console().print(watching.view(watching.snapshot(run)))
    else:
        try:
            watching.follow(run, Console(), every)
        except KeyboardInterrupt:
            typer.echo("watching ended; the run goes on.")

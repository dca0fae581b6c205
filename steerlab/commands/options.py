"""Options that several commands share, and how rows are printed: as a table for people, as JSON for machines."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steerlab.records import plain

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Hub id, local folder, or polyglot-mini or polyglot-mini-it (both ship with the package)."
    ),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto; default: the GPU if there is one.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of data sets; default: the environment variable STEERLAB_DATA."),
]
Engine = Annotated[str, typer.Option(help="Where the model runs: local, or vllm (see docs/engines.md).")]
Source = Annotated[
    str,
    typer.Option(
        help="Human texts to test on: a data set, or 'sample' (bundled, no download). Default: sample, or --data."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all sampling; the same seed writes the same texts.")]
ShardOf = Annotated[
    str,
    typer.Option(
        help="i/n: the i-th of n parts, for one of n machines; auto: as torchrun or accelerate launch say, in one folder."
    ),
]
Workers = Annotated[int, typer.Option(help="Write in this many processes of this machine; 0: in this one.")]
Ray = Annotated[
    str,
    typer.Option(
        help="Write on a Ray cluster (in the checkout: pip install -e '.[ray]'): local, auto or its address. All see the same folder."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def _version(asked: bool) -> bool:
    if asked:
        print(f"steerlab {version('steerlab')}")
        raise typer.Exit
    return asked


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
]


def show(rows: list[dict[str, Any]], title: str, as_json: bool) -> None:
    """Print rows as a table, or as a JSON list for machines, where what is missing is null."""
    if as_json:
        print(json.dumps(plain(rows), ensure_ascii=False, indent=2))
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else []:
        table.add_column(name, overflow="fold")  # a name cut short is no name
    for row in rows:
        table.add_row(*[_cell(value) for value in row.values()])
    # A file or pipe has no width of its own to keep to.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))

"""`steerlab study`: its options and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Quiet, Ray, ShardOf, Workers, show

study_app = typer.Typer(
    help="Published experiments, whole: every cell of the grid, judged against human texts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
Study = Annotated[
    str, typer.Argument(help="A preset (see `steerlab study presets`) or a TOML file that overrides one.")
]


@study_app.command("low-resource")
def low_resource(
    config: Study,
    out: Annotated[Path, typer.Option(help="Study folder; give the same one again to continue.")] = Path(
        "runs/low-resource"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cells, texts, tokens, memory and expected time; write nothing.")
    ] = False,
    shard: ShardOf = "1/1",
    workers: Workers = 0,
    ray: Ray = "",
    stage: Annotated[
        str, typer.Option(help="all, write (no judging), or report (judge and report what is there).")
    ] = "all",
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Language and quality steering for synthetic data (Cegin et al., arXiv 2606.18389): models x languages x tasks x prompt modes x
    vectors x blocks x strengths x seeds, from vectors to the table that carries the claim.

    Killed and started again, it continues; two processes may share one folder; samples and tables are the same bytes either way.

    Examples:

    `steerlab study low-resource polyglot-mini --data ~/data --dry-run`

    `steerlab study low-resource my-study.toml --out runs/mine --shard 1/4`

    `steerlab study low-resource my-study.toml --out runs/mine --workers 4`
    """
    from steerlab.commands import study as command

    if dry_run:
        show(command.dry_run(config, data, shard), f"{config}: what it would take", as_json)
        return
    rows = command.run(config, out, data, shard, stage, not quiet, workers, ray)
    if rows or as_json:
        show(rows, "Share of cases in which steering raises macro-F1", as_json)
    if not as_json:
        print(f"study folder: {out}" + (f"\nreport: {out / 'report.md'}" if rows else ""))


@study_app.command("merge")
def merge(
    config: Study,
    parts: Annotated[list[Path], typer.Argument(help="Study folders of the shards.")],
    out: Annotated[Path, typer.Option(help="Folder the units are gathered in.")],
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Gather the finished units of several study folders by key, and report over all of them.

    Example: `steerlab study merge polyglot-mini runs/shard-1 runs/shard-2 --out runs/all --data ~/data`
    """
    from steerlab.commands import study as command

    show(command.merge(config, out, parts, data, not quiet), f"{out}", as_json)


@study_app.command("presets")
def presets(
    name: Annotated[str, typer.Argument(help="Print this preset as TOML, to start a configuration from.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the studies known by name, or print one as TOML.

    Example: `steerlab study presets polyglot-mini > my-study.toml`
    """
    from steerlab.commands import study as command

    found = command.presets(name)
    if isinstance(found, str):
        print(found, end="")
    else:
        show(found, "Presets", as_json)

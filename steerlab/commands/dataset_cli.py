"""The options of `steerlab dataset export` and `steerlab dataset card`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, show

dataset_app = typer.Typer(
    help="Turn samples into a Hugging Face data set with a card.", no_args_is_help=True, rich_markup_mode="markdown"
)

Where = Annotated[
    Path, typer.Argument(help="A run folder, or a .jsonl with language, task, condition, label and text.")
]
Conditions = Annotated[list[str] | None, typer.Option("--condition", "-c", help="Only this condition; repeatable.")]
Languages = Annotated[list[str] | None, typer.Option("--language", "-l", help="Only this language; repeatable.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")]
InLanguage = Annotated[
    bool,
    typer.Option(
        "--in-language",
        help="Drop texts that language identification puts elsewhere (it misses 4 in 10 human Javanese and Sundanese texts).",
    ),
]
Validation = Annotated[float, typer.Option(help="Share of every label held out as the split validation; 0 makes none.")]
SplitSeed = Annotated[int, typer.Option("--seed", help="Seed of that split.")]
Licence = Annotated[
    str,
    typer.Option(
        "--license",
        help="Licence of the texts as the hub spells it: cc-by-4.0, llama3.1, gemma, other ... Default: cc-by-sa-4.0 for "
        "polyglot-mini, else unknown.",
    ),
]
Name = Annotated[str, typer.Option(help="Name at the top of the card; default: that of the run.")]


@dataset_app.command("export")
def dataset_export(
    where: Where,
    out: Annotated[Path, typer.Option(help="Folder of the data set; written whole or not at all.")],
    condition: Conditions = None,
    language: Languages = None,
    task: Tasks = None,
    in_language: InLanguage = False,
    validation: Validation = 0.0,
    seed: SplitSeed = 0,
    licence: Licence = "",
    name: Name = "",
    force: Annotated[bool, typer.Option("--force", help="Replace another data set that was exported there.")] = False,
    push_to: Annotated[
        str,
        typer.Option("--push-to", help="Upload it to this repository of the hub: USER/NAME. Needs `hf auth login`."),
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; default: private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write samples as a Hugging Face data set: one configuration per task and language (`topic-jv`), parquet files, and a card that says
    how the texts were made, what was measured, under what licence, and what they are good for.

    Load it with `datasets.load_dataset("FOLDER", "topic-jv")`. Texts of all conditions of a run stand together, told apart by their
    column `condition`, unless `--condition` chooses.

    Examples:

    `steerlab dataset export runs/steered --out data/steered --validation 0.1`

    `steerlab dataset export runs/demo -c quality -l jv --in-language --license cc-by-sa-4.0 --out data/jv`

    `steerlab dataset export runs/steered --out data/steered --push-to USER/steered`
    """
    from steerlab.commands import dataset as command

    choice = command.Choice(
        tuple(condition or ()), tuple(language or ()), tuple(task or ()), in_language, validation, seed
    )
    rows, address = command.run(where, out, choice, licence, name, force, push_to, public)
    show(rows, f"{out}", as_json)
    if not as_json:
        print(f"card: {out / 'README.md'}" + (f"\nuploaded: {address}" if address else ""))


@dataset_app.command("card")
def dataset_card(
    where: Where,
    condition: Conditions = None,
    language: Languages = None,
    task: Tasks = None,
    in_language: InLanguage = False,
    validation: Validation = 0.0,
    seed: SplitSeed = 0,
    licence: Licence = "",
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """Print the card that `dataset export` would write, and write nothing.

    Example: `steerlab dataset card runs/steered --license cc-by-sa-4.0`
    """
    from steerlab.commands import dataset as command

    choice = command.Choice(
        tuple(condition or ()), tuple(language or ()), tuple(task or ()), in_language, validation, seed
    )
    text = command.preview(where, choice, licence, name)
    print(json.dumps({"card": text}, ensure_ascii=False, indent=2) if as_json else text)

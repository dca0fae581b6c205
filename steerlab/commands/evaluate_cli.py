"""The options of `steerlab evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Quiet, show

Where = Annotated[
    Path, typer.Argument(help="A run folder, or a .jsonl with language, task, condition, label and text.")
]
Source = Annotated[
    str, typer.Option(help="Human texts to test on; 'sample' needs no download. Default: sample, or --data.")
]
Base = Annotated[
    str,
    typer.Option(
        help="Transformer to fine-tune on the samples beside the classical classifier: hub id or folder. The paper's is "
        "FacebookAI/xlm-roberta-base."
    ),
]
Many = Annotated[int | None, typer.Option(help="Seeds of the fine-tuned classifier [default: 20, the paper's].")]
Epochs = Annotated[int | None, typer.Option(help="Most epochs of fine-tuning [default: 50]; it stops early.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="AdamW's learning rate [default: 2e-5].")]
Stop = Annotated[str, typer.Option(help="What early stopping looks at: train (a share of the samples) or human.")]
Ceiling = Annotated[bool, typer.Option("--classifier-ceiling", help="Fine-tune on the human train split as well.")]
Keep = Annotated[Path | None, typer.Option(help="Run folder for finished seeds, so that a killed run continues.")]


def evaluate(
    where: Where,
    source: Source = "",
    seeds: Annotated[int, typer.Option(help="Seeds of the classical classifier.")] = 10,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model for perplexity and embeddings; none leaves them out.")
    ] = "polyglot-mini",
    classifier: Base = "",
    classifier_seeds: Many = None,
    classifier_epochs: Epochs = None,
    learning_rate: Rate = None,
    classifier_validation: Stop = "train",
    classifier_ceiling: Ceiling = False,
    keep: Keep = None,
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a data set: target-language share, diversity, repetition, faithfulness, and macro-F1 of a
    classifier trained on it.

    Examples:

        steerlab evaluate runs/steered --data ~/data

        steerlab evaluate runs/steered --classifier FacebookAI/xlm-roberta-base --keep runs/steered-f1
    """
    from steerlab.commands import evaluate as command
    from steerlab.errors import SteerlabError

    given = (classifier_seeds, classifier_epochs, learning_rate, keep)
    if not classifier and (any(value is not None for value in given) or classifier_ceiling):
        raise SteerlabError(
            "options of a fine-tuned classifier were given without --classifier: name one, or leave them out."
        )
    tuned = command.Classifier(
        classifier, classifier_seeds, classifier_epochs, learning_rate, classifier_validation, classifier_ceiling, keep,
        progress=not quiet,
    )  # fmt: skip
    show(command.run(where, source, seeds, model, data, tuned), str(where), as_json)

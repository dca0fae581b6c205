"""The options of `steerlab probe`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, show
from steerlab.errors import SteerlabError

_FILES = (
    "NAME=FILE (.txt, .csv, .tsv, .jsonl) per class; where all have as many texts, text i of each belongs together."
)
_BY = "With --source, the classes: language, label, or quality (human against degraded)."
_KIND = "logistic_cv (penalty by inner folds), logistic, ridge, diff_of_means or lda."
_VECTORS = "Save the probe's direction towards every class here, ready to steer with."
Files = Annotated[list[str] | None, typer.Option("--texts", "-t", help=_FILES)]
Source = Annotated[str, typer.Option(help="A data set instead of files: sample (bundled), ntrex, nusax-mt, sib200 ...")]
Languages = Annotated[
    list[str] | None, typer.Option("--language", "-l", help="With --source: a language; repeat for several.")
]
By = Annotated[str, typer.Option(help=_BY)]
Split = Annotated[str, typer.Option(help="With --source: its split; default: the data set's own.")]
Most = Annotated[int, typer.Option(help="Most texts per class; 0 for all.")]
Kind = Annotated[str, typer.Option(help=_KIND)]
Pooling = Annotated[str, typer.Option(help="mean: a row per text; tokens: rows are single tokens.")]
PerText = Annotated[int, typer.Option(help="Tokens per text for --pooling tokens.")]
Layers = Annotated[list[int] | None, typer.Option("--layer", help="Only this layer; repeat for several.")]
Folds = Annotated[int, typer.Option(help="Folds; texts that belong together are never parted.")]
Shuffles = Annotated[int, typer.Option(help="Label permutations behind the column shuffled.")]
Resamples = Annotated[int, typer.Option(help="Bootstrap resamples behind the intervals.")]
Seed = Annotated[int, typer.Option(help="Seed of folds, permutations, control labels and bootstrap.")]
Out = Annotated[Path | None, typer.Option(help="Save the curve here as PNG, PDF, CSV and JSON.")]
Vectors = Annotated[Path | None, typer.Option(help=_VECTORS)]
Column = Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")]


def probe(
    texts: Files = None, source: Source = "", language: Languages = None, by: By = "language", split: Split = "",
    most: Most = 400, kind: Kind = "logistic_cv", pooling: Pooling = "mean", per_text: PerText = 4, layers: Layers = None,
    folds: Folds = 5, shuffles: Shuffles = 1, resamples: Resamples = 1000, seed: Seed = 0, out: Out = None,
    vectors: Vectors = None, model: Model = "polyglot-mini", column: Column = "text", data: Data = None,
    dtype: Dtype = "float32", device: Device = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show how well classes of texts are told apart at every layer, on held-out texts, with intervals: beside shuffled labels,
    the control task (a random label per token type), the bag of input embeddings, character n-grams and length.

    What a probe reads above the n-grams is more than spelling; what it reads above the embeddings, the model computed.

    Examples:

    `steerlab probe --source sample -l jv -l su -l id --pooling tokens`

    `steerlab probe --source sample --by quality -l sl --kind diff_of_means`

    `steerlab probe -t human=human.txt -t translated=translated.txt --out figures/ --vectors vectors/`

    `steerlab probe --source ntrex --split heldout -l cs -l sk -l sl --kind ridge --data ~/data`
    """
    if bool(texts) == bool(source):
        raise SteerlabError("give the texts of every class with --texts, or a data set with --source: one of the two.")
    if texts and language:
        raise SteerlabError("--language chooses from a data set, and files were given: leave it out, or give --source.")
    if source and not language:
        raise SteerlabError(f"no language of {source} was given: name each with --language.")
    if most < 0:
        raise SteerlabError(f"--most is {most}: give a number of texts, or 0 for all.")
    from steerlab.commands import probe as command

    chosen = tuple(layers) if layers else None
    options = command.ProbeOptions(kind, pooling, per_text, chosen, folds, shuffles, resamples, seed)
    options.check()
    if texts:
        given = command.from_files(texts, column, most or None)
    else:
        given = command.from_source(source, language or [], by, split, data, most or None)
    curve = command.run(given, model, options, dtype, device)
    sizes = dict(zip(curve.names, curve.results[0].counts, strict=True))
    told = ", ".join(f"{name} {count}" for name, count in sizes.items())
    show(command.shown(curve), f"{kind} probe of {curve.results[0].groups} groups of texts (rows: {told})", as_json)
    if vectors is not None:
        command.save_vectors(curve, vectors)
    record = {**asdict(options), "model": model, "source": source, "by": by, "classes": sizes}
    paths = [] if out is None else command.picture(curve, out, record)
    if not as_json:
        print(*paths, *([vectors] if vectors else []), sep="\n", end="\n" if paths or vectors else "")

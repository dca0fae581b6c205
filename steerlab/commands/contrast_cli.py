"""The options of `steerlab contrast make` and `steerlab contrast check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Quiet, show

contrast_app = typer.Typer(
    help="Make pairs of human text and a worse version of it, and check what tells the two sides apart.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


Out = Annotated[Path, typer.Option(help="Run folder; give the same one again to continue after an interruption.")]
Texts = Annotated[
    Path | None, typer.Option("--texts", "-t", help="Human texts: .txt (one a line), .csv, .tsv or .jsonl.")
]
Source = Annotated[str | None, typer.Option(help="Or a data set: ntrex, nusax-mt, ud-text, sample (bundled) ...")]
Spoken = Annotated[
    str | None,
    typer.Option("--language", "-l", help="Language of the texts: am, jv ... or a code of the translation model."),
]
Split = Annotated[str | None, typer.Option(help="Split of the data set.")]
Column = Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")]
Method = Annotated[
    str,
    typer.Option(help="backtranslate: around through the pivots; degrade: no model, words moved and endings swapped."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Translation model (hub id or folder); repeat to give one per hop. Default: facebook/nllb-200-distilled-600M.",
    ),
]
Pivots = Annotated[
    list[str] | None,
    typer.Option("--pivot", help="Language in between; repeat for a chain. Default: deu_Latn, then zho_Hans."),
]
Rate = Annotated[
    float, typer.Option(help="backtranslate: share of tokens corrupted between hops; degrade: share of words changed.")
]
Beams = Annotated[int | None, typer.Option(help="Beams of the search; 1, the default, is greedy.")]
Rows = Annotated[int | None, typer.Option(help="Texts translated at a time; default 32.")]
Longest = Annotated[
    int | None, typer.Option(help="Longest translation in tokens (default 256); longer ones are dropped and counted.")
]
Limit = Annotated[int | None, typer.Option(help="Use at most so many texts, the first ones.")]
CorruptionSeed = Annotated[int, typer.Option(help="Seed of what is corrupted.")]
Number = Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float16.")]


@contrast_app.command("make")
def contrast_make(
    out: Out,
    texts: Texts = None,
    source: Source = None,
    language: Spoken = None,
    split: Split = None,
    column: Column = "text",
    method: Method = "backtranslate",
    model: Models = None,
    pivot: Pivots = None,
    rate: Rate = 0.3,
    beams: Beams = None,
    batch_rows: Rows = None,
    max_new_tokens: Longest = None,
    limit: Limit = None,
    seed: CorruptionSeed = 0,
    data: Data = None,
    dtype: Number = None,
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make pairs of each human text and a worse one, for a quality vector. Repeated and empty texts, and pairs that come out the
    same, are dropped and counted. Killed and started again, it continues and ends with the same bytes.

    The folder holds `pairs.jsonl` (id, human, degraded, every hop in between), `summary.json` with the counts, and a manifest.

    Examples:

    `steerlab contrast make --source ntrex -l am --limit 2000 --out pairs/am`

    `steerlab contrast make -t sl.txt -l sl --pivot eng_Latn --rate 0 --out pairs/sl`

    `steerlab contrast make --source sample -l jv --method degrade --out pairs/jv`
    """
    from steerlab.commands import contrast as command

    origin = command.Origin(texts, source, language, split, column, limit, data)
    models, pivots = (tuple(given) if given else None for given in (model, pivot))
    translating = command.Translating(models, pivots, beams, batch_rows, max_new_tokens, dtype, device)
    made = command.make(origin, method, rate, seed, translating, out, not quiet)
    if as_json:
        print(json.dumps({"out": str(out), "counts": made.counts, "sha256": made.pairs.sha256}, indent=2))
        return
    show([dict(made.counts)], f"{out}: where the texts went", False)
    print(f"{len(made.pairs)} pairs in {out}; see what tells their sides apart: steerlab contrast check {out}")


@contrast_app.command("check")
def contrast_check(
    pairs: Annotated[
        str,
        typer.Argument(help="A run folder of `contrast make`, a .jsonl with human and degraded, slovene, or sample."),
    ],
    language: Annotated[str | None, typer.Option("--language", "-l", help="Language of the sample pairs.")] = None,
    hops: Annotated[int, typer.Option(help="slovene: 1 (through English) or 2 (English and German).")] = 2,
    split: Annotated[str, typer.Option(help="slovene: train, vectors, heldout or all.")] = "all",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count lengths in the tokens of this model as well.")
    ] = None,
    length_matched: Annotated[
        bool, typer.Option("--length-matched", help="Check the length-matched pairs beside all of them.")
    ] = False,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation; a pair stays in one.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of folds and intervals.")] = 0,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far length, word frequency and character n-grams tell the two sides of pairs apart, before and after typography is
    taken out: AUROC of ranking human above degraded (0.5 = not at all) with 95 % intervals, and which side is the longer one.

    A quality vector fitted on pairs that differ in length is partly a length vector.

    Examples:

    `steerlab contrast check sample`

    `steerlab contrast check pairs/am --length-matched`

    `steerlab contrast check slovene --hops 1 --split heldout --model polyglot-mini --data ~/data`
    """
    from steerlab.commands import contrast as command

    found = command.check(command.find_pairs(pairs, language, hops, split, data), model, length_matched, folds, seed)
    if as_json:
        report = {name: {"left_out": dropped, **own.to_json()} for name, (dropped, own) in found.items()}
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for name, (dropped, own) in found.items():
        counts = ", ".join(f"{n} that differ ({surface})" for surface, n in own.pairs.items())
        show(command.table(own), f"{pairs}, {name}: pairs {counts}; {dropped} left out", False)
        print(own.verdict)

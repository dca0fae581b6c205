"""The options of the `steerlab instruct` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, Quiet, Seed, show

instruct_app = typer.Typer(
    help="Instruction steering: fit a vector per instruction, find where it acts best, write under it, count what was followed.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
OBEYS = "polyglot-mini-it"  # the shipped model that follows instructions; its name in steerlab.loading would load torch
Out = Annotated[Path, typer.Option(help="Run folder; give the same one again to continue after an interruption.")]
Vectors = Annotated[
    Path,
    typer.Argument(
        help="Folder of instruction vectors: a run of `select`, or of `fit` (give --layer), or a folder of files."
    ),
]
Instructions = Annotated[
    list[str] | None,
    typer.Option(
        "--instruction", "-i", help="Such as simple:lowercase or simple:end_mark_!; repeat. Default: all there are."
    ),
]
Source = Annotated[
    str,
    typer.Option(
        help="Prompts: own (base queries that ship with the package), ifeval (with --data or from the web), or a .jsonl file."
    ),
]
Number = Annotated[int, typer.Option("-n", "--prompts-each", help="Most prompts per instruction.")]
FormName = Annotated[
    str, typer.Option("--form", help="chat, qa (Q: ... A:, for base models), or a text with {prompt} in it.")
]
Kind = Annotated[
    str,
    typer.Option(
        "--apply",
        help="match: projection to its mean with the instruction; match_up: never pushed down; add; subtract: to exclude.",
    ),
]
LengthUnit = Annotated[
    str, typer.Option(help="Of add and subtract. raw: activation units; residual: fraction of the stream's norm.")
]
Cap = Annotated[float | None, typer.Option(help="Longest change, as a fraction of the activation's norm.")]
GateAt = Annotated[float | None, typer.Option("--gate", help="Act only where the cosine to the vector is above this.")]
Where = Annotated[
    str, typer.Option(help="Positions: all, prompt, generated, writing, last_prompt, last:K or START:STOP.")
]
Layer = Annotated[int | None, typer.Option(help="Layer for all vectors; default: what `select` wrote into them.")]
Strength = Annotated[float | None, typer.Option(help="match: 1 is the instructed mean, 2 twice as far; add: a length.")]
Longest = Annotated[int, typer.Option(help="Longest answer in tokens.")]
Stop = Annotated[list[str] | None, typer.Option(help="String that ends an answer (\\n is a line break); repeat.")]
Rows = Annotated[int, typer.Option(help="Texts written at a time; changes them at most by rounding.")]
Reference = Annotated[
    str, typer.Option(help="Model whose perplexity tells degenerate text: self, none, a hub id or a folder.")
]
Mode = Annotated[str, typer.Option(help="loose or strict checks.")]
Retreat = Annotated[bool, typer.Option("--backoff", help="Weaken the steering of a text that begins to repeat itself.")]
Plausible = Annotated[
    float,
    typer.Option(
        help="With --backoff: also where the steered model's best token is less than so many times as likely unsteered."
    ),
]


@instruct_app.command("fit")
def instruct_fit(
    out: Out, instruction: Instructions = None, source: Source = "own", number: Number = 40,
    against: Annotated[str, typer.Option(help="bare: as in the paper. others, unshared: without what all instructions share.")] = "bare",
    last: Annotated[int, typer.Option(help="Tokens at the prompt's end that are averaged.")] = 1,
    splits: Annotated[int, typer.Option(help="Random halves for the reliability of each layer; 0: none.")] = 10,
    form: FormName = "chat", model: Model = OBEYS, seed: Seed = 0, data: Data = None, dtype: Dtype = "float32",
    device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Fit one vector per instruction, at every layer: the mean difference between prompts with it and without it.

    All instructions are read together in one pass. The table says how far two halves of the base queries agree.

    Examples:

    `steerlab instruct fit -i simple:lowercase -i simple:language_de --out runs/fit`

    `steerlab instruct fit --source ifeval --data DIR -m meta-llama/Llama-3.1-8B-Instruct --out runs/ifeval-fit`

    `steerlab instruct fit --against others --source my-prompts.jsonl --out runs/mine`
    """
    from steerlab.commands import instruct as command

    prompts = command.Prompts(model, source, tuple(instruction or ()), number, form, seed, data)
    rows = command.fit(command.FitOptions(against, last, splits), prompts, out, dtype, device, not quiet)
    show(rows, f"{out}: instruction vectors", as_json)


@instruct_app.command("select")
def instruct_select(
    vectors: Vectors, out: Out,
    strength: Annotated[list[float] | None, typer.Option("--strength", "-s", help="Strength to try; repeat. Default: 1.")] = None,
    layer: Annotated[list[int] | None, typer.Option("--layer", "-l", help="Layer to try; repeat. Default: the paper's.")] = None,
    apply: Kind = "match", unit: LengthUnit = "raw", cap: Cap = None, gate: GateAt = None, positions: Where = "all",
    shown: Annotated[bool, typer.Option("--shown", help="Choose for prompts that show the instruction, not base queries.")] = False,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="The vectors are of another model of equal width and vocabulary (instruct to base).")
    ] = False,
    rule: Annotated[str, typer.Option(help="shrunken: ours, drawn to a shared layer; paper: best without degenerate text.")] = "shrunken",
    reference: Reference = "self",
    threshold: Annotated[float, typer.Option(help="Perplexity below which a text counts as degenerate.")] = 2.5,
    folds: Annotated[int, typer.Option(help="Folds of base queries for the held-out rate.")] = 5,
    mode: Mode = "loose",
    instruction: Instructions = None, source: Source = "own", number: Number = 16, form: FormName = "chat",
    max_new_tokens: Longest = 64, stop: Stop = None, batch_rows: Rows = 64, model: Model = OBEYS, seed: Seed = 0,
    data: Data = None, dtype: Dtype = "float32", device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find for every instruction the layer and strength, not steering among them: all tried at once in mixed batches.

    The choice travels in the vectors of the run; what it is worth is measured on base queries that were not used for it.

    Examples:

    `steerlab instruct select runs/fit -s 1 -s 2 --out runs/chosen`

    `steerlab instruct select runs/fit --apply add --unit residual -s 0.2 -s 0.4 --rule paper --reference gpt2 --out runs/paper`

    `steerlab instruct select runs/fit --shown --out runs/chosen-shown`

    `steerlab instruct select runs/fit -m base-model --transfer --form qa --out runs/chosen-base`
    """
    from steerlab.commands import instruct as command

    prompts = command.Prompts(model, source, tuple(instruction or ()), number, form, seed, data)
    asked = command.SelectOptions(
        command.Acting(apply, unit, cap, gate, positions), tuple(layer or ()), tuple(strength or (1.0,)), shown, rule, reference,
        threshold, folds, mode, max_new_tokens, _stops(stop), batch_rows, transfer,
    )  # fmt: skip
    rows = command.select(asked, vectors, prompts, out, dtype, device, not quiet)
    show(rows, f"{out}: chosen cells", as_json)


@instruct_app.command("generate")
def instruct_generate(
    vectors: Vectors, out: Out, instruction: Instructions = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="What to ask; repeat.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="File of prompts (.txt, or a column named text).")] = None,
    samples: Annotated[int, typer.Option(help="Texts per prompt; more than one only makes sense with --sample.")] = 1,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")] = False,
    layer: Layer = None, strength: Strength = None, apply: Kind = "match", unit: LengthUnit = "raw", cap: Cap = None,
    gate: GateAt = None, positions: Where = "all",
    orthogonal: Annotated[bool, typer.Option("--orthogonal", help="Take each vector orthogonal to the ones before it.")] = False,
    backoff: Retreat = False, plausible: Plausible = 0.0, form: FormName = "chat", max_new_tokens: Longest = 128,
    stop: Stop = None, batch_rows: Rows = 64, model: Model = OBEYS, seed: Seed = 0, dtype: Dtype = "float32",
    device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write behind prompts of yours as if they held the instructions: several act on one text together.

    Examples:

    `steerlab instruct generate runs/chosen -i simple:lowercase -p "Tell me about the sea." --out runs/sea`

    `steerlab instruct generate runs/fit -i simple:lowercase -i simple:language_de --layer 3 --strength 1.5 -p "Describe a boat."
    --backoff --out runs/boat`
    """
    from steerlab.commands import instruct_write as command

    writing = command.Writing(max_new_tokens, not sample, stop=_stops(stop), batch_rows=batch_rows, seed=seed)
    place = command.Place(command.Acting(apply, unit, cap, gate, positions), layer, strength)
    asked = command.GenerateOptions(
        model, tuple(instruction or ()), tuple(prompt or ()), prompts, samples, form, orthogonal, place, writing,
        _backoff(backoff, plausible),
    )  # fmt: skip
    show(command.generate(asked, vectors, out, dtype, device, not quiet), f"{out}", as_json)


@instruct_app.command("evaluate")
def instruct_evaluate(
    vectors: Vectors, out: Out,
    shown_vectors: Annotated[Path | None, typer.Option(help="Vectors chosen with `select --shown`, for the arm `both`.")] = None,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="none, random, steered, instructed, both, guided; repeat. Default: all.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Classifier-free guidance of the arm guided; 1 is the instruction alone.")] = 1.5,
    reference: Reference = "self",
    embedder: Annotated[str, typer.Option(help="Relevance: self, none, or a sentence-transformers model.")] = "self",
    layer: Layer = None, strength: Strength = None, apply: Kind = "match", unit: LengthUnit = "raw", cap: Cap = None,
    gate: GateAt = None, positions: Where = "all", backoff: Retreat = False, plausible: Plausible = 0.0,
    instruction: Instructions = None, source: Source = "own", number: Number = 40, form: FormName = "chat",
    max_new_tokens: Longest = 64, stop: Stop = None, batch_rows: Rows = 64, model: Model = OBEYS, seed: Seed = 0,
    data: Data = None, dtype: Dtype = "float32", device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Follow rates in four arms (none, steered, instructed, both), under random pushes of the same length, and under guidance.

    Rates with intervals, prompts gained and lost with exact McNemar tests, and what it costs: perplexity, repetition, length, relevance.

    Examples:

    `steerlab instruct evaluate runs/chosen --shown-vectors runs/chosen-shown --out runs/arms`

    `steerlab instruct evaluate runs/chosen --arm none --arm steered --backoff --out runs/two-arms --json`
    """
    from steerlab.commands import instruct as common
    from steerlab.commands import instruct_write as command
    from steerlab.following.arms import ARMS

    prompts = common.Prompts(model, source, tuple(instruction or ()), number, form, seed, data)
    writing = command.Writing(max_new_tokens, stop=_stops(stop), batch_rows=batch_rows, seed=seed)
    place = command.Place(common.Acting(apply, unit, cap, gate, positions), layer, strength)
    asked = command.EvaluateOptions(
        tuple(arm or ARMS), scale, reference, embedder, place, writing, _backoff(backoff, plausible)
    )
    rows = command.evaluate(asked, vectors, shown_vectors, prompts, out, dtype, device, not quiet)
    show(rows, f"{out}: loose follow rates with 95 % intervals", as_json)


@instruct_app.command("interfere")
def instruct_interfere(
    vectors: Vectors, out: Out, instruction: Instructions = None,
    shown: Annotated[bool, typer.Option("--shown", help="Behind prompts that show the instructions, not base queries.")] = False,
    layer: Layer = None, strength: Strength = None, apply: Kind = "match", unit: LengthUnit = "raw", cap: Cap = None,
    gate: GateAt = None, positions: Where = "all", mode: Mode = "loose",
    source: Source = "own", number: Number = 40, form: FormName = "chat", max_new_tokens: Longest = 64, stop: Stop = None,
    batch_rows: Rows = 64, model: Model = OBEYS, seed: Seed = 0, data: Data = None, dtype: Dtype = "float32",
    device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """How much several vectors get in each other's way: their cosines, and how often each instruction is followed when nothing acts,
    each vector alone, all together, and all made orthogonal to the ones before them.

    Prompts are base queries that exist with every one of the instructions (-i, at least two, each with a vector from `fit` and a place
    from `select`, or from --layer and --strength). Tables: rates.csv, cosines.csv.

    Examples:

    `steerlab instruct interfere runs/chosen -i simple:lowercase -i simple:language_de --out runs/both`

    `steerlab instruct interfere runs/fit -i simple:lowercase -i simple:language_de --layer 2 --strength 1.5 -n 14 --out runs/at-layer-2`
    """
    from steerlab.commands import instruct as common
    from steerlab.commands import instruct_interfere as command
    from steerlab.commands import instruct_write as parts

    prompts = common.Prompts(model, source, tuple(instruction or ()), number, form, seed, data)
    writing = parts.Writing(max_new_tokens, stop=_stops(stop), batch_rows=batch_rows, seed=seed)
    place = parts.Place(common.Acting(apply, unit, cap, gate, positions), layer, strength)
    rows = command.interfere(
        command.InterfereOptions(place, writing, shown, mode), vectors, prompts, out, dtype, device, not quiet
    )
    show(rows, f"{out}: {mode} follow rates with 95 % intervals, by what acts", as_json)


@instruct_app.command("transfer")
def instruct_transfer(
    vectors: Vectors, out: Out,
    donor: Annotated[str, typer.Option(help="The model of the vectors; default: the one they name.")] = "",
    kind: Annotated[str, typer.Option(help="ridge: least squares with a penalty; procrustes: a rotation and one scale.")] = "ridge",
    donor_form: Annotated[str, typer.Option(help="Form of the prompts for the donor; default: that of --form.")] = "",
    last: Annotated[int, typer.Option(help="Tokens at the prompt's end that are averaged.")] = 1,
    held_out: Annotated[float, typer.Option(help="Share of the base queries that the map's fit is measured on.")] = 0.25,
    instruction: Instructions = None, source: Source = "own", number: Number = 40, form: FormName = "chat",
    model: Model = OBEYS, seed: Seed = 0, data: Data = None, dtype: Dtype = "float32", device: Device = None,
    as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Vectors of one model as vectors of another (-m) of any width and depth, through a linear map between the ends of the same prompts.

    The table says, layer by layer of the target, how much of held-out activations the map predicts, and how much one fitted on prompts
    paired at random does. Between models of equal width and vocabulary no map is needed: `select --transfer`. What the mapped vectors
    are worth is for `select` to say.

    Examples:

    `steerlab instruct transfer runs/fit -m Qwen/Qwen2.5-1.5B-Instruct --out runs/mapped`

    `steerlab instruct transfer runs/fit --donor gpt2-medium --donor-form qa -m gpt2 --form qa --kind procrustes --out runs/mapped`

    `steerlab instruct select runs/mapped -m Qwen/Qwen2.5-1.5B-Instruct --out runs/mapped-chosen`
    """
    from steerlab.commands import instruct as common
    from steerlab.commands import instruct_transfer as command

    prompts = common.Prompts(model, source, tuple(instruction or ()), number, form, seed, data)
    asked = command.TransferOptions(donor, donor_form or form, kind, last, held_out)
    rows = command.transfer(asked, vectors, prompts, out, dtype, device, not quiet)
    show(rows, f"{out}: how well the map predicts held-out prompts", as_json)


def _stops(given: list[str] | None) -> tuple[str, ...]:
    return tuple(text.replace("\\n", "\n") for text in given or ())


def _backoff(wanted: bool, plausible: float) -> Any:
    from steerlab.backoff import BackOff

    return BackOff(alpha=plausible) if wanted else None

"""The options of `steerlab guide` and `steerlab sweep guidance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlab.commands.options import AsJson, Data, Device, Dtype, Model, Quiet, Seed, show

Out = Annotated[Path, typer.Option(help="Run folder; give the same one again to continue after an interruption.")]
TaskName = Annotated[
    str, typer.Option("--task", help="topic, sentiment, hypotheses, commonsense, or comments (offensive).")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="Only this label; repeat for several.")]
Expert = Annotated[str, typer.Option(help="Folder of an adapter (`steerlab expert train`) or of a whole model.")]
Base = Annotated[
    str,
    typer.Option(
        help="What gamma contrasts with: a model, or 'instruction' (the expert without the instruction). "
        "Default: the expert's adapter switched off, the --model a whole expert was made from, else 'instruction'."
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="Keep tokens of at least this share of the best one's probability; default 0.1 balanced, else 0."
    ),
]
_WHEN = "When it acts: constant, decaying:HALF_LIFE (in tokens) or uncertain:NATS (where the expert's entropy is at least that)."
When = Annotated[str, typer.Option(help=_WHEN)]
Count = Annotated[int, typer.Option("--negatives", help="Negatives per sample.")]
Strategy = Annotated[str, typer.Option(help="Which negatives: uniform, nearest, centroid, recent.")]
Examples = Annotated[
    str,
    typer.Option(
        help="Real texts the pool of negatives starts from: 'task' (the task's own), a data set, or a file. "
        "Default: none; accepted texts join it either way."
    ),
]
Column = Annotated[str, typer.Option(help="Column with the text, in an --examples file.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the label, in an --examples file: a pool for each.")]
Real = Annotated[int | None, typer.Option("--real", help="At most so many negatives are real.")]
Synthetic = Annotated[int | None, typer.Option("--synthetic", help="At most so many negatives are synthetic.")]
Refresh = Annotated[int, typer.Option(help="Accepted texts join the pool after so many samples of it.")]
Tokens = Annotated[int | None, typer.Option("--negative-tokens", help="Longest text of negatives in tokens.")]
Embed = Annotated[str, typer.Option(help="What nearest and centroid compare: ngrams or hidden (states of the model).")]
Vector = Annotated[str, typer.Option("--vector", "-v", help="none, language, quality, random, or a vector file.")]
Layer = Annotated[int | None, typer.Option(help="Layer to steer at; default: the recommended one.")]
Strength = Annotated[float | None, typer.Option(help="Strength of the vector; see --unit.")]
Unit = Annotated[str, typer.Option(help="residual: fraction of the layer's mean residual norm; raw: absolute.")]
Steered = Annotated[str, typer.Option(help="Streams the vector acts in: expert, or all.")]
Prompt = Annotated[str, typer.Option(help="Language the prompt names: target, none or english.")]
Offensive = Annotated[bool, typer.Option("--offensive", help="Allow offensive texts; reports hide them.")]
Longest = Annotated[int | None, typer.Option("--max-new-tokens", help="Longest answer; default: the task's.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature, after the contrast.")]
TopK = Annotated[int, typer.Option("--top-k", help="Best tokens to choose among, after the contrast; 0: all.")]
TopP = Annotated[float, typer.Option("--top-p", help="Nucleus mass, after the contrast.")]
Rows = Annotated[int, typer.Option("--batch-rows", help="Texts written at a time; changes them at most by rounding.")]


def guide(
    out: Out,
    language: Annotated[list[str], typer.Option("--language", "-l", help="Language code; repeat for several.")],
    task: TaskName = "topic",
    per_label: Annotated[int, typer.Option("-n", "--per-label", help="Samples per label.")] = 20,
    gamma: Annotated[float, typer.Option(help="Weight of the expert against the base; 0: off.")] = 0.2,
    eta: Annotated[float, typer.Option(help="Weight of the move away from the negatives; 0: off.")] = 0.6,
    form: Annotated[str, typer.Option(help="published (STEER) or balanced (weights sum to 1, masked).")] = "published",
    compare: Annotated[
        bool, typer.Option("--compare", help="Write the unguided (and with a vector, the merely steered) texts as well.")
    ] = False,
    gamma_when: When = "constant", eta_when: When = "constant",
    alpha: Alpha = None, label: Labels = None, model: Model = "polyglot-mini", expert: Expert = "", base: Base = "",
    negatives: Count = 10, strategy: Strategy = "uniform", examples: Examples = "", column: Column = "text",
    label_column: LabelColumn = "", real: Real = None, synthetic: Synthetic = None, refresh: Refresh = 32,
    negative_tokens: Tokens = None, embed: Embed = "ngrams", vector: Vector = "none", layer: Layer = None,
    strength: Strength = None, unit: Unit = "residual", steered: Steered = "expert", prompt: Prompt = "target",
    offensive: Offensive = False, max_new_tokens: Longest = None, temperature: Temperature = 1.0, top_k: TopK = 10,
    top_p: TopP = 1.0, batch_rows: Rows = 64, seed: Seed = 0, data: Data = None, dtype: Dtype = "float32",
    device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write texts guided by an expert, its base and negatives, alone or together with a steering vector, and measure them.

    Each token's scores are (1 + gamma) expert - gamma base - eta expert-behind-the-negatives, in log-probabilities. In the published
    form a high eta is also a high temperature; the balanced form takes that out and keeps to tokens the expert finds plausible.
    Every sample's row names its negatives. Killed and started again, the run continues and ends with the same bytes.

    Examples:

    `steerlab guide -l en --task hypotheses --expert experts/hypotheses --examples task --out runs/guided`

    `steerlab guide -l en --task hypotheses --expert experts/hypotheses --form balanced --eta 1 --strategy nearest --out runs/balanced`

    `steerlab guide -l en --task hypotheses --expert experts/hypotheses --eta-when decaying:16 --out runs/early`

    `steerlab guide -l jv -l su --base instruction --gamma 0.5 --vector language --prompt none --compare --out runs/both`

    `steerlab guide -l en --task sentiment --gamma 0 --examples reviews.csv --label-column label --out runs/away`
    """
    from steerlab.commands import guide as command
    from steerlab.commands.guide_inputs import Asked, Models, Negatives, guide_of
    from steerlab.commands.synthesize import Steering

    asked = Asked(
        task, tuple(language), Models(model, expert, base),
        Negatives(examples, column, label_column, negatives, strategy, real, synthetic, refresh, negative_tokens, embed),
        Steering(vector, layer, strength, unit), tuple(label or ()), per_label, prompt, steered, offensive,
        max_new_tokens, temperature, top_k, top_p, batch_rows, seed,
    )  # fmt: skip
    rows = command.run(
        asked, guide_of(gamma, eta, form, alpha, gamma_when, eta_when), out, compare, data, dtype, device, not quiet
    )
    show(rows if as_json else command.wide(rows, ("language", "condition")), str(out), as_json)


def guide_sweep(
    out: Out,
    language: Annotated[str, typer.Option("--language", "-l", help="Language code.")] = "en",
    task: TaskName = "topic",
    per_label: Annotated[int, typer.Option("-n", "--per-label", help="Samples per label in each cell.")] = 25,
    gamma: Annotated[
        list[float] | None, typer.Option(help="A gamma of the grid; repeat. Default: 0, 0.2, ... 1 (the authors').")
    ] = None,
    eta: Annotated[list[float] | None, typer.Option(help="An eta of the grid; repeat. Default: as gamma.")] = None,
    form: Annotated[list[str] | None, typer.Option(help="published or balanced; repeat. Default: both.")] = None,
    gamma_when: When = "constant", eta_when: When = "constant",
    alpha: Alpha = None, label: Labels = None, model: Model = "polyglot-mini", expert: Expert = "", base: Base = "",
    negatives: Count = 10, strategy: Strategy = "uniform", examples: Examples = "", column: Column = "text",
    label_column: LabelColumn = "", real: Real = None, synthetic: Synthetic = None, refresh: Refresh = 32,
    negative_tokens: Tokens = None, embed: Embed = "ngrams", vector: Vector = "none", layer: Layer = None,
    strength: Strength = None, unit: Unit = "residual", steered: Steered = "expert", prompt: Prompt = "target",
    offensive: Offensive = False, max_new_tokens: Longest = None, temperature: Temperature = 1.0, top_k: TopK = 10,
    top_p: TopP = 1.0, batch_rows: Rows = 64, seed: Seed = 0, data: Data = None, dtype: Dtype = "float32",
    device: Device = None, as_json: AsJson = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Map what gamma and eta do to diversity, repetition and surprise: all cells of the grid written in mixed batches, with shared noise.

    The folder keeps every text, guidance.csv with intervals, and guidance.png: rows are gamma, columns eta, 0 at the lower left.
    `steerlab guide-sweep` is another name of this command.

    Examples:

    `steerlab sweep guidance --task hypotheses --expert experts/hypotheses --examples task --out runs/map`

    `steerlab sweep guidance -l jv --task sentiment --gamma 0 --gamma 0.5 --eta 0 --eta 0.4 --eta 0.8 -n 10 --out runs/small`
    """
    from steerlab.commands import guide as command
    from steerlab.commands.guide_inputs import Asked, Models, Negatives, guide_of
    from steerlab.commands.synthesize import Steering
    from steerlab.guidance import Form
    from steerlab.guidance_sweep import AUTHORS, Grid

    forms: tuple[Form, ...] = tuple(guide_of(0.0, 0.0, name, alpha).form for name in form or ("published", "balanced"))
    asked = Asked(
        task, (language,), Models(model, expert, base),
        Negatives(examples, column, label_column, negatives, strategy, real, synthetic, refresh, negative_tokens, embed),
        Steering(vector, layer, strength, unit), tuple(label or ()), per_label, prompt, steered, offensive,
        max_new_tokens, temperature, top_k, top_p, batch_rows, seed,
    )  # fmt: skip
    grid = Grid(tuple(gamma or AUTHORS), tuple(eta or AUTHORS), forms)
    like = guide_of(0.0, 0.0, "published", alpha, gamma_when, eta_when)
    rows = command.sweep(asked, grid, like, out, data, dtype, device, not quiet)
    show(
        rows if as_json else command.wide(rows, ("form", "gamma", "eta")), f"{out}: guidance.csv, guidance.png", as_json
    )

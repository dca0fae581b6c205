"""The `steerlab` command. Each command says what it does and shows an example; bad input is one sentence and
exit code 2.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from steerlab.commands.contrast_cli import contrast_app
from steerlab.commands.dataset_cli import dataset_app
from steerlab.commands.evaluate_cli import evaluate
from steerlab.commands.exchange_cli import vectors_export, vectors_import, vectors_pull, vectors_push
from steerlab.commands.expert_cli import expert_app
from steerlab.commands.export_cli import export
from steerlab.commands.figures_cli import figures
from steerlab.commands.guide_cli import guide, guide_sweep
from steerlab.commands.instruct_cli import instruct_app
from steerlab.commands.lens_cli import lens
from steerlab.commands.options import AsJson, Data, Device, Dtype, Engine, Model, Quiet, Seed, Source, Version, show
from steerlab.commands.probe_cli import probe
from steerlab.commands.report_cli import report, watch
from steerlab.commands.reproduce_cli import reproduce
from steerlab.commands.similarity_cli import similarity
from steerlab.commands.study_cli import study_app
from steerlab.commands.sweep_cli import sweep
from steerlab.commands.tokens_cli import tokens
from steerlab.errors import SteerlabError


class Commands(TyperGroup):
    """`steerlab sweep guidance` is `steerlab guide-sweep`: `sweep` alone takes vectors, and none is called guidance."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first words name, and the words that are left."""
        return super().resolve_command(ctx, ["guide-sweep", *args[2:]] if args[:2] == ["sweep", "guidance"] else args)


app = typer.Typer(
    cls=Commands,
    help="Fit directions in a language model's residual stream, steer with them, write data, and measure what changed.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
vectors_app = typer.Typer(
    help="Fit steering vectors and look into saved ones.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(vectors_app, name="vectors")
vectors_app.command("import")(vectors_import)
vectors_app.command("export")(vectors_export)
vectors_app.command("push")(vectors_push)
vectors_app.command("pull")(vectors_pull)
app.add_typer(contrast_app, name="contrast")
app.add_typer(study_app, name="study")
app.add_typer(dataset_app, name="dataset")
app.add_typer(expert_app, name="expert")
app.add_typer(instruct_app, name="instruct")
app.command("figures")(figures)
app.command("guide")(guide)
app.command("guide-sweep")(guide_sweep)
app.command("evaluate")(evaluate)
app.command("export")(export)
app.command("lens")(lens)
app.command("probe")(probe)
app.command("report")(report)
app.command("reproduce")(reproduce)
app.command("similarity")(similarity)
app.command("sweep")(sweep)
app.command("tokens")(tokens)
app.command("watch")(watch)
TOPIC = ["topic"]


@app.callback()
def _options(version: Version = False) -> None: ...


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that ship with the package and the architectures that are tested.

    Example: `steerlab models`
    """
    from steerlab.loading import OBEYS, SHIPPED, TESTED, bundled_facts

    rows = []
    for name in SHIPPED:
        facts = bundled_facts(name)
        what = f"bundled: {facts['parameters'] / 1e6:.2f}M parameters, {facts['layers']} layers, 12 languages"
        rows.append({"model": name, "what": what + ", taught to follow instructions" * (name == OBEYS)})
    rows += [{"model": name, "what": "any checkpoint of this architecture, by hub id or folder"} for name in TESTED]
    show(rows, "Models", as_json)


@vectors_app.command("fit")
def vectors_fit(
    out: Annotated[Path, typer.Option(help="Folder the vectors are saved in.")],
    texts: Annotated[
        list[str],
        typer.Option("--texts", "-t", help="NAME=FILE (.txt, .csv, .tsv, .jsonl), once per language or side."),
    ],
    kind: Annotated[
        str,
        typer.Option(help="language: every NAME against the others; contrast or quality: NAMEs positive and negative."),
    ] = "language",
    name: Annotated[str, typer.Option(help="Name of a contrast vector.")] = "contrast",
    model: Model = "polyglot-mini",
    column: Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")] = "text",
    positions: Annotated[
        str, typer.Option(help="all, last_prompt, last:K, or START:STOP from the end of the text.")
    ] = "all",
    weighting: Annotated[
        str, typer.Option(help="token: every token counts once; text: every text counts once.")
    ] = "token",
    surface: Annotated[
        bool, typer.Option(help="Quality: strip quotes, spacing and first-letter case from both sides first.")
    ] = True,
    dtype: Dtype = "float32",
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Fit steering vectors at every layer from your own texts.

    Examples:

    `steerlab vectors fit -t jv=jv.txt -t su=su.txt -t id=id.txt --out vectors/`

    `steerlab vectors fit --kind quality -t positive=human.txt -t negative=translated.txt --name quality-sl
    --out vectors/`
    """
    from steerlab.commands import vectors as command

    options = command.FitOptions(model, kind, name, column, positions, weighting, surface, dtype, device)
    print(command.fit(texts, out, options, not quiet))


@vectors_app.command("show")
def vectors_show(
    where: Annotated[
        Path | None, typer.Argument(help="A vector file or a folder of them; default: the bundled vectors.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show norms, counts and provenance of saved vectors.

    Example: `steerlab vectors show`
    """
    from steerlab.commands import vectors as command

    show(command.facts(where), "Vectors", as_json)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="Run folder; give the same one again to continue after an interruption.")],
    language: Annotated[list[str], typer.Option("--language", "-l", help="Language code; repeat for several.")],
    tasks: Annotated[list[str], typer.Option("--task", help="topic or sentiment; repeat for both.")] = TOPIC,
    per_label: Annotated[int, typer.Option("-n", "--per-label", help="Samples per label.")] = 20,
    vector: Annotated[
        str, typer.Option("--vector", "-v", help="none, language, quality, random, or a vector file.")
    ] = "none",
    layer: Annotated[
        int | None,
        typer.Option(help="Layer to steer at; default: the recommended one, else a quarter of the depth."),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Strength; see --unit.")] = None,
    unit: Annotated[
        str,
        typer.Option(help="residual: fraction of the layer's mean residual norm; raw: units of the unit vector."),
    ] = "residual",
    prompt: Annotated[str, typer.Option(help="Language the prompt names: target, none or english.")] = "target",
    shots: Annotated[int, typer.Option(help="Few-shot examples per prompt (0 = zero-shot).")] = 0,
    source: Source = "",
    model: Model = "polyglot-mini",
    engine: Engine = "local",
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus mass.")] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 128,
    greedy: Annotated[bool, typer.Option(help="Most likely token instead of sampling.")] = False,
    batch_rows: Annotated[int, typer.Option(help="Texts written at a time; changes them at most by rounding.")] = 64,
    seed: Seed = 0,
    data: Data = None,
    dtype: Dtype = "float32",
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a labelled data set, unsteered or steered, and judge it. Killed and started again, it continues and
    ends with the same bytes.

    Examples:

    `steerlab synthesize -l jv -l su --task topic -n 20 --out runs/plain`

    `steerlab synthesize -l jv --vector language --prompt none --out runs/steered`

    `steerlab synthesize -l jv --vector language --engine vllm --out runs/fast` (in an environment with vLLM)
    """
    from steerlab.commands import synthesize as command
    from steerlab.generation import Settings
    from steerlab.recipes import SynthesisConfig

    settings = Settings(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, greedy=greedy, seed=seed)
    human = source or command.default_source(data)
    config = SynthesisConfig(
        tuple(language), tuple(tasks), model, per_label, prompt, shots, human, settings, batch_rows=batch_rows
    )
    steering = command.Steering(vector, layer, strength, unit)
    rows = command.run(config, out, steering, data, dtype, device, not quiet, engine)
    show(rows, f"{out}", as_json)
    if not as_json:
        print(f"texts: {out / 'samples.jsonl'}; metrics and report beside them")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    per_label: Annotated[int, typer.Option("-n", "--per-label", help="Samples per label and condition.")] = 20,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The main job in minutes, offline: topic and sentiment data in Amharic, Javanese and Sundanese, unsteered,
    with language vectors, with quality vectors and with random directions, measured and drawn.

    Example: `steerlab demo --out runs/demo`
    """
    from steerlab.commands import demo as command

    rows, figure = command.run(out, per_label, seed, not quiet)
    show(rows, "Demo: mean over languages and tasks", as_json)
    if not as_json:
        print(f"samples, metrics and report: {out}\nfigure: {figure}")


def main() -> None:
    """Entry point: one sentence for bad input (exit code 2), no traceback; an interruption says how to continue
    (130).
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name need not be UTF-8, and not every terminal knows every letter.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="steerlab", standalone_mode=False)
        if code == 130:  # typer's word for an interruption
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except SteerlabError as error:
        print(f"steerlab: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # what no command expects of a path: a name too long, a folder that may not be looked into
        named = f"{str(error.filename)!r}" if error.filename else "a file or folder"
        print(f"steerlab: {named} cannot be used ({error.strerror or error}): give another path.", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except TyperException as error:
        message = " ".join(error.format_message().split())  # empty where help was printed instead
        if message:
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "steerlab"
            print(f"steerlab: {message.rstrip('.')} (see `{command} --help`).", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        from steerlab.halving import first_line, is_out_of_memory  # torch is there already where it ran out of memory

        if not is_out_of_memory(error):
            raise
        advice = "give smaller batches, a smaller dtype, or another device"
        print(f"steerlab: out of memory ({first_line(error)}): {advice}.", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("steerlab: interrupted; the same command continues where it stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

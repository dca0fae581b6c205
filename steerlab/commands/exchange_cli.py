"""The options of `steerlab vectors import`, `export`, `push` and `pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder the vectors are saved in.")]


def vectors_import(
    file: Annotated[Path, typer.Argument(help="GGUF, .pt, .pkl, .npy, .npz or .safetensors; told apart by content.")],
    out: Out,
    layers: Annotated[str, typer.Option(help="Block of each row where the file does not say: 12, 0-31 or 3,5,7.")] = "",
    embedding_first: Annotated[
        bool, typer.Option("--embedding-first", help="Row 0 is the embedding's, as in transformers' hidden_states.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model they belong to: checked, recorded, needed to steer with them.")
    ] = "",
    texts: Annotated[
        Path | None,
        typer.Option(help="Texts to measure the stream's norm on, so that strengths can be fractions of it."),
    ] = None,
    column: Annotated[str, typer.Option(help="Column with the text in csv, tsv and jsonl files.")] = "text",
) -> None:
    """Take over vectors that another program wrote. Nothing in the file is run: a pickle that wants more than arrays is refused.

    Known: control vectors of llama.cpp, repeng and EasySteer; steering-vectors; lm-evaluation-harness's steered models;
    torch and pickle files with tensors by layer or by name.

    Examples:

    `steerlab vectors import happy.gguf --model my-model/ --texts some.txt --out vectors/`

    `steerlab vectors import means.pkl --layers 0-31 --out vectors/`
    """
    from steerlab.commands import exchange as command

    print(command.bring(file, out, layers, embedding_first, model, texts, column)[1])


def vectors_export(
    where: Annotated[Path, typer.Argument(help="A vector file, or a folder of them with --key.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[str, typer.Option(help="gguf (llama.cpp, repeng), easysteer, steering-vectors or lm-eval.")],
    key: Annotated[str, typer.Option(help="Which vector of a folder.")] = "",
    layers: Annotated[str, typer.Option(help="Only these layers: 12, 1-31 or 3,5,7; gguf knows no block 0.")] = "",
    scale: Annotated[
        str,
        typer.Option(help="What coefficient 1 is there: raw (as fitted), unit, or residual (the stream's mean norm)."),
    ] = "raw",
    coefficient: Annotated[float, typer.Option(help="lm-eval: the coefficient in the file.")] = 1.0,
    hint: Annotated[str, typer.Option("--architecture", help="gguf: the model's architecture, llama say.")] = "",
    blocks: Annotated[
        str, typer.Option(help="lm-eval: the model's name for its blocks: layers, or h in GPT-2.")
    ] = "layers",
) -> None:
    """Write a vector in a format that another program reads.

    Examples:

    `steerlab vectors export vectors/ --key language-jv --format gguf --layers 1-5 --architecture llama --out jv.gguf`

    `steerlab vectors export jv.safetensors --format lm-eval --layers 3 --scale residual --coefficient 0.5 --out jv.pt`
    """
    from steerlab.commands import exchange as command

    print(command.send(where, key, out, format, layers, scale, coefficient, hint, blocks))


def vectors_push(
    where: Annotated[Path, typer.Argument(help="A vector file or a folder of them.")],
    repo_id: Annotated[str, typer.Argument(help="USER/NAME on the hub. Needs `hf auth login`.")],
    licence: Annotated[str, typer.Option("--license", help="As the hub spells it: cc-by-4.0, apache-2.0, other.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; default: private.")] = False,
) -> None:
    """Upload vectors to the Hugging Face hub, with a card that says what they were fitted on.

    Example: `steerlab vectors push vectors/ USER/jv-vectors --license cc-by-4.0`
    """
    from steerlab.commands import exchange as command

    print(command.share(where, repo_id, licence, public))


def vectors_pull(
    repo_id: Annotated[str, typer.Argument(help="USER/NAME on the hub.")],
    out: Out,
    revision: Annotated[
        str, typer.Option(help="Commit, tag or branch; a commit gives the same vectors for ever.")
    ] = "",
) -> None:
    """Fetch vectors from the Hugging Face hub and say which commit they are of.

    Example: `steerlab vectors pull USER/jv-vectors --out vectors/`
    """
    from steerlab.commands import exchange as command

    print(command.fetch(repo_id, out, revision))

"""The command line called with odd words and odd files: it does what was asked, or refuses in one line with exit code 2."""

from __future__ import annotations

import atexit
import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import typer
from hypothesis import strategies as st

from steerlab import cli, loading
from steerlab.errors import SteerlabError
from steerlab.vectorset import save_set
from tests import odd_texts as odd
from tests.fuzz import Target
from tests.reported_run import reported_run
from tests.tiny import vector

NO_MODEL = "no model is loaded in this test: give none."
STUDY = 'languages = ["jv"]\ntasks = ["topic"]\nsource = "sample"\n'
SAMPLES = '{"language": "jv", "task": "topic", "label": "travel", "text": "Aku mangan sega."}\n'
# The system knows no word with a NUL; a byte that is no UTF-8 arrives as half a character.
WORDS = st.one_of(odd.SHORT, odd.WHOLE.map(lambda text: text[:60])).map(
    lambda text: "".join(c for c in text if c != "\0" and not "\ud800" <= c < "\udc80" and not "\udcff" < c <= "\udfff")
)
FILES = (
    "run",
    "vectors",
    "vectors/a.safetensors",
    "jv.txt",
    "rows.jsonl",
    "rows.pt",
    "study.toml",
    "nowhere",
    ".",
    "kept.txt",
    "empty",
    "run/config.json",
)
KNOWN = ("jv", "topic", "language", "none", "sample", "polyglot-mini", "raw", "residual", "positive=jv.txt", "jv=jv.txt", "a", "degrade",
         "gguf", "simple:lowercase", "language-jv", "1-2", "1/2", "token", "USER/NAME", "cc-by-4.0", "train", "float32", "cpu")  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-2, 4).map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e400", "0.5", "²", "٣", "1_0", "0x1", "-0", "+1", "1.", "1e30"]),
)
VALUES = st.one_of(
    st.sampled_from(FILES), st.sampled_from(KNOWN), WORDS, NUMBERS, st.sampled_from(FILES), st.sampled_from(KNOWN)
)


# Words that do something here, without a model; the others' words are drawn.
WHOLE = {
    "contrast make": "--texts jv.txt --method degrade --out out",
    "dataset card": "rows.jsonl",
    "dataset export": "rows.jsonl --out out",
    "models": "--json",
    "report": "run --out page.html",
    "study low-resource": "study.toml --dry-run",
    "study presets": "polyglot-mini",
    "vectors export": "vectors --key a --format steering-vectors --out a.pt",
    "vectors import": "rows.pt --out out",
    "vectors show": "vectors",
    "watch": "run --once",
    "similarity": "",
    "lens": "language-jv",
    "sweep": "jv --out out",
    "synthesize": "-l jv --out out",
    "vectors fit": "-t jv=jv.txt -t su=jv.txt --out out",
    "evaluate": "rows.jsonl --model none",
    "reproduce": "run",
}


@functools.cache
def commands() -> dict[str, Any]:
    """Every command by its words."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        for key, below in (inner or {}).items():
            yield from walk(below, f"{name} {key}".strip())

    return dict(sorted(walk(typer.main.get_command(cli.app), "")))


@st.composite
def _words(draw: st.DrawFn, name: str) -> list[str]:
    """Words that do something with some odd ones put in or in their place, or options of the command with odd values."""
    given = [own for own in commands()[name].params if own.name not in ("help", "push_to")]
    whole = name in WHOLE and draw(st.integers(0, 3)) > 0
    found = WHOLE[name].split() if whole else []
    for own in given:
        option = own.opts[0].startswith("-")
        if (own.required and not whole) or draw(st.integers(0, 2 * len(given))) == 0:
            number, path = own.type_descriptor.annotation in (int, float), "Path" in str(own.type_descriptor.annotation)
            likely = NUMBERS if number else st.sampled_from(FILES) if path else st.sampled_from(KNOWN)
            if getattr(own, "is_flag", False):
                found.append(draw(st.sampled_from([*own.opts, *own.secondary_opts])))
            else:
                found += [own.opts[0], draw(st.one_of(likely, VALUES))] if option else [draw(st.one_of(likely, VALUES))]
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(found)))
        found[at : at + draw(st.integers(0, 1))] = [draw(WORDS)]
    return [*name.split(), *found]


@functools.cache
def _files() -> Path:
    """The files a command may be given, made once."""
    folder = Path(tempfile.mkdtemp(prefix="steerlab-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    reported_run(folder / "run")
    save_set({"a": vector(0), "b": vector(1)}, folder / "vectors")
    (folder / "jv.txt").write_text("aku mangan sega\nkowe turu\n", encoding="utf-8")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    (folder / "rows.jsonl").write_text(SAMPLES, encoding="utf-8")
    (folder / "kept.txt").write_text("kept", encoding="utf-8")
    torch.save({"a": torch.ones(3, 4)}, folder / "rows.pt")
    (folder / "empty").mkdir()
    return folder


def _refuse(*_: object, **__: object) -> Any:
    raise SteerlabError(NO_MODEL)


@contextmanager
def _no_long_work(folder: Path) -> Iterator[None]:
    """Where a command would load a model, compute or start another process, it refuses; the folder is where it runs."""
    from steerlab.commands import contrast, evaluate, expert, figures, guide, instruct, probe, similarity, sweep  # noqa: F401
    from steerlab.studies import writing  # noqa: F401

    before = Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"HOME": str(folder), "STEERLAB_DATA": ""}))
        for module in [
            own for name, own in list(sys.modules.items()) if name.startswith("steerlab.") and own is not loading
        ]:
            for attribute, value in list(vars(module).items()):
                if value is loading.load:
                    stack.enter_context(mock.patch.object(module, attribute, _refuse))
        stack.enter_context(mock.patch.object(loading, "load", _refuse))
        stack.enter_context(mock.patch.object(evaluate, "evaluate", _refuse))
        stack.enter_context(mock.patch.object(contrast, "separability", _refuse))
        stack.enter_context(mock.patch.object(figures.subprocess, "run", _refuse))
        stack.enter_context(mock.patch("time.sleep", _refuse))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def called(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, with the encodings a terminal has."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=e) for e in ("strict", "backslashreplace"))
    with (
        mock.patch.object(sys, "argv", ["steerlab", *words]),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        try:
            cli.main()
            raise AssertionError("the command did not exit")
        except SystemExit as exit:
            code = exit.code
        out.flush()
        err.flush()
    assert isinstance(code, int)
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()  # pyright: ignore


def _call(words: list[str], folder: Path) -> None:
    shutil.copytree(_files(), folder, dirs_exist_ok=True)
    with _no_long_work(folder):
        code, out, err = called(words)
    assert (folder / "kept.txt").read_text(encoding="utf-8") == "kept"
    assert code in (0, 2), (code, err[-500:])
    if code == 2 and err:
        assert err.startswith("steerlab: ") and err.endswith("\n") and "Traceback" not in err, err
        raise SteerlabError(err[:-1])
    assert code == 0 or "Usage:" in out or "help" in out.lower()


TARGETS = [
    Target("commands", f"steerlab {name}", "odd options, values and files", _words(name), _call, 0.6)
    for name in commands()
]

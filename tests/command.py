"""The `steerlab` command called inside the test process, and small model folders to call it on."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers.utils import logging

from steerlab import cli
from steerlab.commands import evaluate, synthesize, vectors
from steerlab.loading import load
from tests.tiny import hf_model, tokenizer

QUICK = ("--task", "sentiment", "--max-new-tokens", "8", "--source", "sample", "-q")


_load = cache(load)  # every command loads its model; reading each folder once is enough here


class Said(NamedTuple):
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Command:
    """`command("models", "--json")` is `steerlab models --json`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        logging.disable_progress_bar()  # `main` does so by a variable that is read when transformers is imported
        for module in (evaluate, synthesize, vectors):
            monkeypatch.setattr(module, "load", _load)

    def __call__(self, *words: str | Path) -> Said:
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["steerlab", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = self.capsys.readouterr()
        assert isinstance(exit.value.code, int)
        return Said(exit.value.code, out, err)

    def refused(self, *words: str | Path, because: str) -> str:
        """The one sentence a command refuses with, which `because` must match; nothing else is said, and the code is 2."""
        said = self(*words)
        check_refusal(said, because)
        return said.err


def check_refusal(said: Said, because: str) -> None:
    """Assert exit code 2, nothing on standard output, and one line of complaint that `because` matches."""
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("steerlab: ") and said.err.endswith("\n"), said.err
    assert said.err.count("\n") == 1, said.err
    assert re.search(because, said.err), said.err


def save_model(folder: Path, family: str = "llama", chat: bool = True, pad: bool = True, **changes: Any) -> Path:
    """A tiny model of random weights with its byte tokenizer, as `from_pretrained` wants it."""
    logging.disable_progress_bar()
    hf_model(family, **changes).save_pretrained(folder)
    tokenizer(chat=chat, pad=pad).save_pretrained(folder)
    return folder

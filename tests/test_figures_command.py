"""`steerlab figures` hands its words to the analyses of the checkout, passes their exit code on, and says when there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlab.commands import figures as figures_command
from tests.command import Command
from tests.walls import ROOT

FAKE = """import json, sys
from pathlib import Path
Path("said.json").write_text(json.dumps(sys.argv[1:]))
sys.exit(3 if "dies" in sys.argv else 0)
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose analyses only write down what they were told."""
    monkeypatch.setattr(figures_command, "CHECKOUT", tmp_path)
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "__init__.py").touch()
    (tmp_path / "analyses" / "__main__.py").write_text(FAKE)
    return tmp_path


def test_the_checkout_is_this_one() -> None:
    assert figures_command.CHECKOUT == ROOT and (ROOT / "analyses" / "__main__.py").is_file()


def test_words_and_exit_code_are_passed_on(command: Command, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout / "analyses")  # the command may be called from anywhere
    told = {
        (): ["--redraw"],
        ("--list",): ["--redraw", "--list"],
        ("--compute", "--again", "--only", "a", "--only", "b"): ["--again", "--only", "a", "--only", "b"],
        ("--compute", "--data", "here"): ["--data", str(checkout / "analyses" / "here")],
        ("--out", checkout / "out"): ["--redraw", "--out", str(checkout / "out")],
    }
    for words, wanted in told.items():
        assert command("figures", *words).code == 0
        assert json.loads((checkout / "said.json").read_text()) == wanted
    assert command("figures", "--only", "dies").code == 3


def test_without_a_checkout_it_says_what_to_do(command: Command, checkout: Path) -> None:
    command.refused("figures", "--again", because="--again .* without --compute")
    (checkout / "analyses" / "__main__.py").unlink()
    command.refused("figures", because="no analyses beside this installation: clone the repository")
    assert not (checkout / "said.json").exists()

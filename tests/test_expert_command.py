"""`steerlab expert`: trains, continues, shows; offensive text is read where it is allowed and printed nowhere unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlab import load
from steerlab.disk import fingerprint
from steerlab.experts.expert import CARD, RECORD, SAMPLES
from steerlab.records import pretty, sealed
from tests.command import Command, save_model

MARK = "zzoffensivezz"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"review number {n} says {'abcdefgh'[n % 8] * 12} and no more\n" for n in range(30)))
    return file


@pytest.fixture
def offensive(tmp_path: Path) -> Path:
    """A data folder whose every comment has a mark in it."""
    folder = tmp_path / "data" / "toxic_comments"
    folder.mkdir(parents=True)
    rows = [f"{n},{MARK} comment {'abcdefghijklmnopqrst'[n % 20] * 9} {n}" for n in range(80)]
    (folder / "comments.csv").write_text("\n".join(["comment_id,comment_text", *rows]) + "\n")
    votes = [f"{n},{'True' if n % 3 else 'False'}" for n in range(80)]
    (folder / "annotations.csv").write_text("\n".join(["comment_id,not toxic", *votes]) + "\n")
    return folder.parent


QUICK = ("--steps", "2", "--rank", "2", "--batch-size", "4", "-q")


@pytest.mark.slow
def test_own_texts_train_an_expert_that_loads(command: Command, base: Path, texts: Path, tmp_path: Path):
    out = tmp_path / "expert"
    asked = ("expert", "train", "-t", texts, "--instruction", "Write a review.", "--out", out, "-m", base, *QUICK)
    first = command(*asked, "--samples", "3", "--json")
    assert first.code == 0, first.err
    facts = {row["fact"]: row["value"] for row in json.loads(first.out)}
    assert facts["base"].startswith(str(base)) and facts["texts"] == "21 training, 3 validation"
    assert facts["task"] == "own texts" and facts["steps"].startswith("2, kept: ")
    before = (out / RECORD).read_bytes()
    assert command(*asked, "--samples", "3", "--json").out == first.out and (out / RECORD).read_bytes() == before
    command.refused(*asked, "--samples", "4", because="holds another expert .samples is 3 there, 4 now")
    assert "validation loss" in command("expert", "show", out).out
    shown = json.loads(command("expert", "show", out, "-n", "2", "--json").out)
    assert [row["prompt"] for row in shown] == ["### Instruction: Write a review.\n ### Text:"] * 2
    assert load(str(base), device="cpu", adapter=out).adapter is not None


def test_nothing_of_an_offensive_text_is_printed_or_kept_without_the_flag(
    command: Command, base: Path, offensive: Path, tmp_path: Path
):
    out = tmp_path / "expert"
    asked = ("expert", "train", "--task", "comments", "--out", out, "-m", base, "--data", offensive, *QUICK[:-1])
    command.refused(*asked, because=r"holds offensive text: give allow_offensive=True \(--offensive\)")
    command.refused("probe", "--source", "toxic-comments", "-l", "en", "--data", offensive, because="offensive text")
    assert not out.exists()
    said = command(*asked, "--offensive", "--samples", "4")
    assert said.code == 0, said.err
    for text in (said.out, said.err, (out / CARD).read_text(), (out / RECORD).read_text()):
        assert MARK not in text
    assert "offensive comments" in (out / CARD).read_text() and "toxic-comments (CC0-1.0)" in (out / CARD).read_text()
    rows = [{"prompt": "p", "text": f"{MARK} {n}"} for n in range(4)]
    (out / SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    command.refused("expert", "show", out, because="samples.jsonl was changed after it was written")
    record = json.loads((out / RECORD).read_text())
    record["files"][SAMPLES] = fingerprint(out / SAMPLES)
    (out / RECORD).write_bytes(pretty(sealed(record)))
    for words in (("-n", "3"), ("-n", "3", "--json"), ("--json",), ()):
        said = command("expert", "show", out, *words)
        assert said.code == 0 and MARK not in said.out + said.err
        assert ("--offensive" in said.out) == ("-n" in words)
    assert MARK in command("expert", "show", out, "-n", "3", "--offensive").out


def test_refusals_of_offensive_training_print_none_of_it(command: Command, base: Path, offensive: Path, tmp_path: Path):
    out = tmp_path / "expert"
    asked = ("expert", "train", "--task", "comments", "--offensive", "--data", offensive, "-m", base, "--out", out)
    for words, told in (
        (("--max-length", "8"), "a prompt has .* tokens and a row at most 8"),
        (("--target", "query"), "no linear layers named query"),
        (("--most", "1", "--label", "toxic", "--steps", "0"), "steps is 0: give at least 1"),
        (("--learning-rate", "1e30", "--steps", "30"), "lower the learning rate"),
    ):
        assert MARK not in command.refused(*asked, *words, "-q", because=told)


def test_bad_input_is_one_sentence(command: Command, texts: Path, tmp_path: Path):
    out = ("--out", tmp_path / "x")
    for words, told in (
        ((), "give the texts with --task, or your own with --texts: one of the two"),
        (("--task", "hypotheses", "-t", texts), "one of the two"),
        (("-t", texts), "--texts needs the --instruction"),
        (("--task", "hypothesis"), "task 'hypothesis' is not known: .*did you mean 'hypotheses'"),
        (("--task", "topic", "--preset", "small"), "preset 'small' is not known"),
        (("-t", texts, "--instruction", "Write.", "--preset", "paper", "--quantise", "nf8"), "quantise is 'nf8'"),
        (("-t", texts, "--instruction", "Write.", "--preset", "paper"), "needs a CUDA GPU and bitsandbytes"),
    ):
        command.refused("expert", "train", *out, *words, because=told)
    command.refused("expert", "show", tmp_path, because="has no expert.json")

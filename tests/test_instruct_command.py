"""`steerlab instruct`: from fitting to four arms in run folders that go on after a kill, and one sentence for bad input."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steerlab import store
from steerlab.commands import instruct, instruct_write
from steerlab.instructions import load_instruction_vectors, recommended_pushes
from steerlab.instructions.runs import ANSWERS
from steerlab.loading import load
from tests.command import Command, save_model
from tests.small_run import content

_load = cache(load)
TWO = ("-i", "simple:lowercase", "-i", "simple:quotes")
SHORT = ("--max-new-tokens", "4", "--batch-rows", "4", "--seed", "3", "-q", "--json")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for module in (instruct, instruct_write):
        monkeypatch.setattr(module, "load", _load)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def rows(command: Command, *words: str | Path) -> list[dict[str, Any]]:
    said = command("instruct", *words)
    assert said.code == 0, said
    return json.loads(said.out)


@pytest.fixture
def fitted(command: Command, model: Path, tmp_path: Path) -> Path:
    rows(command, "fit", *TWO, "-m", model, "-n", "4", "--splits", "2", "--out", tmp_path / "fit", "-q", "--json")
    return tmp_path / "fit"


def test_from_fit_to_four_arms(command: Command, model: Path, fitted: Path, tmp_path: Path) -> None:
    layers = pd.read_csv(fitted / "vectors.csv")
    assert len(layers) == 8 and set(layers["instruction"]) == {"simple:lowercase", "simple:quotes"}
    store.verify(fitted)

    chosen = tmp_path / "chosen"
    told = rows(
        command,
        "select",
        fitted,
        "-m",
        model,
        "-n",
        "2",
        "-s",
        "1",
        "-s",
        "2",
        "--rule",
        "paper",
        "--folds",
        "2",
        "--out",
        chosen,
        *SHORT,
    )
    assert [row["instruction"] for row in told] == ["simple:lowercase", "simple:quotes"]
    assert all(row["layer"] == "not steered" for row in told)  # four bytes of a random model follow nothing
    trials = pd.read_csv(chosen / "trials.csv")
    assert len(trials) == 2 * (1 + 2 * 2) and (trials["n"] == 2).all()
    kept = load_instruction_vectors(chosen / "vectors")
    assert recommended_pushes(kept) == {} and all(v.choice is not None for v in kept.values())

    arms = tmp_path / "arms"
    table = rows(
        command,
        "evaluate",
        chosen,
        "-m",
        model,
        "-n",
        "2",
        "--layer",
        "2",
        "--strength",
        "3",
        "--backoff",
        "--out",
        arms,
        *SHORT,
    )
    assert [row["instruction"] for row in table] == ["all", "simple:lowercase", "simple:quotes"]
    assert set(table[0]) == {"instruction", "n", "none", "steered", "instructed", "both", "guided"}
    answers = store.read_rows(arms / ANSWERS)
    assert len(answers) == 2 * 2 * 5
    by_arm = {a["arm"]: [b["text"] for b in answers if b["arm"] == a["arm"]] for a in answers}
    assert by_arm["none"] != by_arm["steered"] and by_arm["instructed"] != by_arm["both"]
    for name in ("rates.csv", "rates_strict.csv", "changes.csv", "quality.csv", "weakened.csv"):
        assert (arms / name).is_file(), name
    assert "relevance" in set(pd.read_csv(arms / "quality.csv")["measure"])
    store.verify(arms)
    unsteered = rows(
        command,
        "evaluate",
        chosen,
        "-m",
        model,
        "-n",
        "2",
        "--arm",
        "none",
        "--arm",
        "steered",
        "--out",
        tmp_path / "two",
        *SHORT,
    )
    assert set(unsteered[0]) == {"instruction", "n", "none", "steered"}
    answers = store.read_rows(tmp_path / "two" / ANSWERS)
    texts = {
        arm: [a["text"] for a in sorted(answers, key=lambda a: a["number"]) if a["arm"] == arm]
        for arm in ("none", "steered")
    }
    assert texts["none"] == texts["steered"]  # not steering was chosen


@pytest.mark.parametrize("orthogonal", [False, True])
def test_generate_lets_several_act_on_one_text(
    command: Command, model: Path, fitted: Path, tmp_path: Path, orthogonal: bool
) -> None:
    more = ("--orthogonal",) if orthogonal else ()
    base = (
        "generate",
        fitted,
        *TWO,
        "-m",
        model,
        "-p",
        "Tell me.",
        "-p",
        "Say it.",
        "--layer",
        "2",
        "--strength",
        "4",
        *SHORT,
    )
    written = rows(command, *base, "--out", tmp_path / "run", *more)
    assert [row["prompt"] for row in written] == ["Tell me.", "Say it."]
    assert set(written[0]) == {"prompt", "text", "weakened"}
    acting = store.read_config(tmp_path / "run")["interventions"]
    assert len(acting) == 2 and ("beside" in acting[1]["vector"]) is orthogonal


@pytest.mark.parametrize("verb", ["select", "evaluate"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    command: Command, model: Path, fitted: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--layer", "1") if verb == "evaluate" else ("--folds", "2")
    words = (verb, fitted, "-m", model, "-n", "2", *place, *SHORT)
    whole = rows(command, *words, "--out", tmp_path / "whole")
    append, count = store.RunFolder.append, [0]

    def dies(self: store.RunFolder, *args: Any, **kwargs: Any) -> None:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        append(self, *args, **kwargs)

    monkeypatch.setattr(store.RunFolder, "append", dies)
    assert command("instruct", *words, "--out", tmp_path / "killed").code == 130
    assert not (tmp_path / "killed" / store.MANIFEST).exists()
    monkeypatch.setattr(store.RunFolder, "append", append)
    assert rows(command, *words, "--out", tmp_path / "killed") == whole
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_vectors_are_carried_to_another_model_only_when_asked(command: Command, fitted: Path, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", seed=5)
    words = ("select", fitted, "-m", base, "-n", "1", "--folds", "0", "--form", "qa", *SHORT)
    command.refused("instruct", *words[:-1], "--out", tmp_path / "run", because="was fitted on model .* is loaded")
    assert len(rows(command, *words, "--transfer", "--out", tmp_path / "run")) == 2
    (vector, *_) = load_instruction_vectors(tmp_path / "run" / "vectors").values()
    assert vector.provenance.model == str(base) and "carried from" in vector.provenance.method


def test_fitting_again_reads_what_is_there(
    command: Command, model: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(fitted)
    monkeypatch.setattr(instruct, "fit_instructions", None)
    told = rows(command, "fit", *TWO, "-m", model, "-n", "4", "--splits", "2", "--out", fitted, "-q", "--json")
    assert [row["pairs"] for row in told] == [4, 4] and content(fitted) == before


BAD = {
    "source": (("fit", "--source", "web"), "source 'web' is not known"),
    "instruction": (("fit", "-i", "simple:rhyme"), "'simple:rhyme' is not among"),
    "against": (("fit", "--against", "all"), "--against 'all' is not known"),
    "form": (("fit", "--form", "tea"), "form 'tea' is not known"),
    "no vectors": (("select", "nowhere"), "nowhere holds no readable set of vectors"),
    "application": (("select", "VECTORS", "--apply", "pull"), "application 'pull' is not known"),
    "rule": (("select", "VECTORS", "--rule", "best"), "give shrunken or paper"),
    "gate": (("select", "VECTORS", "--gate", "3"), "a cosine lies between"),
    "no choice": (("evaluate", "VECTORS"), "nothing was chosen for 'simple:lowercase'"),
    "arm": (("evaluate", "VECTORS", "--layer", "1", "--arm", "prompted"), "were given: give prompts, and some of none"),
    "no prompt": (("generate", "VECTORS", "-i", "simple:quotes", "--layer", "1"), "0 prompts"),
    "no vector": (("generate", "VECTORS", "-i", "simple:uppercase", "-p", "x"), "has no vector for simple:uppercase"),
    "strength alone": (("generate", "VECTORS", "-i", "simple:quotes", "-p", "x", "--strength", "2"), "without a layer"),
    "layer": (("generate", "VECTORS", "-i", "simple:quotes", "-p", "x", "--layer", "9"), "no direction at layer 9"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_leaves_no_folder(
    command: Command, model: Path, fitted: Path, tmp_path: Path, name: str
) -> None:
    words, because = BAD[name]
    given = [str(fitted) if word == "VECTORS" else word for word in words]
    command.refused("instruct", *given, "-m", model, "--out", tmp_path / "run", "-q", because=because)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["fit", "select", "generate", "evaluate"])
def test_help_teaches_with_examples(command: Command, verb: str) -> None:
    said = command("instruct", verb, "--help")
    assert said.code == 0 and f"steerlab instruct {verb}" in said.out and "Example" in said.out

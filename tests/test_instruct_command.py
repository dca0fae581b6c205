"""`steerlab instruct`: from fitting to four arms in run folders that go on after a kill, and one sentence for bad input."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from steerlab import store
from steerlab.commands import instruct, instruct_cli, instruct_interfere, instruct_transfer, instruct_write
from steerlab.following.arms import ARMS
from steerlab.instructions import load_instruction_vectors, recommended_pushes
from steerlab.instructions.runs import ANSWERS
from steerlab.loading import OBEYS, load
from tests.command import Command, save_model
from tests.small_run import content

_load = cache(load)
TWO = ("-i", "simple:lowercase", "-i", "simple:quotes")
SHORT = ("--max-new-tokens", "4", "--batch-rows", "4", "--seed", "3", "-q", "--json")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for module in (instruct, instruct_interfere, instruct_transfer, instruct_write):
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


def choose(command: Command, model: Path, fitted: Path, out: Path) -> list[dict[str, Any]]:
    more = ("-n", "2", "-s", "1", "-s", "2", "--rule", "paper", "--folds", "2", "--threshold", "1e9")
    return rows(command, "select", fitted, "-m", model, *more, "--out", out, *SHORT)


def answers(folder: Path) -> dict[str, list[str]]:
    """The texts of each arm, in order."""
    found: dict[str, list[str]] = {}
    for row in sorted(store.read_rows(folder / ANSWERS), key=lambda row: row["number"]):
        found.setdefault(row["arm"], []).append(row["text"])
    return found


def test_a_fit_says_where_each_vector_lies_at_every_layer(fitted: Path) -> None:
    layers: Any = pd.read_csv(fitted / "vectors.csv")
    assert len(layers) == 8 and set(layers["instruction"]) == {"simple:lowercase", "simple:quotes"}
    assert (layers["instructed"] - layers["bare"] - layers["raw_norm"]).abs().max() < 1e-3
    store.verify(fitted)


def test_what_was_not_worth_steering_is_not_steered(
    command: Command, model: Path, fitted: Path, tmp_path: Path
) -> None:
    chosen, two = tmp_path / "chosen", tmp_path / "two"
    told = choose(command, model, fitted, chosen)
    assert [row["instruction"] for row in told] == ["simple:lowercase", "simple:quotes"]
    assert all(row["layer"] == "not steered" for row in told)  # every text is degenerate below such a threshold
    trials: Any = pd.read_csv(chosen / "trials.csv")
    assert len(trials) == 2 * (1 + 2 * 2) and (trials["n"] == 2).all()
    kept = load_instruction_vectors(chosen / "vectors")
    assert recommended_pushes(kept) == {} and all(v.choice is not None for v in kept.values())
    arms = ("--arm", "none", "--arm", "steered")
    table = rows(command, "evaluate", chosen, "-m", model, "-n", "2", *arms, "--out", two, *SHORT)
    assert set(table[0]) == {"instruction", "n", "none", "steered"}
    texts = answers(two)
    assert texts["none"] == texts["steered"] and len(texts["none"]) == 4


def test_every_arm_with_its_tables(command: Command, model: Path, fitted: Path, tmp_path: Path) -> None:
    out, place = tmp_path / "arms", ("--layer", "2", "--strength", "3", "--backoff")
    table = rows(command, "evaluate", fitted, "-m", model, "-n", "2", *place, "--out", out, *SHORT)
    assert [row["instruction"] for row in table] == ["all", "simple:lowercase", "simple:quotes"]
    assert set(table[0]) == {"instruction", "n", *ARMS}
    texts = answers(out)
    assert {arm: len(own) for arm, own in texts.items()} == dict.fromkeys(ARMS, 4)
    assert texts["none"] != texts["steered"] and texts["instructed"] != texts["both"]
    for name in ("rates.csv", "rates_strict.csv", "changes.csv", "quality.csv", "weakened.csv"):
        assert (out / name).is_file(), name
    assert "relevance" in set(pd.read_csv(out / "quality.csv")["measure"])
    store.verify(out)


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


def test_vectors_are_mapped_to_a_model_of_another_width(command: Command, fitted: Path, tmp_path: Path) -> None:
    wide, out = save_model(tmp_path / "wide", hidden_size=48, num_hidden_layers=6, seed=5), tmp_path / "mapped"
    words = ("transfer", fitted, *TWO, "-m", wide, "-n", "6", "-q", "--json", "--out")
    told = rows(command, *words, out)
    assert [row["layer"] for row in told] == list(range(6)) and told[-1]["donor_layer"] == 3
    assert sum(row["r2"] for row in told) > sum(row["r2_shuffled"] for row in told)
    for vector in load_instruction_vectors(out / "vectors").values():
        assert (
            vector.d_model == 48
            and vector.provenance.model == str(wide)
            and "mapped (ridge)" in vector.provenance.method
        )
    store.verify(out)
    assert rows(command, *words, out) == told
    assert (
        len(rows(command, "select", out, "-m", wide, "-n", "1", "--folds", "0", *SHORT, "--out", tmp_path / "run")) == 2
    )
    config = store.read_config(out)
    assert config["donor"] != config["model"] == str(wide) and set(config["vectors"]) == {
        "simple:lowercase",
        "simple:quotes",
    }


def test_interference_is_each_instruction_under_each_vector_and_both(
    command: Command, model: Path, fitted: Path, tmp_path: Path
) -> None:
    out, place = tmp_path / "both", ("--layer", "2", "--strength", "4", "-n", "3")
    told = rows(command, "interfere", fitted, *TWO, "-m", model, *place, "--out", out, *SHORT)
    assert [row["instruction"] for row in told] == ["simple:lowercase", "simple:quotes", "all"]
    acting = ["none", "simple:lowercase", "simple:quotes", "together", "together, orthogonal"]
    assert list(told[0]) == ["instruction", "n", *acting] and {row["n"] for row in told} == {3}
    texts: dict[str, list[str]] = {}
    for row in store.read_rows(out / ANSWERS):
        texts.setdefault(row["acting"], []).append(row["text"])
    assert len({tuple(own) for own in texts.values()}) >= 4  # what acts changes what is written
    cosine: Any = pd.read_csv(out / "cosines.csv")
    (one, other) = load_instruction_vectors(fitted / "vectors").values()
    assert cosine["cosine"][0] == pytest.approx(float(one.at(2) @ other.at(2)), abs=1e-5)
    rates: Any = pd.read_csv(out / "rates.csv")
    assert len(rates) == 15 and (rates["followed"] <= rates["n"]).all()
    store.verify(out)


def test_interference_of_vectors_at_their_own_choices(
    command: Command, model: Path, fitted: Path, tmp_path: Path
) -> None:
    """What was not worth steering changes nothing, and that is said in the numbers."""
    choose(command, model, fitted, tmp_path / "chosen")
    told = rows(
        command, "interfere", tmp_path / "chosen", *TWO, "-m", model, "-n", "2", "--out", tmp_path / "both", *SHORT
    )
    assert all(row["none"] == row["together"] == row["together, orthogonal"] for row in told)


def test_fitting_again_reads_what_is_there(
    command: Command, model: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(fitted)
    monkeypatch.setattr(instruct, "fit_instructions", None)
    told = rows(command, "fit", *TWO, "-m", model, "-n", "4", "--splits", "2", "--out", fitted, "-q", "--json")
    assert [row["pairs"] for row in told] == [4, 4] and content(fitted) == before


BAD = {
    "source": (("fit", "--source", "web"), "source 'web' is not known"),
    "instruction": (("fit", "-i", "simple:rhyme"), "has no prompt for simple:rhyme"),
    "against": (("fit", "--against", "all"), "--against 'all' is not known"),
    "form": (("fit", "--form", "tea"), "form 'tea' is not known"),
    "no vectors": (("select", "nowhere"), "nowhere holds no readable set of vectors"),
    "application": (("select", "VECTORS", "--apply", "pull"), "--apply 'pull' .*: give one of match"),
    "rule": (("select", "VECTORS", "--rule", "best"), "give shrunken or paper"),
    "gate": (("select", "VECTORS", "--gate", "3"), "a cosine lies between"),
    "no choice": (("evaluate", "VECTORS"), "nothing was chosen for 'simple:lowercase'"),
    "arm": (
        ("evaluate", "VECTORS", "--layer", "1", "--arm", "prompted"),
        "the arms prompted were given: give some of none",
    ),
    "one instruction": (("interfere", "VECTORS", "-i", "simple:quotes", "--layer", "1"), "give at least two of"),
    "not fitted": (
        ("interfere", "VECTORS", *TWO, "-i", "simple:uppercase"),
        "has no vector for simple:uppercase: give at least two of .*, or fit more with `steerlab instruct fit",
    ),
    "no place": (
        ("interfere", "VECTORS", *TWO),
        "nothing was chosen for 'simple:lowercase': run `steerlab instruct select` on this folder",
    ),
    "checks": (("interfere", "VECTORS", *TWO, "--layer", "1", "--mode", "kind"), "give loose or strict"),
    "map": (("transfer", "VECTORS", "--kind", "affine"), "--kind 'affine' is not known: give ridge or procrustes"),
    "no prompt": (("generate", "VECTORS", "-i", "simple:quotes", "--layer", "1"), "0 prompts"),
    "no vector": (("generate", "VECTORS", "-i", "simple:uppercase", "-p", "x"), "has no vector for simple:uppercase"),
    "no instruction": (("generate", "VECTORS", "-p", "x"), "no instruction was given: give -i and one or more of"),
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


def test_every_command_takes_the_shipped_model_that_follows_instructions() -> None:
    verbs: Any = typer.main.get_command(instruct_cli.instruct_app)
    assert len(verbs.commands) == 6
    for verb in verbs.commands.values():
        assert [p.default for p in verb.params if p.name == "model"] == [OBEYS], verb.name


@pytest.mark.parametrize("verb", ["fit", "select", "generate", "evaluate", "interfere", "transfer"])
def test_help_teaches_with_examples(command: Command, verb: str) -> None:
    said = command("instruct", verb, "--help")
    assert said.code == 0 and f"steerlab instruct {verb}" in said.out and "Example" in said.out

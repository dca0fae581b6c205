"""`steerlab guide` and `guide-sweep`: whole run folders of guided texts, resumable to the byte, and one sentence for bad input."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from steerlab.commands.guide_inputs import guide_of
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide, Schedule
from steerlab.guided import Guided
from steerlab.loading import load
from steerlab.negatives import JOINER
from steerlab.store import read_config, read_rows, verify
from steerlab.tasks import postprocess, prompt
from tests.command import Command, save_model
from tests.small_run import content
from tests.tiny import hf_model

SHORT = ("--task", "sentiment", "--max-new-tokens", "6", "-q", "-l", "jv")
REVIEWS = "text,label\nlovely place,positive\ngood food,positive\nnever again,negative\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), max_position_embeddings=512)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    trained: Any = get_peft_model(copy.deepcopy(hf_model("llama")), config)
    trained.save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.csv"
    file.write_text(REVIEWS, encoding="utf-8")
    return file


def _guide(command: Command, model: Path, out: Path, *more: str | Path) -> list[dict[str, Any]]:
    said = command("guide", "-m", model, "-n", "3", "--out", out, "--json", *SHORT, *more)
    assert said.code == 0 and said.err == "", said
    return json.loads(said.out)


def test_a_guided_run_is_a_whole_run_folder(
    command: Command, model: Path, adapter: Path, reviews: Path, tmp_path: Path
) -> None:
    given = (
        "--expert",
        adapter,
        "--examples",
        reviews,
        "--label-column",
        "label",
        "--negatives",
        "2",
        "--refresh",
        "2",
    )
    rows = _guide(command, model, tmp_path / "run", *given, "--compare", "--eta", "0.8", "--form", "balanced")
    verify(tmp_path / "run")
    assert {row["condition"] for row in rows} == {"plain", "guided"}
    assert {"ngrams_3_ratio", "diversity_2_4", "log_perplexity_expert", "log_perplexity_base", "copied_exactly"} <= {
        row["metric"] for row in rows
    }
    config = read_config(tmp_path / "run")
    assert config["adapter"].startswith("adapter-") and config["settings"]["top_k"] == 10
    starts = {row["id"]: row["text"] for row in read_rows(tmp_path / "run" / "negatives.jsonl")}
    assert starts == {
        "real/positive/0": "lovely place",
        "real/positive/1": "good food",
        "real/negative/0": "never again",
    }
    samples = read_rows(tmp_path / "run" / "samples.jsonl")
    guided = [row for row in samples if row["condition"] == "guided"]
    assert {(row["guidance"]["gamma"], row["guidance"]["eta"], row["guidance"]["alpha"]) for row in guided} == {
        (0.2, 0.8, 0.1)
    }
    # What the command wrote is what the functions write from the row's own record.
    expert, texts = (
        load(str(model), adapter=adapter),
        starts | {f"{r['label']}/{r['index']}": r["text"] for r in guided},
    )
    settings = Settings(max_new_tokens=6, temperature=1.0, top_p=1.0, top_k=10)
    for row in guided[:3]:
        away = JOINER.join(texts[id] for id in row["guidance"]["negatives"])
        asked = prompt("sentiment", row["label"], "jv")
        request = Request(asked, tuple(row["key"]), guided=Guided(Guide(0.2, 0.8, "balanced"), away))
        assert postprocess(generate(expert, [request], settings)[0].text) == row["text"]
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "away from real/" in report and "## Samples" in report
    before = content(tmp_path / "run")
    assert _guide(command, model, tmp_path / "run", *given, "--compare", "--eta", "0.8", "--form", "balanced") == rows
    assert content(tmp_path / "run") == before
    command.refused("reproduce", tmp_path / "run", because="holds a guided run: repeat its own command")


def test_two_models_and_one_without_its_instruction(command: Command, model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=5, max_position_embeddings=512)
    found = {}
    for name, more in (
        ("free", ()),
        ("said", ("--base", "instruction")),
        ("base", ("--base", other)),
        ("expert", ("--expert", other)),
    ):
        _guide(command, model, tmp_path / name, "--eta", "0", "--gamma", "0.7", *more)
        found[name] = [row["text"] for row in read_rows(tmp_path / name / "samples.jsonl")]
    assert found["free"] == found["said"]
    assert found["base"] != found["free"] != found["expert"] != found["base"]
    assert read_config(tmp_path / "free")["cells"][0]["guidance"]["base_prompt"] == ""
    assert read_config(tmp_path / "base")["base"]["name"] == str(other)
    assert read_config(tmp_path / "expert")["base"]["name"] == str(model)


def test_the_table_has_a_line_per_condition(command: Command, model: Path, tmp_path: Path) -> None:
    said = command("guide", "-m", model, "-n", "2", "--out", tmp_path / "run", "--compare", *SHORT)
    assert said.code == 0 and "guided" in said.out and "plain" in said.out and "diversity_2_4" in said.out


def test_a_map_is_written_and_drawn(command: Command, model: Path, tmp_path: Path) -> None:
    words = (
        "sweep",
        "guidance",
        "-m",
        model,
        "-n",
        "2",
        "--out",
        tmp_path / "map",
        *SHORT,
        "--gamma",
        "0",
        "--gamma",
        "0.5",
    )
    said = command(*words, "--eta", "0", "--eta", "0.6", "--form", "balanced", "--json")
    assert said.code == 0 and said.err == "", said
    verify(tmp_path / "map")
    rows = json.loads(said.out)
    assert {(row["form"], row["gamma"], row["eta"]) for row in rows} == {
        ("balanced", gamma, eta) for gamma in (0.0, 0.5) for eta in (0.0, 0.6)
    }
    assert (tmp_path / "map" / "guidance.png").stat().st_size > 5000
    assert (tmp_path / "map" / "guidance.csv").read_text(encoding="utf-8").startswith("form,gamma,eta,metric,value")


def test_schedules_are_said_in_words() -> None:
    guide = guide_of(0.2, 0.6, "balanced", None, "decaying:8", "uncertain:1.5")
    assert (guide.gamma_when, guide.eta_when) == (Schedule("decaying", half_life=8.0), Schedule("uncertain", least=1.5))
    assert guide_of(0.2, 0.6, "balanced", None) == Guide(0.2, 0.6, "balanced")


def test_help_teaches(command: Command) -> None:
    for name in (("guide",), ("guide-sweep",), ("sweep", "guidance")):
        said = command(*name, "--help")
        assert said.code == 0 and "Examples" in said.out and "--eta" in said.out


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (("--form", "mixed"), "form 'mixed' is not known"),
        (("--gamma", "-1"), "gamma is -1.0: give a finite number"),
        (("--alpha", "2"), "alpha is 2.0"),
        (("--eta-when", "later"), "schedule 'later' is not known: give 'constant', 'decaying:HALF_LIFE'"),
        (("--gamma-when", "decaying:soon"), "behind the colon stands a number"),
        (("--gamma-when", "decaying:0"), "half_life 0.0"),
        (("--strategy", "best"), "strategy 'best' is not known"),
        (("--negatives", "0"), "0 negatives were asked for"),
        (("--real", "9", "--synthetic", "9"), "quotas of 9 real and 9 synthetic"),
        (("--refresh", "0"), "refresh 0"),
        (("--steered", "some"), "steered 'some'"),
        (("--task", "topics"), "task 'topics' is not known"),
        (("--task", "comments"), "task 'comments' writes offensive text: give --offensive"),
        (("--label", "neutral"), "label 'neutral' is not one of task 'sentiment'"),
        (("--examples", "nowhere.txt"), "nowhere.txt"),
        (("--examples", "nodata"), "'nodata'"),
        (("--expert", "nowhere"), "nowhere"),
        (("--prompt", "latin"), "prompt 'latin' is not known"),
        (("--vector", "nothing"), "--vector 'nothing' is none of"),
        (("--base", "nowhere/at/all"), "could not be loaded|no folder"),
        (("--top-k", "-1"), "top_k is -1"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    command: Command, model: Path, tmp_path: Path, words: tuple[str, ...], because: str
) -> None:
    command.refused("guide", "-m", model, "-n", "2", "--out", tmp_path / "run", *SHORT, *words, because=because)
    assert not (tmp_path / "run").exists()


def test_what_is_no_expert_is_told_apart(command: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("guide", "-m", model, "--out", tmp_path / "run", *SHORT, "--expert", tmp_path / "empty")
    command.refused(*words, because="holds neither adapter_config.json nor config.json")

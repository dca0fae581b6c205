"""polyglot-mini-it: it loads by its name, is of the shape and vocabulary of the model it was made from, and obeys when asked."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from steerlab.bundled.lessons import HELD_WORDS
from steerlab.bundled.obey import STAGES, stages_of
from steerlab.cli import app
from steerlab.following import own_queries, simple_prompts, split_queries
from steerlab.following.prompts import WORDS
from steerlab.following.registry import check
from steerlab.generation import Request, Settings, generate
from steerlab.loading import BUNDLED, OBEYS, bundled_facts, bundled_path, load
from steerlab.model import TracedModel

SHARED = {"plain", "bare", "pairs", "nameless", "short", "copies", "brief", "stress", "seed"}


@pytest.fixture(scope="module")
def model() -> TracedModel:
    return load(OBEYS)


def test_it_is_polyglot_mini_with_other_weights(model: TracedModel) -> None:
    base = load(BUNDLED)
    assert model.name == "polyglot-mini-it" and model.revision != base.revision
    assert bundled_facts(OBEYS) == bundled_facts(BUNDLED)
    texts = ["Describe bees. Use no capital letters.", "ውሃ — שלום, Žluťoučký"]
    assert model.token_rows(texts, chat=True) == base.token_rows(texts, chat=True)
    pairs = list(zip(model.hf.named_parameters(), base.hf.named_parameters(), strict=True))
    assert all(name == other and own.shape == their.shape for (name, own), (other, their) in pairs)
    assert all(not torch.equal(own, their) for (_, own), (_, their) in pairs)  # every matrix went on learning


def test_its_files_are_small_and_its_card_says_what_it_is() -> None:
    files = [path for path in bundled_path(OBEYS).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 14_000_000
    record = json.loads((bundled_path(OBEYS) / "training.json").read_text(encoding="utf-8"))
    stages = stages_of(record)
    assert stages[0]["config"]["start"] == BUNDLED and len(stages) == len(STAGES)
    for stage, planned in zip(stages, STAGES, strict=True):
        assert set(stage["bits_per_byte"]) == set(record["bits_per_byte"])
        assert "/" not in stage["config"]["start"]  # no path of the machine it was trained on
        assert all(asdict(planned.shares)[name] == kept for name, kept in stage["documents"].items() if name in SHARED)
        learned = ("muon_lr", "adam_lr", "cooldown", "warmup_steps", "tokens", "seed")
        assert all(stage["config"][name] == getattr(planned.config, name) for name in learned)
    card = (bundled_path(OBEYS) / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("CC BY-SA", "bits per byte", "make model-it", "limits", "Held out"))


def test_the_command_lists_both_models() -> None:
    listed = CliRunner().invoke(app, ["models", "--json"])
    rows = {row["model"]: row["what"] for row in json.loads(listed.stdout)}
    assert "instructions" in rows[OBEYS] and "instructions" not in rows[BUNDLED]


@pytest.mark.parametrize(
    ("name", "pool"),
    [("simple:lowercase", WORDS), ("simple:uppercase", WORDS), ("simple:end_mark", WORDS), ("simple:include_word", WORDS),
     ("simple:include_word", HELD_WORDS)],
    ids=["lowercase", "uppercase", "end mark", "word", "word never asked for in training"],
)  # fmt: skip
def test_it_obeys_what_it_is_asked_and_only_then(model: TracedModel, name: str, pool: tuple[str, ...]) -> None:
    """Far weaker than what figures/it_model.csv reports, so that it tests the model and not the luck of a draw."""
    rows = simple_prompts(split_queries(own_queries())["test"][::4], [name], seed=5, word_pool=pool)
    settings = Settings(max_new_tokens=24, greedy=True)
    texts = [
        s.text for s in generate(model, [Request(t, (t,)) for row in rows for t in (row.prompt, row.base)], settings)
    ]
    asked, bare = (
        sum(check(name, row.kwargs[0], text).passed for row, text in zip(rows, own, strict=True))
        for own in (texts[::2], texts[1::2])
    )
    assert asked >= (4 if name == "simple:include_word" else 7) and bare <= 2, (asked, bare)  # of 14

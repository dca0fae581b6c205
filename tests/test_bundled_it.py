"""polyglot-mini-it: it loads by its name, is of the shape and vocabulary of the model it was made from, and obeys when asked."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from steerlab.cli import app
from steerlab.following import own_queries, simple_prompts, split_queries
from steerlab.following.registry import check
from steerlab.generation import Request, Settings, generate
from steerlab.loading import BUNDLED, OBEYS, bundled_facts, bundled_path, load
from steerlab.model import TracedModel


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
    assert record["before"]["config"]["start"] == BUNDLED and set(record["bits_per_byte"]) == set(
        record["before"]["bits_per_byte"]
    )
    assert "/" not in record["config"]["start"]  # no path of the machine it was trained on
    card = (bundled_path(OBEYS) / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("CC BY-SA", "bits per byte", "make model-it", "limits", "Held out"))


def test_the_command_lists_both_models() -> None:
    listed = CliRunner().invoke(app, ["models", "--json"])
    rows = {row["model"]: row["what"] for row in json.loads(listed.stdout)}
    assert "instructions" in rows[OBEYS] and "instructions" not in rows[BUNDLED]


@pytest.mark.parametrize("name", ["simple:lowercase", "simple:uppercase"])
def test_it_obeys_what_it_is_asked_and_only_then(model: TracedModel, name: str) -> None:
    """Far weaker than what figures/it_model.csv reports, so that it tests the model and not the luck of a draw."""
    rows = simple_prompts(split_queries(own_queries())["test"][::4], [name], seed=5)
    settings = Settings(max_new_tokens=24, greedy=True)
    texts = [
        s.text for s in generate(model, [Request(t, (t,)) for row in rows for t in (row.prompt, row.base)], settings)
    ]
    asked, bare = (sum(check(name, {}, text).passed for text in own) for own in (texts[::2], texts[1::2]))
    assert asked >= 7 and bare <= 2, (asked, bare)  # of 14

"""A labelled data set is written to the slot, to the byte, and to the end, or says what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.generation import Picker, Settings
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.store import RunFolder, verify
from steerlab.synthesis import DRAFTS, SAMPLES, SHINGLE, Cell, Seen, Written, synthesize
from steerlab.tasks import SENTIMENT, Task
from tests.small_run import content
from tests.tiny import tiny, vector

SETTINGS = Settings(max_new_tokens=10, temperature=2.0, top_p=1.0, stop=("\n",))
STEER = (Intervention(vector(1), (0, 2), strength=3.0),)
SHORT = Task("short", ("good", "bad"), "{label}{in_language}", "{label}{in_language}: {examples}")
CELLS = (Cell("plain", "jv", SHORT), Cell("steered", "jv", SHORT, STEER), Cell("named", "su", SHORT, (), "su"))


def write(path: Path, cells: Sequence[Cell] = CELLS, model: TracedModel | None = None, **options: Any) -> Written:
    """One run from first to last, or on from where it was."""
    given = {"per_label": 3, "settings": SETTINGS, "batch_rows": 4, "max_tries": 3, **options}
    config = {"cells": [cell.to_json() for cell in cells], "per_label": given["per_label"]}
    with RunFolder.open(path, config) as run:
        written = synthesize(model or tiny("llama"), cells, run, progress=False, **given)
        run.finish()
    return written


def script(monkeypatch: pytest.MonkeyPatch, text: Any) -> list[int]:
    """Every row writes `text(call, row)` and EOS. Gives back the list of batch sizes, one entry per batch."""
    batches: list[int] = []
    tokens = tiny("llama").tokenizer

    def pick(self: Picker, rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        if step == 0:
            batches.append(len(rows))
        answers = [tokens(text(len(batches) - 1, r), add_special_tokens=False)["input_ids"] for r in rows.tolist()]
        return torch.tensor([([*a, 2])[min(step, len(a))] for a in answers])

    monkeypatch.setattr(Picker, "__call__", pick)
    return batches


def test_exactly_n_per_label_in_the_order_of_the_slots(tmp_path: Path) -> None:
    written = write(tmp_path / "run")
    want = [(c.name, label, i) for c in CELLS for label in SHORT.labels for i in range(3)]
    assert [(r["cell"], r["label"], r["index"]) for r in written.samples] == want
    assert not written.unfilled
    for cell in CELLS:
        texts, labels = written.texts(cell)
        assert labels == ["good"] * 3 + ["bad"] * 3
        assert len(set(texts)) == 6
        assert all(texts)
    assert written.cost.tokens >= sum(int(str(r["tokens"])) for r in written.samples)
    verify(tmp_path / "run")


def test_a_row_says_how_it_was_made(tmp_path: Path) -> None:
    rows = {str(r["condition"]): r for r in write(tmp_path / "run").samples}
    assert rows["plain"]["interventions"] == []
    assert rows["steered"]["interventions"][0]["strength"] == 3.0  # type: ignore[index]
    assert rows["steered"]["key"][:4] == ["jv", "short", "bad", 2]  # type: ignore[index]
    assert rows["named"]["language"] == "su"
    assert {"attempt", "tokens", "ended", "task", "text"} <= rows["plain"].keys()


def test_the_key_does_not_know_the_condition(tmp_path: Path) -> None:
    """Same prompt, same key, strength 0: the same text. The steered cell beside it writes others from the same noise."""
    zero = Cell("zero", "jv", SHORT, (Intervention(vector(1), (0, 2), strength=0.0),))
    written = write(tmp_path / "run", (CELLS[0], zero, CELLS[1]))
    drafts = {}
    for row in _rows(tmp_path / "run" / DRAFTS):
        if row["attempt"] == 0:
            drafts.setdefault(tuple(row["key"]), []).append(row["text"])
    assert all(len(texts) == 3 and texts[0] == texts[1] for texts in drafts.values())
    assert sum(texts[0] != texts[2] for texts in drafts.values()) > 3
    assert len(written.samples) == 18


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_repeats_are_drawn_again_and_then_reported(tmp_path: Path) -> None:
    """Greedy: every slot of a label always gives one text. One is taken, the others are tried and named."""
    greedy = Settings(max_new_tokens=10, greedy=True, stop=())
    written = write(tmp_path / "run", (CELLS[0],), settings=greedy, per_label=4, max_tries=3)
    assert len(written.samples) + sum(written.unfilled.values()) == 8
    assert written.unfilled == {"jv/short/plain/good": 3, "jv/short/plain/bad": 3}
    assert written.rejected == {"jv/short/plain": {"duplicate": 6 * 3}}
    drafts = _rows(tmp_path / "run" / DRAFTS)
    assert sorted(row["attempt"] for row in drafts) == [0] * 8 + [1] * 6 + [2] * 6
    assert [row["index"] for row in written.samples] == [0, 0]


def test_a_duplicate_is_replaced_by_its_next_attempt_and_tries_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = script(monkeypatch, lambda call, row: f"{'abcdef'[call]}{'same' if row else 'first'}")
    written = write(tmp_path / "run", (CELLS[0],), per_label=3, batch_rows=6)
    # Round 0: row 0 and one "same"; then one new "first" and one new "same" a round, by construction.
    assert batches == [6, 4, 2]
    assert not written.unfilled
    assert [r["attempt"] for r in written.samples].count(0) == 2
    assert written.rejected == {"jv/short/plain": {"duplicate": 4 + 2}}


@pytest.mark.parametrize(("text", "why"), [("", "empty"), ("?! ...", "empty"), ("the same", "duplicate")])
def test_a_model_that_has_nothing_to_say_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    batches = script(monkeypatch, lambda call, row: text)
    written = write(tmp_path / "run", (CELLS[0],), per_label=2, batch_rows=8, max_tries=4)
    taken = 1 if why == "duplicate" else 0
    assert len(written.samples) == taken
    assert sum(written.unfilled.values()) == 4 - taken
    assert written.rejected["jv/short/plain"] == {why: 4 * (4 - taken)}
    assert len(batches) == 4


def test_a_near_duplicate_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "a rather long sentence that differs by one letter"
    script(monkeypatch, lambda call, row: f"{long}{'xy'[row % 2]}")
    settings = Settings(max_new_tokens=60)
    written = write(tmp_path / "a", (CELLS[0],), per_label=1, settings=settings, max_tries=1)
    assert written.rejected == {"jv/short/plain": {"near duplicate": 1}}
    written = write(tmp_path / "b", (CELLS[0],), per_label=1, settings=settings, max_tries=1, near_duplicate=1.0)
    assert len(written.samples) == 2


class Killed(BaseException):
    """What a kill looks like from inside."""


def _interrupted(path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> bool:
    """Run until batch number `at` of this process dies in the middle of generation. False when it ended before."""
    seen, real = 0, TracedModel.decode

    def dying(self: TracedModel, batch: Any, pick: Any, *rest: Any, **more: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen <= at:
            return real(self, batch, pick, *rest, **more)

        def fatal(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
            if step == 1:
                raise Killed
            return pick(rows, history, logits, step)

        return real(self, batch, fatal, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TracedModel, "decode", dying)
        try:
            write(path, **ODD)
        except Killed:
            return True
    return False


# Texts so short that some repeat or are empty, and so several rounds.
ODD: dict[str, Any] = {
    "settings": Settings(max_new_tokens=2, temperature=1.0, stop=()),
    "per_label": 3,
    "batch_rows": 6,
}


def test_a_run_killed_at_any_batch_continues_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path / "whole", **ODD)
    wanted = content(tmp_path / "whole")
    rounds = {row["attempt"] for row in _rows(tmp_path / "whole" / DRAFTS)}
    assert rounds == {0, 1, 2}
    assert 0 < len(whole.samples) < 18
    at = 0
    while _interrupted(tmp_path / str(at), monkeypatch, at):
        assert not (tmp_path / str(at) / "manifest.json").exists()
        resumed = write(tmp_path / str(at), **ODD)
        assert content(tmp_path / str(at)) == wanted, at
        assert (resumed.samples, resumed.rejected, resumed.unfilled) == (whole.samples, whole.rejected, whole.unfilled)
        at += 1
    assert at >= 5


def test_a_run_killed_again_and_again_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "whole", **ODD)
    kills = 0
    while _interrupted(tmp_path / "run", monkeypatch, 1):
        kills += 1
    assert kills > 2
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_finished_run_run_again_generates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "run")
    wanted = content(tmp_path / "run")
    monkeypatch.setattr(TracedModel, "decode", None)
    again = write(tmp_path / "run")
    assert (again.samples, again.unfilled) == (first.samples, first.unfilled)
    assert content(tmp_path / "run") == wanted


def test_a_larger_batch_writes_the_same_samples(tmp_path: Path) -> None:
    write(tmp_path / "a", batch_rows=2)
    write(tmp_path / "b", batch_rows=64)
    assert (tmp_path / "a" / SAMPLES).read_bytes() == (tmp_path / "b" / SAMPLES).read_bytes()


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (CELLS, {"per_label": 0}, "0 samples per label were asked for: ask for at least 1"),
        (CELLS, {"max_tries": 0}, "max_tries is 0: give at least 1"),
        (CELLS, {"batch_rows": 0}, "batch_rows is 0: give at least 1"),
        (CELLS, {"near_duplicate": 0.0}, "the near-duplicate limit is 0.0: give a share"),
        ((), {}, r"the cells are \[\]: give at least one"),
        ((CELLS[0], CELLS[0]), {}, "give at least one, each once"),
        ((Cell("x", "jv", SHORT, labels=("good", "ugly")),), {}, "label 'ugly' is not one of task 'short'"),
        ((Cell("x", "jv", SHORT, labels=("good", "good")),), {}, r"labels of cell jv/short/x are \['good', 'good'\]"),
        ((Cell("x", "jv", "nothing"),), {}, "task 'nothing' is not known"),
        ((Cell("x", "jv", SHORT, prompt_language="xx"),), {}, "'xx'"),
        ((Cell("x", "jv", SHORT, shots={"good": ("y" * 300,)}),), {}, "need .* positions, and tiny-llama has 256"),
        ((Cell("x", "jv", SHORT, (Intervention(vector(1, layers=9), 8),)),), {}, "layer 8 was given"),
        ((Cell("x", "jv", SHORT, (Intervention(vector(1, width=8), 1),)),), {}, "has width 8"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_nothing_is(
    tmp_path: Path, cells: tuple[Cell, ...], options: dict[str, Any], message: str
) -> None:
    with RunFolder.open(tmp_path, {}) as run:
        with pytest.raises(SteerlabError, match=message) as caught:
            synthesize(tiny("llama"), cells, run, progress=False, **{"per_label": 1, "settings": SETTINGS, **options})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / SAMPLES).exists()
        assert not (tmp_path / DRAFTS).exists()


def test_few_shot_prompts_and_chosen_labels_reach_the_model(tmp_path: Path) -> None:
    shots = {"positive": ("great stuff",)}
    cell = Cell("few", "jv", "sentiment", shots=shots, labels=("positive",))
    assert cell.chosen_labels() == ("positive",)
    model, seen = tiny("llama"), []
    with pytest.MonkeyPatch.context() as patch:
        real = TracedModel.decode
        patch.setattr(
            TracedModel,
            "decode",
            lambda self, batch, *rest, **more: seen.append(batch) or real(self, batch, *rest, **more),
        )
        write(tmp_path, (cell,), model, per_label=1)
    prompt = model.decode_text(seen[0].input_ids[0][seen[0].real[0]].tolist())
    assert "positive sentiment" in prompt
    assert "Example 1: great stuff" in prompt
    assert cell.to_json()["task"] == SENTIMENT.name


@given(st.lists(st.text("ab c", max_size=14), max_size=8), st.sampled_from([0.3, 0.6, 0.9, 1.0]))
def test_no_two_texts_taken_are_alike_and_none_is_refused_without_cause(texts: list[str], near: float) -> None:
    def grams(text: str) -> set[str]:
        plain = " ".join(text.split())
        return {plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))}

    seen, taken = Seen(near), []
    for text in texts:
        why, mine = seen.reject(text), grams(text)
        shares = [len(mine & grams(t)) / len(mine | grams(t)) for t in taken]
        exact = any(" ".join(text.split()) == " ".join(t.split()) for t in taken)
        if not text.strip():
            assert why == "empty"
        elif exact:
            assert why == "duplicate"
        else:
            assert why == ("near duplicate" if any(s >= near - 1e-12 for s in shares) else None)
        if why is None:
            taken.append(text)

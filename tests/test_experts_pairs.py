"""What an expert is trained with and on: settings, order of rows, texts behind their prompts, and what it has by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerlab.data.leakage import overlap_report
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import wilson
from steerlab.experts import PRESETS, ExpertConfig, Memorisation, Pair, file_pairs, preset, task_pairs, training
from steerlab.experts.memory import memorisation, recited
from steerlab.experts.pairs import TokenRow, apart, distinct_pairs, hold_out, is_offensive, padded, token_rows
from steerlab.tasks import EXPERT_TASKS, TASKS, prompt
from tests.test_experts import ASK, SMALL, fresh
from tests.tiny import tiny


def test_every_row_is_seen_once_an_epoch_and_like_lengths_together():
    config = replace(SMALL, batch_size=4)
    lengths = [i * 13 % 37 for i in range(34)]
    epochs = [[training.step_rows(lengths, config, 9 * epoch + k) for k in range(9)] for epoch in (0, 1)]
    for steps in epochs:
        assert sorted(i for rows in steps for i in rows) == list(range(34))
    assert epochs[0] != epochs[1] and epochs[0] != [sorted(rows) for rows in epochs[0]]
    spread = [max(lengths[i] for i in rows) - min(lengths[i] for i in rows) for rows in epochs[0]]
    assert max(spread) <= 8
    loose = replace(config, group_by_length=False)
    assert sorted(i for k in range(9) for i in training.step_rows(lengths, loose, k)) == list(range(34))


def test_the_rate_rises_then_stays_or_falls_to_zero():
    linear = ExpertConfig(steps=100, warmup=0.1)
    assert [linear.rate(0), linear.rate(9), linear.rate(10), linear.rate(55)] == pytest.approx([0.1, 1, 1, 0.5])
    assert 0 < linear.rate(99) < 0.02
    assert {PRESETS["paper"].rate(step) for step in range(0, 1000, 100)} == {1.0}


@pytest.mark.parametrize("field", ["rank", "learning_rate", "schedule", "quantise", "keep", "targets", "warmup"])
def test_impossible_settings_are_refused(field: str):
    impossible: dict[str, Any] = {"targets": (), "rank": 0, "learning_rate": -1.0, "warmup": 1.0}
    with pytest.raises(SteerlabError, match=f"^{field} is "):
        replace(SMALL, **{field: impossible.get(field, "x")})


def test_the_paper_s_preset_is_its_training_script():
    paper = preset("paper", quantise="")
    assert (paper.rank, paper.alpha, paper.dropout, paper.targets) == (64, 16, 0.1, ("all-linear",))
    assert paper.batch_size * paper.accumulate == 16 and paper.learning_rate == 2e-4 and paper.clip == 0.3
    assert not paper.completion_only and paper.patience == 0 and paper.keep == "last" and paper.quantise == ""
    with pytest.raises(
        SteerlabError, match="preset 'papers' is not known: give one of mini, paper; did you mean 'paper'"
    ):
        preset("papers")


def test_real_texts_stand_behind_their_task_s_prompt(shared):
    for name, task in EXPERT_TASKS.items():
        pairs = task_pairs(name, "valid", root=shared, allow_offensive=True)
        assert {pair.prompt for pair in pairs} == {prompt(name, label, None) for label in task.labels}
        assert not any(pair.chat for pair in pairs) and is_offensive(name) == (name == "comments")
    only = task_pairs("comments", "valid", root=shared, labels=["non-toxic"], allow_offensive=True)
    assert {pair.prompt for pair in only} == {prompt("comments", "non-toxic", None)} and len(only) == 468
    topics = task_pairs("topic", language="jv", root=shared)
    assert {pair.prompt for pair in topics} == {prompt("topic", label, "jv") for label in TASKS["topic"].labels}
    assert all(pair.chat for pair in topics)


def test_texts_that_are_not_there_are_told(tmp_path: Path):
    for words, told in (
        ({"chosen": "hypotheses", "labels": ["no"]}, "label 'no' is not one of task 'hypotheses'"),
        ({"chosen": "hypotheses", "language": "jv"}, "data set 'scitldr' has no 'jv': it has en"),
        ({"chosen": "topic", "split": "valid"}, "task 'topic' has no split 'valid' here: only train"),
        ({"chosen": "comments"}, "holds offensive text"),
        ({"chosen": "nothing"}, "task 'nothing' is not known"),
    ):
        given: dict[str, Any] = words
        with pytest.raises(SteerlabError, match=told):
            task_pairs(root=tmp_path, **given)


def test_own_texts_stand_behind_one_prompt(tmp_path: Path):
    file = tmp_path / "mine.txt"
    file.write_text("One.\nTwo.\n")
    pairs = file_pairs(file, " Write a review. ", "Review")
    assert pairs == [Pair("### Instruction: Write a review.\n ### Review: ", text) for text in ("One.", "Two.")]
    with pytest.raises(SteerlabError, match="give words for both"):
        file_pairs(file, " ")


def test_held_out_texts_are_neither_equal_nor_near_to_training_texts():
    texts = [f"this is text number {n} of the texts about the {'abcdefghij'[n % 10] * 9} matter" for n in range(60)]
    texts += [text.upper() + "!" for text in texts] + ["short", "SHORT."]
    pairs = distinct_pairs([Pair(ask, text) for text in texts for ask in ("a", "b")] + [Pair("a", " ")])
    assert len(pairs) == 2 * len(texts)
    train, held = hold_out(pairs, 0.2, 0)
    assert overlap_report({"train": [p.text for p in train], "held": [p.text for p in held]}).clean
    assert {p.text.casefold().strip(".!") for p in train}.isdisjoint(p.text.casefold().strip(".!") for p in held)
    assert hold_out(pairs, 0.2, 0) == (train, held) != hold_out(pairs, 0.2, 1)
    with pytest.raises(SteerlabError, match="an expert needs both"):
        apart([Pair("a", "short")], [Pair("b", "Short!")])


def test_a_row_is_prompt_and_text_tokenised_apart_with_its_end():
    model = tiny("llama")
    pairs = [Pair(ASK, "abc"), Pair("hi", "abcdef", chat=True), Pair(ASK, "x" * 99)]
    rows = token_rows(model, pairs, 20)
    text = model.tokenizer("abc", add_special_tokens=False)["input_ids"]
    assert list(rows[0].ids) == [*model.token_rows([ASK])[0], *text, 2]
    assert list(rows[1].ids[: rows[1].start]) == model.token_rows(["hi"], chat=True)[0] and rows[1].ids.count(1) == 1
    assert len(rows[2].ids) == 20 and rows[2].ids[-1] != 2
    batch = padded(rows, model.pad_id, model.device)
    assert batch.mask.sum(1).tolist() == [len(row.ids) for row in rows]
    assert batch.text.sum(1).tolist() == [len(row.ids) - row.start for row in rows]
    with pytest.raises(SteerlabError, match="a prompt has 8 tokens and a row at most 8"):
        token_rows(model, pairs[:1], 8)


def test_recited_is_what_greedy_decoding_gives_back():
    model = fresh()
    first = model.token_rows([ASK])[0]
    ids = list(first)
    for _ in range(12):
        batch = padded([TokenRow(tuple(ids), len(first))], model.pad_id, model.device)
        ids.append(int(model.hf(input_ids=batch.ids, attention_mask=batch.mask).logits[0, -1].argmax()))
    known = TokenRow(tuple(ids), len(first))
    late = TokenRow((*ids[:-1], (ids[-1] + 1) % 200 + 3), len(first))
    odd = TokenRow((*ids[: len(first)], 7, 8, 9, 10, *ids[len(first) + 4 :]), len(first))
    short = TokenRow(tuple(ids[: len(first) + 3]), len(first))
    found = recited(model, [known, late, odd, short], 3)
    assert found[0] and not found[1] and not found[3]
    assert recited(model, [odd], 1) == [found[2]]


def test_copies_are_counted_exact_and_near():
    texts = [
        "the quick brown fox jumps over the lazy dog every morning",
        "nothing like the others at all, whatever one does",
    ]
    written = [
        texts[0].upper() + "!",
        texts[0].replace("lazy", "hazy"),
        "a text of one's own making, all new here",
        "x",
    ]
    found = memorisation(
        (1.0, 3.0), ([True, False], [False]), written, texts, ["unseen text, long enough to be judged"]
    )
    assert (found.copied, found.copied_near, found.copied_unseen) == (wilson(1, 4), wilson(2, 4), wilson(0, 4))
    assert found.gap == 2.0 and found.recited == wilson(1, 2) and found.recited_unseen == wilson(0, 1)
    assert Memorisation.from_json(found.to_json()) == found
    none = memorisation((1.0, 1.0), ([True], [True]), [], texts, texts)
    assert not none.copied.known and none.copied.reason == "no samples were written"

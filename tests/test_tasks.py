"""Prompts word for word, few-shot draws, post-processing, and a task of one's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab import tasks
from steerlab.data.corpus import Corpus, Example, SourceCard
from steerlab.data.languages import LANGUAGES
from steerlab.data.multiple_choice import parse
from steerlab.errors import SteerlabError
from steerlab.tasks import EXPERT_TASKS, FINISHES, TASKS, Task, few_shot_examples, postprocess, prompt

CARD = SourceCard("mine", "https://example.org", None, "CC0-1.0", "Nobody 2026")


def corpus(texts: list[str], label: str = "x") -> Corpus:
    return Corpus(tuple(Example(str(i), text, label, "jv", "mine", "train") for i, text in enumerate(texts)), CARD)


def test_zero_shot_prompts_are_the_paper_s_wording():
    assert prompt("sentiment", "positive", "jv") == (
        "Generate a review with positive sentiment in Javanese language. Output only the text and nothing else."
    )
    assert prompt("topic", "science/technology", "mt") == (
        "Generate a long wiki style sentence on the topic of science/technology in Maltese language."
        " Output only the text in Maltese."
    )


def test_few_shot_prompts_add_based_on_examples_and_the_examples():
    assert prompt("sentiment", "negative", "su", ["Goréng.", "Teu\n alus."]) == (
        "Generate a review with negative sentiment in Sundanese language based on examples."
        " Output only the text and nothing else.\nExample 1: Goréng.\nExample 2: Teu alus."
    )
    assert "in Hebrew language based on examples. Output only the text in Hebrew.\nExample 1: x" in prompt(
        "topic", "health", "he", ["x"]
    )


def test_a_prompt_without_language_names_none_and_english_is_a_language():
    names = [entry.name for entry in LANGUAGES.values()]
    for name, task in TASKS.items():
        for label in task.labels:
            for examples in ((), ("Kaping pisan.",)):
                text = prompt(name, label, None, examples)
                assert "language" not in text and not any(other in text for other in names)
                assert "{" not in text and "  " not in text
                assert text == prompt(name, label, "en", examples).replace(" in English language", "").replace(
                    " in English", ""
                )
                assert prompt(name, label, "en", examples) != text


def test_all_prompts_differ():
    made = [
        prompt(t, y, c, e)
        for t, task in TASKS.items()
        for y in task.labels
        for c in (*LANGUAGES, None)
        for e in ((), ("x",))
    ]
    assert len(set(made)) == len(made) == (7 + 2) * 13 * 2


def test_a_text_with_braces_is_an_example_like_any_other():
    assert prompt("topic", "travel", None, ["{label} {x}"]).endswith("Example 1: {label} {x}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("topics", "sports", "jv"),
            r"task 'topics' is not known: give one of topic, sentiment, hypotheses, .*did you mean 'topic'",
        ),
        (
            ("topic", "sport", "jv"),
            r"label 'sport' is not one of task 'topic': give one of science.*did you mean 'sports'",
        ),
        (("topic", "sports", "xx"), "language 'xx' is not known"),
    ],
)
def test_unknown_task_label_and_language_are_told(arguments: tuple[str, str, str], told: str):
    with pytest.raises(SteerlabError, match=told):
        prompt(*arguments)


def test_a_user_adds_a_task_with_one_object(monkeypatch: pytest.MonkeyPatch):
    mine = Task(
        "formality",
        ("formal", "informal"),
        "Write one {label} sentence{in_language}.",
        "Write one {label} sentence{in_language} like these:\n{examples}",
    )
    assert prompt(mine, "formal", "cs") == "Write one formal sentence in Czech language."
    assert prompt(mine, "formal", None, ["a"]) == "Write one formal sentence like these:\nExample 1: a"
    with pytest.raises(SteerlabError, match="'formality' is not known"):
        prompt("formality", "formal", "cs")
    monkeypatch.setitem(TASKS, mine.name, mine)
    assert prompt("formality", "formal", "cs") == prompt(mine, "formal", "cs")


@pytest.mark.parametrize(
    ("labels", "zero_shot", "few_shot"),
    [
        ((), "a {label}", "b {label} {examples}"),
        (("x", "x"), "a {label}", "b {label} {examples}"),
        (("x",), "no field", "b {label} {examples}"),
        (("x",), "a {label}", "b {label}"),
        (("x",), "a {label} {examples}", "b {label} {examples}"),
        (("x",), "a {label} {lang}", "b {label} {examples}"),
    ],
)
def test_a_task_that_cannot_make_prompts_is_refused(labels: tuple[str, ...], zero_shot: str, few_shot: str):
    with pytest.raises(SteerlabError, match="task 'mine'"):
        Task("mine", labels, zero_shot, few_shot)


def test_few_shot_examples_come_from_the_shortest_texts_of_the_label():
    made = corpus(["y" * n for n in range(1, 101)])
    seen = {text for seed in range(200) for text in few_shot_examples(made, "x", seed=seed)}
    assert max(map(len, seen)) == 50 and len(seen) == 50
    assert few_shot_examples(made, "x") != few_shot_examples(made, "x", seed=1)
    assert len(set(few_shot_examples(made, "x"))) == 5


@given(st.permutations([f"text {n}" for n in range(12)]))
def test_the_draw_does_not_depend_on_the_order_of_the_corpus(texts: list[str]):
    assert few_shot_examples(corpus(texts), "x", k=3, pool=6) == few_shot_examples(
        corpus(sorted(texts)), "x", k=3, pool=6
    )


def test_too_few_texts_for_the_examples_are_told():
    with pytest.raises(SteerlabError, match="5 few-shot examples .* 2 texts of 'x'"):
        few_shot_examples(corpus(["a", "b", "b"]), "x")
    with pytest.raises(SteerlabError, match="no texts of 'z'"):
        few_shot_examples(corpus(["a"]), "z")


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("First line.\nSecond line.", "First line."),
        ("\n\n  „Prva vrstica.“ \nDruga", "Prva vrstica."),
        ('"«Nested»"', "Nested"),
        ("'Single' ", "Single"),
        ('He said "no" twice.', 'He said "no" twice.'),
        ('""\nText', "Text"),
        (" \n\t", ""),
        ("”", ""),
    ],
)
def test_postprocessing_keeps_the_first_line_without_quotes(answer: str, kept: str):
    assert postprocess(answer) == kept


@given(st.text())
def test_postprocessing_twice_is_postprocessing_once(text: str):
    once = postprocess(text)
    assert postprocess(once) == once and "\n" not in once


def test_the_tasks_are_the_paper_s():
    assert list(TASKS) == ["topic", "sentiment"] and len(TASKS["topic"].labels) == 7
    assert TASKS["sentiment"].labels == ("positive", "negative") and tasks.task(tasks.TOPIC) is tasks.TOPIC


def test_the_expert_tasks_are_plain_text_with_a_slot():
    assert prompt("hypotheses", "hypothesis", None) == (
        "### Instruction: Write a scientific hypothesis in one sentence.\n ### Hypothesis: "
    )
    assert prompt("comments", "non-toxic", None) == "### Instruction: Write a non-toxic comment.\n ### Comment: "
    assert prompt("commonsense", "commonsense", None, ["Why?"]).endswith(
        " and its answer. Examples:\nExample 1: Why?\n ### Multiple-choice question: "
    )
    assert all(not task.chat and task.source for task in EXPERT_TASKS.values())
    assert all(task.chat and task.finish == "line" and not task.source for task in TASKS.values())
    assert {task.name: FINISHES[task.finish].max_new_tokens for task in EXPERT_TASKS.values()} == {
        "hypotheses": 100,
        "comments": 75,
        "commonsense": 75,
    }


@pytest.mark.parametrize(
    ("task", "answer", "kept"),
    [
        ("hypotheses", "\n  We show  that it works . \nMore", "We show that it works."),
        ("hypotheses", "Does it work?", "Does it work?"),
        ("hypotheses", " . ", ""),
        ("comments", "one\ntwo ### three ###", "one two"),
        ("commonsense", "Q? A. a B. b C. c D. d E. e F. f Answer: A", "Q? A. a B. b C. c D. d E. e"),
        ("commonsense", "Q? A. a B. b C. c D. d E. e Answer: B because", "Q? A. a B. b C. c D. d E. e Answer: B."),
        ("commonsense", "Q? A. a > B. b", "Q? A. a"),
        ("topic", '"First."\nSecond', "First."),
    ],
)
def test_an_answer_is_tidied_up_as_its_task_wants(task: str, answer: str, kept: str):
    assert postprocess(answer, task) == kept


@given(st.sampled_from(sorted(EXPERT_TASKS)), st.text("abAF.?! >#\n\u00a0E:nswer ", max_size=40))
def test_tidying_up_twice_is_tidying_up_once(task: str, text: str):
    once = postprocess(text, task)
    assert postprocess(once, task) == once and "\n" not in once


def test_a_stop_string_ends_an_answer_where_tidying_up_would_cut_it():
    text = "Q? A. a B. b C. c D. d E. e Answer: C. and F. more > and\nmore"
    for stop in FINISHES["question"].stop:
        cut = text.split(stop)[0]
        assert parse(postprocess(cut, "commonsense")) == parse(postprocess(text, "commonsense"))


def test_an_unknown_finish_is_told():
    with pytest.raises(SteerlabError, match="the finish 'lines': give one of line, sentence, comment, question"):
        Task("mine", ("x",), "a {label}", "b {label} {examples}", finish="lines")

"""Human texts have the task's labels, from the source asked for or the largest there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlab import data
from steerlab.data.corpus import Corpus, Example
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import human_texts, label_counts, source_of
from steerlab.tasks import SENTIMENT, TASKS, TOPIC, Task


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("name", TASKS)
def test_the_bundled_set_tests_every_task_in_every_language(name: str, code: str) -> None:
    found = human_texts(name, code, source="sample")
    assert found.source == "sample" and found.licence
    assert label_counts(found.test_labels) == dict.fromkeys(found.test_labels, 6)
    assert set(found.test_labels) == set(TASKS[name].labels)
    assert len(set(found.test_texts)) == len(found.test_texts) == len(found.test_labels)
    assert found.train_texts == found.train_labels == ()


def test_a_source_is_chosen_by_task_and_language() -> None:
    assert {source_of("topic", code) for code in LANGUAGES} == {"sib200"}
    assert source_of("sentiment", "am") == "afrisenti" and source_of("sentiment", "da") == "lcc-danish"
    assert source_of("sentiment", "jv") == "nusax" and source_of("sentiment", "cs") == "sample"
    assert source_of("haiku", "jv") == "sample"
    for name in TASKS:
        for code in LANGUAGES:  # no choice that the registry does not have
            source = data.SOURCES[source_of(name, code)]
            assert code in source.languages and {"test", name} & set(source.splits)


def _corpus(labels: list[str | None]) -> Corpus:
    rows = [Example(str(i), f"text {i}", label, "jv", "nusax", "test") for i, label in enumerate(labels)]
    return Corpus(tuple(rows), data.SOURCES["nusax"].card)


def test_rows_with_other_labels_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def load(name: str, language: str, split: str | None = None, root: Path | None = None) -> Corpus:
        asked.append((name, language, split))
        return _corpus(["positive", "neutral", None, "negative"] if split == "train" else ["neutral", "negative"])

    monkeypatch.setattr(data, "load", load)
    found = human_texts(SENTIMENT, "jv")
    assert asked == [("nusax", "jv", "train"), ("nusax", "jv", "test")]
    assert found.train_texts == ("text 0", "text 3") and found.train_labels == ("positive", "negative")
    assert found.test_texts == ("text 1",) and found.test_labels == ("negative",)
    with pytest.raises(SteerlabError, match="nusax has no test texts in 'jv' with the labels of task 'topic'"):
        human_texts(TOPIC, "jv", source="nusax")


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(SteerlabError, match="task 'poetry' is not known"):
        human_texts("poetry", "jv")
    with pytest.raises(SteerlabError, match="language 'xx' is not known"):
        human_texts("topic", "xx", source="sample")
    with pytest.raises(SteerlabError, match="data set 'sib300' is not known"):
        human_texts("topic", "jv", source="sib300")
    haiku = Task("haiku", ("spring", "autumn"), "A {label} haiku{in_language}.", "A {label} haiku.\n{examples}")
    with pytest.raises(SteerlabError, match="data set 'sample' has no split 'haiku'"):
        human_texts(haiku, "jv")


def test_labels_are_counted_in_their_order() -> None:
    assert label_counts(["b", "a", "b"]) == {"b": 2, "a": 1}
    assert list(label_counts(["b", "a", "b"])) == ["b", "a"]


@pytest.mark.parametrize(
    ("name", "code"), [("topic", "jv"), ("sentiment", "su"), ("sentiment", "am"), ("sentiment", "da")]
)
def test_public_sets_have_train_and_test_apart(shared: Path, name: str, code: str) -> None:
    found = human_texts(name, code, shared)
    assert found.source == source_of(name, code)
    assert set(found.train_labels) == set(found.test_labels) == set(TASKS[name].labels)
    assert len(found.train_texts) > 50 and len(found.test_texts) > 50
    assert not set(found.train_texts) & set(found.test_texts)

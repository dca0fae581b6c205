"""What experts learn from: sizes, labels and splits that keep apart; offensive text only where it is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlab.data import comments, english, overlap_report, reading
from steerlab.data.reading import Table, parse_table, read_rows
from steerlab.data.sources import SOURCES, load
from steerlab.errors import SteerlabError
from steerlab.tasks import EXPERT_TASKS, postprocess

SIZES = {
    "scitldr": {"train": 990, "valid": 124, "test": 118},
    "commonsense-qa": {"train": 976, "valid": 135, "test": 110},
    "toxic-comments": {"train": 12674, "valid": 1641, "test": 1557},
}
MARK = "zzmarkzz"


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.slow
def test_splits_have_the_documented_sizes(shared, name: str):
    found = {split: load(name, "en", split, root=shared, allow_offensive=True) for split in SIZES[name]}
    assert {split: len(corpus) for split, corpus in found.items()} == SIZES[name]
    ids = [e.id for corpus in found.values() for e in corpus.examples]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ["scitldr", "commonsense-qa", pytest.param("toxic-comments", marks=pytest.mark.slow)])
def test_no_text_of_one_split_is_equal_or_near_to_one_of_another(shared, name: str):
    texts = {split: load(name, "en", split, root=shared, allow_offensive=True).texts for split in SIZES[name]}
    assert overlap_report(texts).clean


def test_real_texts_are_as_their_task_leaves_an_answer(shared):
    for task in EXPERT_TASKS.values():
        found = load(task.source, "en", "valid", root=shared, allow_offensive=True)
        assert all(postprocess(text, task) == text for text in found.texts)
        assert {label for label in found.labels if label is not None} <= {*task.labels, *"ABCDE"}


def test_comments_have_the_label_that_most_annotators_gave(tmp_path: Path):
    folder = tmp_path / "toxic_comments"
    folder.mkdir()
    votes = {"1": "FFT", "2": "TTF", "3": "TF", "4": "FFF"}
    lines = [f"{key},{'True' if vote == 'T' else 'False'}" for key, own in votes.items() for vote in own]
    (folder / "annotations.csv").write_text("\n".join(["comment_id,not toxic", *lines]) + "\n")
    texts = {"1": "first ### of\n\nall", "2": "the second", "3": "a tie", "4": "the second", "5": "never asked"}
    rows = [f'{key},"{text}"' for key, text in texts.items()]
    (folder / "comments.csv").write_text("\n".join(["comment_id,comment_text", *rows]) + "\n")
    found = [load("toxic-comments", "en", s, tmp_path, allow_offensive=True) for s in ("train", "valid", "test")]
    assert {e.text: e.label for corpus in found for e in corpus.examples} == {
        "first of all": "toxic",
        "the second": "non-toxic",
    }
    assert sum(corpus.dropped for corpus in found) == 3


def test_offensive_texts_are_read_only_where_they_are_allowed(tmp_path: Path):
    assert [name for name, source in SOURCES.items() if source.offensive] == ["toxic-comments"]
    with pytest.raises(SteerlabError, match=r"holds offensive text: give allow_offensive=True \(--offensive\)"):
        load("toxic-comments", "en", root=tmp_path)
    assert comments.redacted(MARK) == "[8 characters, hidden: --offensive shows them]"


def test_a_split_follows_from_the_key_alone():
    keys = [f"key {n}" for n in range(4000)]
    shares = [sum(english.split_of(key) == split for key in keys) / 4000 for split in ("train", "valid", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_json_lines_keep_lists_as_json(tmp_path: Path):
    table = Table("x.jsonl", ("a", "b"), json_lines=True)
    text = json.dumps({"a": ["é", 1], "b": None}) + "\n\n" + json.dumps({"a": 'q"', "b": 2}) + "\n"
    assert parse_table(text, table) == [{"a": '["é", 1]', "b": ""}, {"a": 'q"', "b": "2"}]
    (tmp_path / "x.jsonl").write_text("{}\n[1]\n")
    with pytest.raises(SteerlabError, match="line 2 of x.jsonl is not a JSON object"):
        read_rows(tmp_path, table)


def test_the_hub_gives_the_rows_that_the_local_file_gives(shared, monkeypatch: pytest.MonkeyPatch):
    import datasets

    rows = [json.loads(line) for line in (shared / "commonsense_qa" / "dev_rand_split.jsonl").read_text().splitlines()]
    asked = []

    def load_dataset(**arguments: object) -> datasets.Dataset:
        asked.append(arguments)
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv(reading.ENV, raising=False)
    assert load("commonsense-qa", "en").sha256 == load("commonsense-qa", "en", root=shared).sha256
    assert asked == [{"path": "tau/commonsense_qa", "name": None, "split": "validation"}]

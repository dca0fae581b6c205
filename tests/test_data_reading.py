"""Where a table comes from: local folder, Hub through `datasets`, public file; and what is said when none answers."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import datasets
import pytest

from steerlab.data.reading import Table, cache_folder, data_root, find_root, parse_table
from steerlab.data.sources import load
from steerlab.errors import SteerlabError

SIB = {"index_id": [7, 9], "category": ["sports", "travel"], "text": ["Kaping pisan.", "Kaping pindho."]}


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No local folder, an empty cache, and no network unless the test gives answers."""
    monkeypatch.delenv("STEERLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[Any] = []

    def answer(hub: Any = None, files: dict[str, bytes] | None = None) -> list[Any]:
        def load_dataset(path: str, name: str | None = None, **options: Any) -> datasets.Dataset:
            asked.append({"path": path, "name": name} | options)
            if hub is None:
                raise ConnectionError(f"Couldn't reach {path!r} on the Hub")
            return hub

        def urlopen(url: str, timeout: float) -> io.BytesIO:
            asked.append(url)
            for end, content in (files or {}).items():
                if url.endswith(end):
                    return io.BytesIO(content)
            raise urllib.error.URLError("no network")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return answer


def test_sib200_comes_from_the_hub_by_its_configuration(online):
    asked = online(datasets.Dataset.from_dict(SIB))
    found = load("sib200", "jv", "valid")
    assert asked == [{"path": "Davlan/sib200", "name": "jav_Latn", "split": "validation"}]
    assert found.texts == ("Kaping pisan.", "Kaping pindho.") and found.labels == ("sports", "travel")
    assert found.examples[1].id == "sib200-9"


def test_class_numbers_become_their_names_and_scripts_are_never_run(online):
    names = datasets.ClassLabel(names=["negative", "neutral", "positive"])
    features = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string"), "label": names})
    asked = online(
        datasets.Dataset.from_dict({"id": ["a", "b"], "text": ["apik", "ala"], "label": [2, 0]}, features=features)
    )
    assert load("nusax", "jv", "test").labels == ("positive", "negative")
    assert asked[0]["path"] == "indonlp/NusaX-senti" and asked[0]["revision"] == "refs/convert/parquet"
    assert asked[0]["data_files"] == {"test": "jav/test/*.parquet"} and "trust_remote_code" not in asked[0]


def test_ntrex_comes_from_the_hub_in_document_order(online):
    asked = online(
        datasets.Dataset.from_dict({"dan_Latn": [f"linje {i}" for i in range(1997)], "eng_Latn": ["x"] * 1997})
    )
    found = load("ntrex", "da", "vectors")
    assert asked[0]["path"] == "mteb/NTREX" and asked[0]["split"] == "test"
    assert (len(found), found.texts[0], found.examples[0].id) == (405, "linje 1226", "ntrex-1226")


def test_class_numbers_without_names_are_refused_and_the_public_file_is_read(online):
    rows = datasets.Dataset.from_dict({"id": ["a"], "text": ["hub"], "label": [2]})
    asked = online(rows, {"sentiment/javanese/test.csv": b"id,text,label\n1,berkas,positive\n"})
    assert load("nusax", "jv", "test").texts == ("berkas",)
    assert "/75b0be5d982348332509f296e10d9bf9cb66d60f/" in asked[-1], "the public file is pinned to a commit"


def test_without_the_hub_the_public_file_is_read_once_and_kept(online):
    asked = online(None, {"jav_Latn/dev.tsv": b'index_id\tcategory\ttext\r\n7\tsports\t"Kaping" pisan.\r\n'})
    first = load("sib200", "jv", "valid")
    assert first.texts == ('"Kaping" pisan.',)
    assert load("sib200", "jv", "dev").sha256 == first.sha256
    assert sum(isinstance(item, str) for item in asked) == 1
    assert [path.suffix for path in cache_folder().iterdir()] == [".tsv"]


@pytest.mark.parametrize(
    ("name", "code"), [("sib200", "jv"), ("lcc-danish", "da"), ("ud-text", "sk"), ("afrisenti", "am")]
)
def test_offline_one_sentence_names_the_variable(online, name: str, code: str):
    online()
    with pytest.raises(SteerlabError) as caught:
        load(name, code)
    message = str(caught.value)
    assert "STEERLAB_DATA" in message and "could not be downloaded" in message and "\n" not in message


def test_a_hub_set_that_lost_a_column_is_not_guessed_at(online):
    online(datasets.Dataset.from_dict({"text": ["x"], "topic": ["y"]}))
    with pytest.raises(SteerlabError, match="Davlan/sib200"):
        load("sib200", "jv")


def test_the_argument_beats_the_variable_and_both_must_be_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("STEERLAB_DATA", str(tmp_path))
    assert find_root() == tmp_path and find_root(other) == other
    monkeypatch.setenv("STEERLAB_DATA", "")
    assert find_root() is None
    with pytest.raises(SteerlabError, match="STEERLAB_DATA"):
        data_root()
    with pytest.raises(SteerlabError, match="not a folder"):
        find_root(tmp_path / "none")


def test_a_local_folder_without_the_set_is_told_and_nothing_is_downloaded(online, tmp_path: Path):
    asked = online(datasets.Dataset.from_dict(SIB))
    with pytest.raises(SteerlabError, match=r"has no sib200/jav_Latn/train\.tsv"):
        load("sib200", "jv", root=tmp_path)
    assert asked == []


def test_a_local_file_without_a_column_or_rows_is_told(tmp_path: Path):
    path = tmp_path / "sib200" / "jav_Latn" / "train.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("index_id\ttext\n1\tx\n", encoding="utf-8")
    with pytest.raises(SteerlabError, match="has no column category: its columns are index_id, text"):
        load("sib200", "jv", root=tmp_path)
    path.write_text("index_id\tcategory\ttext\n", encoding="utf-8")
    with pytest.raises(SteerlabError, match="has no rows"):
        load("sib200", "jv", root=tmp_path)


def test_tables_keep_quotes_where_the_format_has_none():
    tsv = Table("x.tsv", ("a", "b"), "\t", quoted=False)
    assert parse_table('a\tb\n"x\ty"\n', tsv) == [{"a": '"x', "b": 'y"'}]
    assert parse_table('"x, y",z\n', Table("x.csv", ("a", "b"), header=False)) == [{"a": "x, y", "b": "z"}]
    assert parse_table("one\n\ntwo\u2028\n", Table("x.txt", ("t",), lines=True)) == [
        {"t": "one"},
        {"t": ""},
        {"t": "two\u2028"},
    ]

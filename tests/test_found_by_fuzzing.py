"""What odd inputs once broke: the smallest one of each kind, as ordinary tests."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from steerlab import cli, store, tensorfile
from steerlab.activations import Activations, write_mapped
from steerlab.choice import Choice
from steerlab.commands import dataset as dataset_command
from steerlab.commands import evaluate
from steerlab.data import SOURCES, corrupt_tokens, load, read_texts, texts_sha256
from steerlab.data.means import read_means
from steerlab.dataset import Choice as Chosen
from steerlab.disk import told
from steerlab.errors import SteerlabError
from steerlab.evaluation.diversity import vendi_score
from steerlab.evaluation.stats import Estimate
from steerlab.evaluation.table import metrics_table
from steerlab.following import check, count_sentences, instruct
from steerlab.following.counting import capital_words
from steerlab.interop import export_vector, import_vectors
from steerlab.origin import cells_again
from steerlab.provenance import Provenance
from steerlab.records import from_json, parse
from steerlab.report import write_report
from steerlab.sharding import Shard
from steerlab.steering import Intervention
from steerlab.tasks import Task
from steerlab.templates import Template, choose_template
from steerlab.vectors import SteeringVector
from steerlab.watch import snapshot
from tests.command import Command
from tests.fuzz import one_sentence
from tests.labelled_run import labelled_run
from tests.small_run import CONFIG, work
from tests.tiny import tokenizer, vector

DEEP = "[" * 100_000
LONG = "1" * 5000  # more digits than Python reads as a number


def _refused(call: Callable[[], Any], because: str) -> None:
    with pytest.raises(SteerlabError, match=because) as caught:
        call()
    one_sentence(caught.value)


# ---- texts and records


@pytest.mark.parametrize("line", [DEEP, '{"text": ' + LONG + "}", '{"text": "\\ud800"}', "[1]"])
def test_a_line_of_json_that_breaks_the_parser(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    _refused(lambda: read_texts(tmp_path / "a.jsonl"), "line 1 is")
    _refused(lambda: store.read_rows(tmp_path / "a.jsonl"), "line 1 of .* is not a JSON object")


def test_half_a_character_is_found_however_it_is_spelt() -> None:
    for data in (b'"\\uD83D"', '"\\ud83d"', b'"\xed\xa0\xbd"', '"\ud83d"'):
        with pytest.raises(ValueError, match="half a character"):
            from_json(data)
    assert from_json(b'"\\ud83d\\ude00"') == "\U0001f600" and from_json('"\ud55c"'.encode()) == "\ud55c"  # a whole one


def test_half_a_character_reaches_no_hash_draw_table_or_tokenizer() -> None:
    half = "a\ud800 b"
    for call in (
        lambda: texts_sha256([half]),
        lambda: corrupt_tokens(half),
        lambda: instruct(half, "simple:lowercase", {}),
        lambda: metrics_table({half: {"topic": {"plain": {"x": Estimate(1.0, 1.0, 1.0, 1, "")}}}}),
        lambda: Template().token_rows(tokenizer(), [half], chat=False),
        lambda: Template("chat").token_rows(tokenizer(), [half], chat=True),
    ):
        _refused(call, "holds half a character")


def test_draws_are_those_of_before() -> None:
    assert random.Random(b"0\x1fa b").random() == random.Random("0\x1fa b").random()


def test_a_capital_that_is_no_letter_follows_a_full_stop() -> None:
    assert count_sentences("It is so. \u24b6") == 2 and capital_words("\u24b6") == ["\u24b6"]
    assert check(
        "length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "It is so. \u24b6"
    ).passed


@pytest.mark.parametrize("text", ["\u00b2/3", "1/\u00b2"])
def test_a_digit_that_is_no_number(text: str) -> None:
    _refused(lambda: Shard.parse(text), "is not i/n")


@pytest.mark.parametrize(
    ("template", "because"),
    [("{label} {", "a brace that is no field"), ("{label!r}", "formats a field"), ("{label:d}", "formats a field")],
)
def test_a_template_that_cannot_be_filled(template: str, because: str) -> None:
    _refused(lambda: Task("own", ("a",), template, template + "{examples}"), because)


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('no') }}", "{% if x %}", "{{ 1/0 }}", "{{ messages[9]['content'] }}"]
)
def test_a_chat_template_that_fails(source: str) -> None:
    own = tokenizer()
    own.chat_template = source
    _refused(lambda: choose_template(own, "chat").render(own, "x"), "chat template cannot be filled")


def test_rows_too_long_for_a_length_are_refused_without_a_warning() -> None:
    _refused(lambda: vendi_score(np.array([[1e300, 1e300]])), "zero or not finite")


def test_a_message_is_one_line_that_can_be_printed() -> None:
    said = str(SteerlabError("a\nb\x1b[31m \u202e \udce1 \u12f0"))
    assert said == "a\\nb\\x1b[31m \\u202e \\udce1 \u12f0"


@pytest.mark.parametrize(
    ("name", "code", "file", "content"),
    [
        ("lcc-danish", "da", "lcc_danish/dan_mixed_2014_10K-sentences.csv", "number,valence,text\n1,high,x\n"),
        ("scitldr", "en", "scitldr/dev.jsonl", '{"paper_id": "6", "target": "x"}\n'),
        (
            "commonsense-qa",
            "en",
            "commonsense_qa/dev_rand_split.jsonl",
            '{"id": "1", "question": "q", "choices": "[]", "answerKey": "A"}\n',
        ),
        (
            "ifeval",
            "en",
            "ifeval/input_data.jsonl",
            '{"key": 1, "prompt": "p", "instruction_id_list": "x", "kwargs": "[]"}\n',
        ),
    ],
)
def test_a_published_file_that_was_edited(tmp_path: Path, name: str, code: str, file: str, content: str) -> None:
    for other in (
        file,
        "lcc_danish/dan_newscrawl_2011_10K-sentences.csv",
        "scitldr/test.jsonl",
        "ifeval/ifeval_wo_instructions.jsonl",
    ):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text(
            '{"key": 1, "model_output": "b"}\n' if "ifeval" in other and other != file else content
        )
    splits = SOURCES[name].splits
    found = [split for split in splits if _broken(name, code, split, tmp_path)]
    assert found, "no split read the broken row"


def _broken(name: str, code: str, split: str, root: Path) -> bool:
    try:
        load(name, code, split, root=root)
    except SteerlabError as error:
        one_sentence(error)
        return "not as they were written" in str(error)
    return False


# ---- vectors


def _saved(tmp_path: Path, tensors: dict[str, torch.Tensor], record: Any) -> Path:
    tensorfile.write(tmp_path / "v.safetensors", "vector", 1, tensors, record)
    return tmp_path / "v.safetensors"


@pytest.mark.parametrize(
    "record",
    [{"counts": [0.0]}, {"counts": ["a", 1]}, {"layers": ["0", 1, 2, 3]}, {"layers": [0.0, 1, 2, 3]}, {"name": 3}, {"layers": 7}],
)  # fmt: skip
def test_a_vector_whose_record_is_of_another_kind(tmp_path: Path, record: dict[str, Any]) -> None:
    own = vector(0)
    path = _saved(tmp_path, own._tensors(), own._record() | record)
    _refused(lambda: SteeringVector.load(path), "does not hold a valid vector")


@pytest.mark.parametrize("kind", ["float64", "int64", "bool", "bfloat16", "float8_e4m3fn"])
def test_a_vector_of_another_type(tmp_path: Path, kind: str) -> None:
    own = vector(0)
    changed = own._tensors() | {"raw_norm": own.raw_norm.to(getattr(torch, kind))}
    path = _saved(tmp_path, changed, own._record())
    _refused(lambda: SteeringVector.load(path), "does not hold a valid vector .*raw_norm is not float32")


@pytest.mark.parametrize("header", [DEEP, "[]", "null", '{"kind": "vector", "schema": 1, "record": 3, "sha256": ""}'])
def test_a_header_of_another_kind(tmp_path: Path, header: str) -> None:
    (tmp_path / "v.safetensors").write_bytes(
        safetensors.torch.save(vector(0)._tensors(), metadata={"steerlab": header})
    )
    _refused(lambda: SteeringVector.load(tmp_path / "v.safetensors"), "record of .* can not be read")


def test_means_of_a_type_that_cannot_be_asked(tmp_path: Path) -> None:
    means = {"jv": torch.ones(2, 3).to(torch.float8_e4m3fn), "su": torch.zeros(2, 3)}
    (tmp_path / "m.safetensors").write_bytes(safetensors.torch.save(means))
    assert set(read_means(tmp_path / "m.safetensors")) == {"jv", "su"}


@pytest.mark.parametrize(
    "facts",
    [
        {"sites": [[0, "resid_post"]], "offsets": [0, 9]},
        {"sites": [], "offsets": [0, 1, 2]},
        {"sites": [[0, "resid_post"]], "offsets": []},
        {"sites": 3, "offsets": [0, 1, 2]},
    ],
)
def test_activations_whose_record_does_not_fit(tmp_path: Path, facts: dict[str, Any]) -> None:
    def fill(values: np.ndarray) -> None:
        values[:] = 0

    write_mapped(tmp_path / "a.safetensors", (2, 1, 3), "float32", facts, fill)
    _refused(lambda: Activations.open(tmp_path / "a.safetensors"), "not a readable activations file")


def test_arrays_of_another_byte_order_are_read(tmp_path: Path) -> None:
    rows = np.arange(1.0, 7.0).reshape(2, 3)
    np.save(tmp_path / "big.npy", rows.astype(">f8"))
    (found,) = import_vectors(tmp_path / "big.npy").values()
    torch.testing.assert_close(found.raw(1), torch.tensor([4.0, 5.0, 6.0]))


def test_arrays_that_were_mapped_from_a_file_are_read(tmp_path: Path) -> None:
    """gguf's reader maps them, so a vector that repeng read and somebody pickled holds them."""
    np.arange(3, dtype="f4").tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype="f4", mode="r")
    torch.save({"layer_1": mapped}, tmp_path / "a.pt")
    (found,) = import_vectors(tmp_path / "a.pt").values()
    torch.testing.assert_close(found.raw(1), torch.tensor([0.0, 1.0, 2.0]))


def test_an_array_whose_header_is_no_python(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.ones((2, 3)))
    data = bytearray(file.getvalue())
    data[20:23] = b"('("
    (tmp_path / "a.npy").write_bytes(data)
    _refused(lambda: import_vectors(tmp_path / "a.npy"), "can not be read as arrays")


# ---- records that travel


def test_a_gate_without_a_number() -> None:
    record = Choice((1,), 0.5, gate=(0.1, True)).to_json()
    _refused(lambda: Choice.from_json(record | {"gate": [None, True]}), "finite numbers")


def test_a_provenance_that_is_no_mapping() -> None:
    _refused(lambda: Provenance.from_json(None), "unknown or missing fields")


@pytest.mark.parametrize("change", [{"gate": 3}, {"layers": [[]]}, {"new": 1}, {"layers": ["1"]}, {"strength": "x"}])
def test_an_intervention_that_was_edited(change: dict[str, Any]) -> None:
    record = Intervention(vector(0), 1).to_json()
    _refused(lambda: Intervention.from_json(record | change, vector(0)), "not as they were written")
    _refused(lambda: Intervention.from_json({}, vector(0)), "not as they were written")


def test_an_argument_of_another_kind_in_words() -> None:
    assert instruct("Write.", "simple:lowercase", {"x": [None]}).startswith("Write. ")


# ---- run folders


def test_a_log_whose_numbers_are_none(tmp_path: Path) -> None:
    run = work(tmp_path / "run")
    lines = (run / "batches.jsonl").read_text().splitlines()
    for change in ({"end": "1"}, {"end": -1}, {"rows": None}, {"batch": 3}, {"file": None}):
        (run / "batches.jsonl").write_text(json.dumps(json.loads(lines[0]) | change) + "\n")
        _refused(lambda: store.RunFolder.open(run, CONFIG), "line 1 of .* is not ours")


@pytest.mark.parametrize("origin", [{}, {"vectors": 3}, {"vectors": [3]}, {"vectors": [["v0"]]}])
def test_an_origin_that_was_edited(tmp_path: Path, origin: dict[str, Any]) -> None:
    (tmp_path / "origin.json").write_text(json.dumps(origin))
    cell = {"condition": "a", "interventions": [{}]}
    _refused(lambda: cells_again(tmp_path, {"cells": [cell]}), "not as they were written|no readable set")
    _refused(lambda: cells_again(tmp_path, {"cells": [3]}), "not as they were written|no readable set")


@pytest.mark.parametrize("metrics", [{"metrics": 3}, {"metrics": [3]}, {"metrics": [{"metric": "x"}]}])
def test_metrics_that_were_edited(tmp_path: Path, metrics: Any) -> None:
    run = labelled_run(tmp_path / "run")
    (run / "metrics.json").write_text(json.dumps(metrics))
    _refused(lambda: dataset_command.preview(run, Chosen(), "", "x"), "not as they were written")


def test_a_run_whose_metrics_are_no_list_has_no_page(tmp_path: Path) -> None:
    run = labelled_run(tmp_path / "run")
    (run / "metrics.json").write_text(json.dumps({"metrics": [], "rejected": [1]}))
    _refused(lambda: write_report([run], tmp_path / "page.html"), "not as they were written")
    assert not (tmp_path / "page.html").exists()


def test_a_task_of_a_study_that_is_no_name(tmp_path: Path) -> None:
    work(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"per_label": 1, "cells": [{"labels": ["a"]}], "arms": 3}))
    assert snapshot(tmp_path / "run").wanted == 1


@pytest.mark.parametrize("condition", [["a"], {}, 3, None])
def test_a_condition_that_is_no_text(tmp_path: Path, condition: Any) -> None:
    row = {"language": "jv", "task": "topic", "label": "travel", "text": "a", "condition": condition}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    _refused(lambda: evaluate.run(tmp_path / "a.jsonl", "sample", 1, "none", None), "no text as 'condition'")
    _refused(lambda: dataset_command.preview(tmp_path / "a.jsonl", Chosen(), "", "x"), "no text as 'condition'")


# ---- the system and the command line


def test_a_name_the_system_cannot_spell(tmp_path: Path) -> None:
    for name in ("a\0b", "a\ud800"):
        _refused(lambda name=name: store.RunFolder.open(tmp_path / name, CONFIG), "can be no path")
    _refused(lambda: export_vector(vector(0), ".", "steering-vectors"), "can be no path")
    with pytest.raises(ValueError, match="mine"), told(tmp_path):
        raise ValueError("mine")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.mark.parametrize("words", [("lens",), ("sweep",), ("vectors", "show"), ("report",)])
def test_a_name_too_long_for_the_system(command: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out") if words == ("sweep",) else ()
    command.refused(*words, "a" * 300, *out, because="cannot be used|is no vector|no run")


def test_a_folder_whose_name_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a terminal has it: standard output refuses what it cannot encode, unless it is told otherwise."""
    run = labelled_run(tmp_path / "\udce1")
    printed = b""
    for words in (["watch", str(run), "--json"], ["dataset", "export", str(run), "--out", str(tmp_path / "out")]):
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["steerlab", *words])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 0
        out.flush()
        printed += out.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert b"\\udce1" in printed
    write_report([run], tmp_path / "page.html")
    assert "What ? wrote" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "# ?" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_rows_are_parsed_as_before() -> None:
    assert parse(b'{"a": "\\u00e9"}\n{"b": 1}', Path("x")) == [{"a": "\u00e9"}, {"b": 1}]

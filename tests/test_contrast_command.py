"""`steerlab contrast make` and `check` from the command line: folders, tables, JSON, and one sentence for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlab import store
from steerlab.backtranslation import read_pairs
from tests.command import Command
from tests.seq2seq import TEXTS, save_translator
from tests.small_run import content


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_translator(tmp_path_factory.mktemp("nllb"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "sl.txt"
    file.write_text("\n".join([*TEXTS, TEXTS[0]]) + "\n", encoding="utf-8")
    return file


def test_help_teaches_with_examples(command: Command) -> None:
    assert {"make", "check"} <= set(command("contrast", "--help").out.split())
    said = command("contrast", "make", "--help")
    assert said.code == 0 and "steerlab contrast make --source ntrex -l am" in " ".join(said.out.split())
    assert "steerlab contrast check sample" in " ".join(command("contrast", "check", "--help").out.split())


def test_make_translates_and_check_reads_what_it_made(
    command: Command, model: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs"
    words = ("contrast", "make", "-t", texts, "-l", "sl", "-m", model, "--max-new-tokens", "12", "--out", out, "-q")
    said = command(*words, "--batch-rows", "4", "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    pairs = read_pairs(out)
    assert found["counts"]["given"] == 10 and found["counts"]["duplicates"] == 1
    assert found["counts"]["kept"] == len(pairs) and found["sha256"] == pairs.sha256
    assert {pair.id.partition("-")[0] for pair in pairs} == {"sl"}
    before = content(out)
    again = command(*words, "--batch-rows", "4")
    assert content(out) == before and f"steerlab contrast check {out}" in " ".join(again.out.split())
    command.refused(*words, "--batch-rows", "2", because="another configuration .batch_rows is 4 there, 2 now")
    checked = command("contrast", "check", out, "--folds", "2", "--json")
    report = json.loads(checked.out)
    assert report["all"]["pairs"]["raw"] == len(pairs) and "AUROC" in report["all"]["verdict"]


def test_make_degrades_without_a_model(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    words = ("contrast", "make", "--source", "sample", "-l", "cs", "--method", "degrade", "--seed", "3")
    assert command(*words, "--out", out).code == 0
    store.verify(out)
    pairs = read_pairs(out)
    assert {pair.source for pair in pairs} == {"degraded"} and len(pairs) > 40
    summary = json.loads((out / "summary.json").read_text())
    assert summary["method"] == "degrade" and summary["rates"]["drop"] == summary["rates"]["repeat"]
    assert sum(n for why, n in summary["counts"].items() if why != "given") == summary["counts"]["given"]
    few = tmp_path / "few"
    assert command(*words, "--out", few, "--limit", "10").code == 0
    assert read_pairs(few).pairs == tuple(p for p in pairs if p.id in {q.id for q in read_pairs(few)})


def test_check_shows_tables_and_the_verdict(command: Command) -> None:
    said = command("contrast", "check", "sample", "-l", "cs", "--folds", "2", "--model", "polyglot-mini")
    assert said.code == 0, said
    shown = " ".join(said.out.split())
    for name in ("characters", "words", "tokens", "word frequency", "character n-grams", "raw", "normalised"):
        assert name in shown
    assert "tells the sides apart" in shown and "n-grams do" in shown
    report = json.loads(command("contrast", "check", "sample", "--length-matched", "--folds", "3", "--json").out)
    matched = report["length-matched"]
    assert matched["left_out"] > 0 and matched["pairs"]["raw"] + matched["left_out"] == report["all"]["pairs"]["raw"]
    within = next(w for w in matched["within"] if (w["unit"], w["surface"]) == ("characters", "normalised"))
    assert within["mean_difference"]["value"] == 0 and within["sign_test_p"] == 1


def test_check_of_the_slovene_pairs(command: Command, shared: Path) -> None:
    words = ("contrast", "check", "slovene", "--hops", "1", "--split", "vectors", "--folds", "2", "--data", shared)
    said = command(*words, "--json")
    report = json.loads(said.out)["all"]
    assert report["left_out"] + report["pairs"]["raw"] == 900
    cues = {(cue["cue"], cue["surface"]): cue["auroc"] for cue in report["cues"]}
    assert cues["character n-grams", "normalised"] > 0.65 and abs(cues["characters", "normalised"] - 0.5) < 0.05


BAD_MAKE = {
    "no texts": ((), "either as --texts FILE or as --source NAME"),
    "both": (("-t", "x.txt", "--source", "ntrex"), "either as --texts FILE or as --source NAME"),
    "no file": (("-t", "nowhere.txt", "-l", "sl"), "nowhere.txt does not exist"),
    "method": (("--source", "sample", "-l", "sl", "--method", "worsen"), "--method 'worsen' is not known"),
    "rate": (
        ("--source", "sample", "-l", "sl", "--method", "degrade", "--rate", "0"),
        "--rate is 0.0: give a share above 0",
    ),
    "corruption": (("--source", "sample", "-l", "sl", "--rate", "1.5"), "corruption rate 1.5 is not a share"),
    "language": (("--source", "sample", "-l", "xx", "--method", "degrade"), "language 'xx' is not known"),
    "no language": (("--source", "sample", "--method", "degrade"), "--source sample needs --language CODE"),
    "source": (("--source", "ntrexx", "-l", "sl", "--method", "degrade"), "data set 'ntrexx' is not known"),
    "needless model": (
        ("--source", "sample", "-l", "sl", "--method", "degrade", "-m", "x"),
        "models given with --method",
    ),
    "no model": (("--source", "sample", "-l", "sl", "-m", "./nowhere"), "there is no folder ./nowhere"),
    "beams": (("--source", "sample", "-l", "sl", "--beams", "0"), "beams is 0: give at least 1"),
    "limit": (("--source", "sample", "-l", "sl", "--limit", "0"), "the limit is 0: use at least 1"),
    "option": (("--pivots", "de"), "No such option.*see `steerlab contrast make --help`"),
}


@pytest.mark.parametrize("name", BAD_MAKE)
def test_make_refuses_and_makes_no_folder(command: Command, tmp_path: Path, name: str) -> None:
    words, because = BAD_MAKE[name]
    out = tmp_path / "pairs"
    command.refused("contrast", "make", "--out", out, *words, because=because)
    assert not out.exists()


def test_make_refuses_languages_the_model_lacks(command: Command, model: Path, texts: Path, tmp_path: Path) -> None:
    words = ("contrast", "make", "-t", texts, "-m", model, "--max-new-tokens", "12", "--out", tmp_path / "pairs")
    command.refused(*words, because="--method backtranslate needs --language CODE")
    command.refused(*words, "-l", "cs", because="has no language 'cs': give one of its 6 codes")
    command.refused(*words, "-l", "sl", "--pivot", "deu", because="has no language 'deu'.*'deu_Latn'")
    command.refused(*words, "-l", "sl", "--split", "train", because="--split belongs to --source")
    assert not (tmp_path / "pairs").exists()


def test_check_refuses_what_holds_no_pairs(command: Command, tmp_path: Path) -> None:
    command.refused("contrast", "check", "slovenian", because="'slovenian' is no file or folder.*slovene, sample")
    command.refused("contrast", "check", tmp_path, because="holds no finished run")
    command.refused("contrast", "check", "slovene", "--hops", "3", "--data", tmp_path, because="hops 3 is not known")
    command.refused(
        "contrast", "check", "slovene", "-l", "sl", because="--language sl belongs to the pairs named sample"
    )
    command.refused(
        "contrast", "check", "sample", "-m", "no/model", because="tokenizer of 'no/model' could not be loaded"
    )
    (tmp_path / "own.jsonl").write_text('{"human": "voda", "degraded": "vode"}\n')
    command.refused(
        "contrast", "check", tmp_path / "own.jsonl", because="1 pairs that differ .*5 folds need at least 5"
    )

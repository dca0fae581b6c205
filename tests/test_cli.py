"""Bad input is one sentence and exit code 2, and leaves everything as it was; help and JSON are what they say."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from steerlab.commands import demo as demo_command
from steerlab.vectorset import save_set
from tests.command import QUICK, Command, Said, check_refusal, save_model
from tests.tiny import vector

COMMANDS = (("models",), ("vectors", "fit"), ("vectors", "show"), ("synthesize",), ("evaluate",), ("demo",))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "jv.txt").write_text("aku mangan sega\nkowe turu\n", encoding="utf-8")
    (folder / "su.txt").write_text("abdi tuang sangu\nanjeun bobo\n", encoding="utf-8")
    (folder / "empty.txt").write_text(" \n\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes("aku m\xe5ngan".encode("latin-1"))
    (folder / "table.csv").write_text("sentence,label\naku,a\n", encoding="utf-8")
    (folder / "broken.jsonl").write_text('{"text": "aku"}\n{"text": \n', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def vectors(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors fitted on `model` for Javanese and Sundanese."""
    from steerlab.fitting import fit_language_vectors
    from steerlab.loading import load

    folder = tmp_path_factory.mktemp("vectors")
    found = fit_language_vectors(load(str(model)), {"texts": {"jv": ["aku mangan"], "su": ["abdi tuang"]}})
    save_set({v.name: v for v in found.values()}, folder)
    return folder


BAD_SYNTHESIS = {
    "language": (("-l", "xx"), "language 'xx' is not known: give one of am, .*"),
    "language nearby": (("-l", "Javanese"), "did you mean 'jv'"),
    "language twice": (("-l", "jv", "-l", "jv"), "give at least one, each once"),
    "task": (("--task", "poetry"), "task 'poetry' is not known"),
    "count": (("-n", "0"), "0 samples per label were asked for: ask for at least 1"),
    "count below": (("-n", "-3"), "-3 samples per label"),
    "count no number": (("-n", "many"), "Invalid value for '-n'.*valid integer.*--help"),
    "prompt": (("--prompt", "french"), "prompt 'french' is not known: give one of target, none, english"),
    "source": (("--source", "sib300"), "data set 'sib300' is not known.*did you mean 'sib200'"),
    "temperature": (("--temperature", "0"), "temperature is 0.0: give a value above 0"),
    "top-p": (("--top-p", "1.5"), "top_p is 1.5"),
    "length": (("--max-new-tokens", "0"), "max_new_tokens is 0"),
    "rows": (("--batch-rows", "0"), "batch_rows is 0: give at least 1"),
    "type": (("--dtype", "int8"), "dtype 'int8' is not known: give one of float32"),
    "device": (("--device", "abacus"), "device 'abacus' cannot be used"),
    "data": (("--data", "no/such/folder"), "the data folder no/such/folder is not a folder"),
    "kind of vector": (("-v", "bundeled"), "'bundeled' is none of none, language, quality, random and no file"),
    "bundled vector": (("-v", "language"), "uses the vectors that ship with polyglot-mini, and the model is"),
    "long answer": (("--max-new-tokens", "500"), "500 new ones need .* positions.*has 256"),
    "few-shot": (("--task", "topic", "--shots", "4"), "a prompt of .* positions, and .* has 256: use fewer examples"),
    "too many shots": (("--shots", "9"), "9 few-shot examples were asked for and there are 6"),
    "option": (("--langauge", "jv"), "No such option.*see `steerlab synthesize --help`"),
    "value": (("--seed",), "--seed.* requires an argument.*--help"),
}


@pytest.mark.parametrize("name", BAD_SYNTHESIS)
def test_synthesize_refuses_and_makes_no_folder(command: Command, model: Path, tmp_path: Path, name: str) -> None:
    words, because = BAD_SYNTHESIS[name]
    language = () if "-l" in words else ("-l", "jv")
    out = tmp_path / "run"
    command.refused("synthesize", *language, "-m", model, "--out", out, *QUICK, *words, because=because)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (("-l", "id"), "has no vector for 'id' .it has language-jv, language-su."),
        (("-l", "jv", "--layer", "99"), "'language-jv' has no direction at layer 99: it has layers 0-3"),
        (("-l", "jv", "--layer", "-1"), "no direction at layer -1"),
        (("-l", "jv", "--unit", "furlong"), "unit 'furlong' is not known"),
        (("-l", "jv", "--unit", "raw"), "--unit raw needs a --strength"),
        (("-l", "jv", "--strength", "nan"), "strength nan .* must be finite"),
    ],
)
def test_synthesize_refuses_steering_that_cannot_be(
    command: Command, model: Path, vectors: Path, tmp_path: Path, words: tuple[str, ...], because: str
) -> None:
    out = tmp_path / "run"
    command.refused("synthesize", "-m", model, "-v", vectors, "--out", out, *QUICK, *words, because=because)
    assert not out.exists()


def test_synthesize_refuses_a_vector_of_another_model(
    command: Command, vectors: Path, model: Path, tmp_path: Path
) -> None:
    words = ("synthesize", "-l", "jv", "--out", tmp_path / "run", *QUICK)
    other, narrow = save_model(tmp_path / "other", seed=1), save_model(tmp_path / "narrow", hidden_size=16)
    shallow = save_model(tmp_path / "shallow", num_hidden_layers=2)
    command.refused(
        *words, "-m", other, "-v", vectors, because="was fitted on model .*, but .* is loaded: fit it again"
    )
    command.refused(*words, "-m", narrow, "-v", vectors, because="width 32, but .* has width 16")
    command.refused(*words, "-m", shallow, "-v", vectors, because="direction at layer 3, but .* has layers 0 to 1")
    save_set({"jv": vector(0)}, tmp_path / "unknown")
    command.refused(*words, "-m", model, "-v", tmp_path / "unknown", because="was fitted on model 'not recorded'")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 40)
    command.refused(
        *words, "-m", model, "-v", tmp_path / "damaged.safetensors", because="can not be read as safetensors"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["no/such/folder", "./no-such-folder", "nobody/no-such-model"])
def test_a_model_that_is_not_there(command: Command, tmp_path: Path, texts: Path, name: str) -> None:
    because = "there is no folder .*: give" if name.startswith(".") else "the model '.*' could not be loaded .*: give"
    command.refused("synthesize", "-l", "jv", "-m", name, "--out", tmp_path / "a", *QUICK, because=because)
    command.refused(
        *("vectors", "fit", "-t", f"a={texts / 'jv.txt'}", "-t", f"b={texts / 'su.txt'}", "-q"),
        *("-m", name, "--out", tmp_path / "b"),
        because=because,
    )
    assert list(tmp_path.iterdir()) == []


BAD_FIT = {
    "missing": (("jv=nowhere.txt",), (), "the file .*nowhere.txt does not exist"),
    "empty": (("jv=jv.txt", "su=empty.txt"), (), "empty.txt is empty: give a file with at least one text"),
    "not utf-8": (("jv=jv.txt", "su=latin1.txt"), (), "is not UTF-8: byte 0xe5 at offset 5"),
    "no column": (("jv=jv.txt", "su=table.csv"), (), "has no column 'text': its columns are sentence, label"),
    "other column": (("su=table.csv",), ("--column", "words"), "has no column 'words'"),
    "broken json": (("jv=broken.jsonl",), (), "line 2 is not JSON"),
    "no name": (("jv.txt",), (), "is not NAME=FILE"),
    "name twice": (("jv=jv.txt", "jv=su.txt"), (), "with a NAME of its own"),
    "one language": (("jv=jv.txt",), (), "1 languages were given"),
    "the same texts": (("jv=jv.txt", "su=jv.txt"), (), "no difference between its sides at layer 0"),
    "kind": (("jv=jv.txt", "su=su.txt"), ("--kind", "mood"), "kind 'mood' is not known"),
    "sides": (("jv=jv.txt", "su=su.txt"), ("--kind", "quality"), "name them positive and negative"),
    "positions": (("jv=jv.txt", "su=su.txt"), ("--positions", "some"), "'some'"),
    "weighting": (("jv=jv.txt", "su=su.txt"), ("--weighting", "char"), "weighting 'char' is not known"),
}


@pytest.mark.parametrize("name", BAD_FIT)
def test_vectors_fit_refuses_and_makes_no_folder(
    command: Command, model: Path, texts: Path, tmp_path: Path, name: str
) -> None:
    files, options, because = BAD_FIT[name]
    named = [f"{label}={texts / path}" if path else label for label, _, path in (f.partition("=") for f in files)]
    given = [word for text in named for word in ("-t", text)]
    out = tmp_path / "vectors"
    command.refused("vectors", "fit", *given, "-m", model, "--out", out, "-q", *options, because=because)
    assert not out.exists()


def test_vectors_show_refuses_what_holds_none(command: Command, tmp_path: Path, texts: Path) -> None:
    command.refused("vectors", "show", tmp_path, because="holds no readable set of vectors")
    command.refused("vectors", "show", tmp_path / "nowhere", because="holds no readable set of vectors")
    command.refused("vectors", "show", texts / "jv.txt", because="can not be read as safetensors")


ROW = {"language": "jv", "task": "sentiment", "condition": "a", "label": "positive", "text": "apik tenan"}


def _without(name: str) -> dict[str, object]:
    return {key: value for key, value in ROW.items() if key != name}


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        ([ROW, _without("text")], "row 2 of .* has no text as 'text' .it has language, task, condition, label"),
        ([_without("label")], "row 1 of .* has no text as 'label'"),
        ([{**ROW, "text": None}], "no text as 'text'"),
        ([{**ROW, "language": ["jv"]}], "no text as 'language'"),
        ([{**ROW, "language": "xx"}], "row 1 of .*: language 'xx' is not known"),
        ([{**ROW, "task": "poetry"}], "row 1 of .*: task 'poetry' is not known"),
        ([ROW, {**ROW, "label": "neutral"}], "row 2 of .*: .*'neutral'"),
        ([], "has no samples: write some with `steerlab synthesize`"),
    ],
)
def test_evaluate_refuses_rows_that_are_no_samples(
    command: Command, tmp_path: Path, rows: list[dict[str, object]], because: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command.refused("evaluate", file, "-m", "none", because=because)


def test_evaluate_refuses_what_it_cannot_read(command: Command, tmp_path: Path) -> None:
    command.refused("evaluate", tmp_path, "-m", "none", because="samples.jsonl does not exist")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}\n')
    command.refused("evaluate", tmp_path / "a.jsonl", "-m", "none", because="line 1 of .* is not a JSON object")
    (tmp_path / "b.jsonl").write_text(json.dumps(ROW) + "\n")
    command.refused(
        "evaluate", tmp_path / "b.jsonl", "-m", "none", "--seeds", "0", because="--seeds is 0: give at least 1"
    )
    command.refused("evaluate", tmp_path / "b.jsonl", "-m", "./nowhere", because="there is no folder ./nowhere")
    command.refused(
        "evaluate", tmp_path / "b.jsonl", "-m", "none", "--source", "sib300", because="'sib300' is not known"
    )
    command.refused("evaluate", because="Missing argument.*--help")


def test_a_mistake_of_ours_is_not_dressed_up_as_the_users(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(demo_command, "run", broken)
    with pytest.raises(ZeroDivisionError):
        command("demo")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command: Command, words: tuple[str, ...]) -> None:
    said = command(*words, "--help")
    assert said.code == 0 and said.err == ""
    text = " ".join(said.out.split())
    assert "Example" in text and f"steerlab {' '.join(words)}" in text.split("Example", 1)[1]
    assert "--help" in text


def test_help_lists_the_commands_and_no_command_shows_it(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    assert all(words[0] in said.out for words in COMMANDS)
    for words, within in (((), "synthesize"), (("vectors",), "fit")):
        bare = command(*words)
        assert bare.code == 2 and within in bare.out + bare.err
    command.refused("sinthesize", because="No such command 'sinthesize'.*see `steerlab --help`")
    command.refused("synthesize", "--out", "x", because="Missing option '--language'.*see `steerlab synthesize --help`")


def test_the_version_is_the_packages(command: Command) -> None:
    said = command("--version")
    assert said.code == 0 and said.out == f"steerlab {importlib.metadata.version('steerlab')}\n"


def test_models_prints_one_json_list(command: Command) -> None:
    said = command("models", "--json")
    rows = json.loads(said.out)
    assert said.code == 0 and said.err == ""
    assert rows[0]["model"] == "polyglot-mini" and "12 languages" in rows[0]["what"]
    assert {"Llama", "Gemma-2", "Qwen-3"} <= {row["model"] for row in rows}
    table = command("models").out
    assert all(row["model"] in table for row in rows) and not table.startswith("[")


@pytest.mark.slow
def test_the_real_command_says_one_sentence(tmp_path: Path) -> None:
    """In a process of its own, where nothing of the test's set-up can hide a traceback, a warning or a progress bar."""
    words = [
        "synthesize",
        "-l",
        "jv",
        "--out",
        str(tmp_path / "run"),
        "-m",
        str(save_model(tmp_path / "model")),
        "-n",
        "0",
    ]
    done = subprocess.run([sys.executable, "-m", "steerlab.cli", *words], capture_output=True, text=True, check=False)
    check_refusal(Said(done.returncode, done.stdout, done.stderr), "0 samples per label")
    assert not (tmp_path / "run").exists()

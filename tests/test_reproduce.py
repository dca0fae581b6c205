"""A run folder holds all that repeats it; a changed text or number is found, and what cannot be repeated is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from steerlab import store
from steerlab.cells import Cell
from steerlab.commands import reproduce as reproduce_command
from steerlab.commands import synthesize as synthesize_command
from steerlab.commands.synthesize import Steering
from steerlab.disk import fingerprint
from steerlab.errors import SteerlabError
from steerlab.fitting import fit_language_vectors
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.origin import cells_again, read_origin
from steerlab.recipes import Condition, SynthesisConfig, write_data
from steerlab.records import config_key, pretty
from steerlab.steering import Intervention
from steerlab.store import read_config
from steerlab.tasks import Task, prompt
from steerlab.vectors import SteeringVector
from steerlab.vectorset import save_set
from tests import command as command_module
from tests.command import QUICK, Command, Said, save_model
from tests.small_run import content, work
from tests.tiny import tiny, vector

TEXTS = {"jv": ["aku mangan sega", "kowe turu"], "su": ["abdi tuang sangu", "anjeun bobo"], "id": ["saya makan nasi"]}
TONE = Task(
    "tone", ("calm", "angry"), "Say a {label} thing{in_language}.", "Say a {label} thing like these: {examples}"
)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    made = Command(monkeypatch, capsys)
    monkeypatch.setattr(reproduce_command, "load", command_module._load)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two languages with few-shot prompts and fitted vectors, which are gone afterwards."""
    place = tmp_path_factory.mktemp("written")
    model = save_model(place / "model", max_position_embeddings=1024)
    found = fit_language_vectors(load(str(model)), {"texts": TEXTS})
    save_set({f"language-{code}": v for code, v in found.items()}, place / "fitted")
    asked = {"shots": 2, "source": "sample", "settings": Settings(max_new_tokens=6)}
    config = SynthesisConfig(("jv", "su"), ("sentiment",), str(model), per_label=2, **asked)
    steering = Steering(str(place / "fitted"), layer=2)
    synthesize_command.run(config, place / "run", steering, None, "float32", None, progress=False)
    shutil.rmtree(place / "fitted")
    return place / "run"


@pytest.fixture
def steered(written: Path, tmp_path: Path) -> Path:
    """That run, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def _again(command: Command, run: Path, *more: str | Path) -> tuple[Said, dict[str, Any]]:
    said = command("reproduce", run, "-q", "--json", *more)
    return said, {row["what"]: row for row in json.loads(said.out)}


def _sign(run: Path) -> None:
    """A manifest that vouches for what is there now."""
    manifest = json.loads((run / store.MANIFEST).read_text())
    manifest["files"] = {name: fingerprint(run / name) for name in manifest["files"]}
    (run / store.MANIFEST).write_bytes(pretty(manifest))


def test_a_steered_run_is_repeated_from_its_folder_alone(command: Command, steered: Path, tmp_path: Path) -> None:
    before = content(steered)
    assert {"origin.json", "vectors/v0.safetensors", "vectors/v1.safetensors"} <= before.keys()
    said, rows = _again(command, steered, "--out", tmp_path / "again")
    assert said.code == 0 and said.err == "", said
    assert rows["samples.jsonl"] == {
        "what": "samples.jsonl", "recorded": "8 texts", "now": "8 of 8 byte for byte", "equal": True
    }  # fmt: skip
    assert rows["language_share"]["now"] == "8 equal" and rows["files of the run"]["equal"]
    assert all(row["equal"] for row in rows.values()) and len(rows) > 8
    assert content(steered) == before
    after = content(tmp_path / "again")
    same = ("samples.jsonl", "drafts.jsonl", "config.json", "origin.json", "vectors/v1.safetensors")
    assert [after[name] == before[name] for name in same] == [True] * 5
    said = command("reproduce", steered, "-q")
    assert said.code == 0 and "equal" in said.out and "samples.jsonl" in said.out


def test_a_changed_text_or_number_is_found_though_the_manifest_vouches_for_it(
    command: Command, steered: Path, tmp_path: Path
) -> None:
    kept = shutil.copytree(steered, tmp_path / "kept")
    lines = (steered / "samples.jsonl").read_text(encoding="utf-8").split("\n")
    row = json.loads(lines[1])
    lines[1] = json.dumps({**row, "text": row["text"] + "x"}, ensure_ascii=False)
    (steered / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said, rows = _again(command, steered)
    assert said.code == 1 and rows["files of the run"]["now"] == "changed since: samples.jsonl"
    _sign(steered)
    said, rows = _again(command, steered)
    assert said.code == 1 and rows["files of the run"]["equal"] and not rows["samples.jsonl"]["equal"]
    assert rows["samples.jsonl"]["now"] == "7 of 8 byte for byte" and rows["distinct_2"]["equal"]
    metrics = json.loads((kept / "metrics.json").read_text())
    (number,) = [r for r in metrics["metrics"] if (r["metric"], r["language"]) == ("distinct_2", "su")]
    was, number["value"] = number["value"], number["value"] + 1e-7
    (kept / "metrics.json").write_bytes(pretty(metrics))
    _sign(kept)
    said, rows = _again(command, kept)
    assert said.code == 1 and rows["samples.jsonl"]["equal"] and rows["distinct_2"]["now"] == "7 equal"
    name = f"su sentiment {number['condition']} distinct_2 value"
    assert rows[name] == {"what": name, "recorded": number["value"], "now": was, "equal": False}
    assert _again(command, kept, "--tolerance", "1e-6")[0].code == 0
    metrics["rejected"] = {"su/sentiment/none": {"empty": 3}}
    (kept / "metrics.json").write_bytes(pretty(metrics))
    _sign(kept)
    assert not _again(command, kept, "--tolerance", "1e-6")[1]["rejected"]["equal"]


def test_other_versions_are_warned_of(command: Command, steered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {**read_origin(steered)["versions"], "torch": "0.1"}
    monkeypatch.setattr(reproduce_command, "versions", lambda: now)
    said, _ = _again(command, steered)
    assert said.code == 0 and said.err.startswith("steerlab: warning: torch is 0.1 now and was ")
    assert said.err.count("\n") == 1


def test_what_cannot_be_repeated_is_refused(command: Command, steered: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(steered, tmp_path / name))

    command.refused("reproduce", tmp_path / "none", because="holds no finished run")
    command.refused("reproduce", work(tmp_path / "other"), because="a run of another kind")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    command.refused("reproduce", steered, "--out", tmp_path / "full", because="is not empty: give a new folder")
    command.refused("reproduce", steered, "--tolerance", "2", because="tolerance is 2.0: give a number from 0")
    command.refused("reproduce", steered, "--device", "tpu9", because="device 'tpu9' cannot be used")
    run = broken("unfinished")
    (run / store.MANIFEST).unlink()
    command.refused("reproduce", run, because="holds no finished run")
    run = broken("asked")
    (run / "config.json").write_text((run / "config.json").read_text().replace('"per_label": 2', '"per_label": 3'))
    command.refused("reproduce", run, because="config.json is not the one the run finished with")
    run = broken("gone")
    (run / "vectors" / "v0.safetensors").unlink()
    command.refused("reproduce", run, because="v0.safetensors is missing: restore it")
    run = broken("changed")
    shutil.copyfile(run / "vectors" / "v1.safetensors", run / "vectors" / "v0.safetensors")
    command.refused("reproduce", run, because="v0.safetensors was changed after the run finished")
    _sign(run)
    command.refused("reproduce", run, because="along 'language-jv' .* was described and vector 'language-su'")
    run = broken("guided")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["cells"][1]["guidance"] = {"gamma": 0.5}
    (run / "config.json").write_bytes(pretty(config))
    manifest = json.loads((run / store.MANIFEST).read_text())
    manifest["config_key"] = config_key(config)
    (run / store.MANIFEST).write_bytes(pretty(manifest))
    command.refused("reproduce", run, because="holds a guided run: repeat its own command")
    run = broken("older")
    manifest = json.loads((run / store.MANIFEST).read_text())
    manifest["files"].pop("origin.json")
    (run / "origin.json").unlink()
    (run / store.MANIFEST).write_bytes(pretty(manifest))
    command.refused("reproduce", run, because="does not say what it was written with")


def test_another_model_under_the_same_name_is_refused(command: Command, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    said = command("synthesize", "-l", "jv", "-m", folder, "-n", "1", "--out", tmp_path / "run", *QUICK)
    assert said.code == 0
    command_module._load.cache_clear()
    shutil.rmtree(folder)
    command.refused("reproduce", tmp_path / "run", because="there is no folder .*model")
    save_model(folder, seed=1)
    command.refused(
        "reproduce", tmp_path / "run", because="is weights-.* now, and the run was written by weights-.*: get that"
    )
    command_module._load.cache_clear()


# ---- runs made in Python ---------------------------------------------------------------------------------------------


def _push(one: SteeringVector, **how: Any) -> Intervention:
    traced = tiny("llama")
    facts = replace(one.provenance, model=traced.name, revision=traced.revision)
    return Intervention(replace(one, provenance=facts), 1, **how)


def test_a_run_of_a_task_of_ones_own_keeps_the_task_and_each_vector_once(tmp_path: Path) -> None:
    config = SynthesisConfig(
        ("jv", "su"), (TONE, "topic"), per_label=1, settings=Settings(max_new_tokens=3), max_tries=1
    )
    shared, other = vector(1), vector(2)
    conditions = [
        Condition("plain", {}),
        Condition("both", {c: (_push(shared), _push(other, operator="ablate")) for c in config.languages}),
        Condition("random", {"su": (_push(replace(other, name="v1", direction=-other.direction)),)}),
    ]
    _, cells, run = write_data(tiny("llama"), config, conditions, tmp_path / "run", progress=False)
    with run:
        run.finish()
    assert sorted(p.name for p in (tmp_path / "run" / "vectors").glob("v*.safetensors")) == [
        f"v{i}.safetensors" for i in range(3)
    ]
    again = cells_again(tmp_path / "run", read_config(tmp_path / "run"))
    assert [cell.to_json() for cell in again] == [cell.to_json() for cell in cells]
    for one, two in zip(cells, again, strict=True):
        assert all(a.vector.equals(b.vector) for a, b in zip(one.interventions, two.interventions, strict=True))
    assert again[0].task == TONE and prompt(again[0].task, "calm", "jv") == "Say a calm thing in Javanese language."
    assert "own_task" not in cells[-1].to_json() and cells[-1].task == "topic"


def test_a_run_goes_on_only_with_the_vectors_it_was_started_with(tmp_path: Path) -> None:
    config = SynthesisConfig(("jv",), ("sentiment",), per_label=1, settings=Settings(max_new_tokens=3), max_tries=1)

    def write(one: SteeringVector) -> dict[str, bytes]:
        written = write_data(
            tiny("llama"), config, [Condition("c", {"jv": (_push(one),)})], tmp_path / "run", progress=False
        )
        written[2].close()
        return content(tmp_path / "run")

    first = write(vector(1))
    assert write(vector(1)) == first
    with pytest.raises(SteerlabError, match="started with another vector of the name 'v1'"):
        write(replace(vector(2), name="v1"))
    assert content(tmp_path / "run") == first


def _double(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + strength * 2 * v


def test_a_function_as_operator_is_recorded_and_not_made_again(tmp_path: Path) -> None:
    config = SynthesisConfig(("jv",), ("sentiment",), per_label=1, settings=Settings(max_new_tokens=3), max_tries=1)
    conditions = [Condition("own", {"jv": (_push(vector(1), operator=_double),)})]
    _, cells, run = write_data(tiny("llama"), config, conditions, tmp_path / "run", progress=False)
    run.close()
    assert isinstance(cells[0], Cell) and "_double@" in str(cells[0].to_json()["interventions"])
    with pytest.raises(SteerlabError, match="is a function, which no record can hold"):
        cells_again(tmp_path / "run", read_config(tmp_path / "run"))


@pytest.mark.slow
def test_the_demo_is_repeated(command: Command, tmp_path: Path) -> None:
    assert command("demo", "-n", "1", "--out", tmp_path / "demo", "-q").code == 0
    said, rows = _again(command, tmp_path / "demo")
    assert said.code == 0 and rows["samples.jsonl"]["equal"] and rows["macro_f1"]["equal"]

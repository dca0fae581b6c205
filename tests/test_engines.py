"""One contract over every engine that can start here, and what each refuses before work starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from steerlab.batch import left_pad
from steerlab.engines.ndif import RemoteModel
from steerlab.engines.rows import check_alone
from steerlab.engines.tp import TensorParallelModel
from steerlab.engines.vllm import VLLMModel
from steerlab.errors import SteerlabError
from steerlab.loading import load
from steerlab.model import Side, TracedModel
from tests.command import save_model
from tests.engine_contract import compare, observe
from tests.walls import ROOT

FAMILIES = ("llama", "gemma2")
VLLM = Path(os.environ.get("STEERLAB_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
# What each engine refuses of what the local one does, by words of its sentence.
LIMITS = {
    "tp": {},
    "ndif": {
        "cache": "keeps no keys and values",
        "sampled": "most likely token only",
        "token positions": "by their ids",
        "pick": "samples by itself",
    },
    "vllm": {
        "attn_out": "what blocks put out",
        "logits": "of the last token only",
        "cache": "keeps no keys and values",
        "function": "edits by plans only",
        "token positions": "by their ids",
        "pick": "samples by itself",
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models on disk, which any process can load; vLLM has no kernels for smaller heads."""
    return {family: save_model(tmp_path_factory.mktemp(family), family, head_dim=32) for family in FAMILIES}


@pytest.fixture(scope="module")
def local(folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What the local engine answers."""
    return {family: observe(load(str(folder), device="cpu")) for family, folder in folders.items()}


def asked(*words: str, python: str | Path = sys.executable) -> None:
    """Run Python in a process of its own, one thread, no network."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-4000:]


def answers(folder: Path, engine: str, rank: int = 0) -> dict[str, Any]:
    """What an engine left in the folder; its limits are those listed, and no others."""
    found = json.loads((folder / f"{engine}-{rank}.json").read_text(encoding="utf-8"))
    refused = {name: sentence for name, sentence in found["limits"].items() if sentence}
    assert refused.keys() == LIMITS[engine].keys(), refused
    for name, words in LIMITS[engine].items():
        assert re.search(words, refused[name]), refused[name]
    return found


def test_an_unknown_engine_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SteerlabError, match="'warp' is not known: give one of 'local'.*'tp'.*'vllm'.*'ndif'"):
        load(engine="warp")


@pytest.mark.parametrize("engine", [TensorParallelModel, RemoteModel, VLLMModel])
@pytest.mark.parametrize("verb", ["forward", "decode", "past"])
def test_the_verbs_of_every_engine_take_the_same_arguments(engine: type[TracedModel], verb: str) -> None:
    """Also of those that cannot start here: what a verb learns and an engine does not breaks every call of it."""
    assert list(signature(getattr(engine, verb)).parameters) == list(signature(getattr(TracedModel, verb)).parameters)


@pytest.mark.parametrize(
    ("words", "because"),
    [({"sides": (Side(left_pad([[1]], 0)),)}, "cannot guide with other contexts"), ({"watch": print}, "back-off")],
)
def test_engines_that_write_by_themselves_say_what_they_cannot(words: dict[str, Any], because: str) -> None:
    with pytest.raises(SteerlabError, match=f"engine 'vllm' .*{because}"):
        check_alone("vllm", words.get("sides", ()), words.get("watch"))
    check_alone("vllm", (), None)


def test_the_contract_tells_steered_from_unsteered(local: dict[str, dict[str, Any]]) -> None:
    """Every kind of row writes something of its own, so that an engine that does nothing cannot pass."""
    for own in local.values():
        plain = own["sweep"][1::3]  # strength 0
        steered = [row for i, row in enumerate(own["written"].values()) if row != plain[i % len(plain)]]
        assert len(steered) >= len(own["written"]) - 3
        assert own["edited"]["edited"] != own["edited"]["after"]
        assert not any(own["limits"].values())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_tensor_parallel_processes_answer_as_one(
    family: str, folders: dict[str, Path], local: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.engine_contract")
    asked(*run, "tp", str(folders[family]), str(tmp_path))
    first, second = answers(tmp_path, "tp"), answers(tmp_path, "tp", 1)
    assert first == second
    compare(first, local[family])
    assert first["alone"] == local[family]["alone"]


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({}, "this process stands alone: start the program with `torchrun"),
        ({"device": "cuda:1"}, "take one device each"),
        ({"adapter": "some/expert"}, "cannot carry an adapter"),
        ({"device_map": "auto"}, "device_map was given"),
        ({"processes": "3"}, "cannot be split over 3 processes"),
    ],
)
def test_tensor_parallel_refuses(
    options: dict[str, Any], because: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(options)
    processes = given.pop("processes", "2")
    if options:
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, "0")
        monkeypatch.setenv("WORLD_SIZE", processes)
    if given.get("device") == "cuda:1":
        monkeypatch.setattr("steerlab.loading._check_device", lambda place: None)
    with pytest.raises(SteerlabError, match=because):
        load(str(folders["llama"]), engine="tp", **given)


# ---- models that are hosted elsewhere --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_simulated_service_answers_and_is_sent_tensors_and_plain_functions_alone(
    family: str, folders: dict[str, Path], local: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    asked("-m", "tests.engine_contract", "ndif", str(folders[family]), str(tmp_path))
    found = answers(tmp_path, "ndif")
    assert found["foreign"] == []
    compare(found, local[family])


# ---- vLLM ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_answers_as_the_local_engine(
    family: str, folders: dict[str, Path], local: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    if not VLLM.exists():
        pytest.skip("vLLM needs an environment of its own: `make test-vllm` builds it")
    asked("-m", "tests.engine_contract", "vllm", str(folders[family]), str(tmp_path), python=VLLM)
    compare(answers(tmp_path, "vllm"), local[family], tolerance=1e-4)


@pytest.mark.slow
def test_the_same_command_fills_a_data_set_in_vllm(tmp_path: Path) -> None:
    """polyglot-mini, steered as recommended; the run remembers its engine, and the local one does not continue it."""
    if not VLLM.exists():
        pytest.skip("vLLM needs an environment of its own: `make test-vllm` builds it")
    words = [
        "synthesize",
        "-l",
        "jv",
        "-n",
        "2",
        "--vector",
        "language",
        "--max-new-tokens",
        "24",
        "--source",
        "sample",
        "-q",
    ]
    out = tmp_path / "run"
    asked("-m", "steerlab.cli", *words, "--engine", "vllm", "--out", str(out), python=VLLM)
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2 * len({row["label"] for row in rows}) and all(row["text"] for row in rows)
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["engine"] == "vllm"
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    (perplexity,) = [row for row in metrics if row["metric"] == "log_perplexity"]
    assert perplexity["value"] is None and "last token only" in perplexity["reason"]
    with pytest.raises(AssertionError, match="another configuration"):
        asked("-m", "steerlab.cli", *words, "--out", str(out))


@pytest.mark.slow
def test_the_vllm_benchmark_writes_its_table(tmp_path: Path) -> None:
    if not VLLM.exists():
        pytest.skip("vLLM needs an environment of its own: `make test-vllm` builds it")
    asked("-m", "benchmarks.vllm", "--quick", "--out", str(tmp_path), python=VLLM)
    record = json.loads((tmp_path / "vllm.json").read_text(encoding="utf-8"))
    assert len(record["rows"]) == 5 and all(row["ratio"] > 0 for row in record["rows"])
    assert set(record["facts"].values()) == {record["config"]["rows"]}  # every row has the local engine's tokens


def test_vllm_is_asked_for_by_name_where_it_is_not_installed(folders: dict[str, Path]) -> None:
    with pytest.raises(SteerlabError, match="engine 'vllm' needs vLLM.*make test-vllm"):
        load(str(folders["llama"]), engine="vllm")

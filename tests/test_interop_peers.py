"""What is exported does in the other package what it does here, and what the other package writes is read: with the real ones.

Each test skips where its package is not installed; docs/formats.md names the versions this was run with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab.batch import left_pad
from steerlab.interop import export_vector, import_vectors
from steerlab.interop import torch_file as files
from steerlab.interop.foreign import scaled
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.command import save_model
from tests.tiny import hf_model, tiny, vector

IDS = [1, 40, 41, 42, 43, 60]
LAYERS = (1, 3)


def _here(own: SteeringVector, layers: tuple[int, ...], factor: float) -> Tensor:
    """Logits of the tiny model with the vector added at these layers, as this package does it."""
    rows = scaled(own, layers, "raw")
    edits = {Site(layer): (lambda h, row=row: h + factor * row) for layer, row in rows.items()}
    found = tiny("llama").forward(left_pad([IDS], 0), edit=edits, logits=True).logits
    assert found is not None
    return found[0]


def _logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0]


@pytest.fixture(scope="module")
def own() -> Iterator[SteeringVector]:
    found = vector(0)
    plain = _here(found, (), 0.0)
    assert float((_here(found, LAYERS, 2.0) - plain).abs().max()) > 0.5  # it steers, so equality below says something
    yield found


def test_steering_vectors_steers_alike_and_its_files_are_read(own: SteeringVector, tmp_path: Path) -> None:
    peer = pytest.importorskip("steering_vectors", reason="the package steering-vectors is not installed")
    path = export_vector(own, tmp_path / "v.pt", "steering-vectors", layers=LAYERS)
    theirs = peer.SteeringVector(**torch.load(path, weights_only=True))
    hf = hf_model("llama")
    with theirs.apply(hf, multiplier=2.0):
        torch.testing.assert_close(_logits(hf), _here(own, LAYERS, 2.0), atol=1e-5, rtol=1e-5)
    files.write(tmp_path / "w.pt", theirs)  # pickled whole, as its users do
    (back,) = import_vectors(tmp_path / "w.pt").values()
    torch.testing.assert_close(back.raw(3), own.raw(3))
    assert back.layers == LAYERS


@pytest.fixture
def repeng(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4.0 names it, numpy 2 has it no more
    return pytest.importorskip("repeng", reason="the package repeng is not installed")


def test_repeng_steers_alike_and_its_files_are_read(repeng: Any, own: SteeringVector, tmp_path: Path) -> None:
    path = export_vector(own, tmp_path / "v.gguf", "gguf", layers=LAYERS, hint="llama")
    theirs = repeng.ControlVector.import_gguf(path)
    assert theirs.model_type == "llama" and set(theirs.directions) == set(LAYERS)
    model = repeng.ControlModel(hf_model("llama"), list(LAYERS))  # it wants a direction for every layer it holds
    model.set_control(theirs, 2.0)
    torch.testing.assert_close(_logits(model), _here(own, LAYERS, 2.0), atol=1e-5, rtol=1e-5)
    theirs.export_gguf(tmp_path / "w.gguf")
    (back,) = import_vectors(tmp_path / "w.gguf").values()
    torch.testing.assert_close(back.raw(3), own.raw(3))
    files.write(tmp_path / "w.pt", theirs)
    (pickled,) = import_vectors(tmp_path / "w.pt").values()
    torch.testing.assert_close(pickled.raw(1), own.raw(1))


@pytest.mark.slow
def test_lm_evaluation_harness_steers_alike(own: SteeringVector, tmp_path: Path) -> None:
    peer = pytest.importorskip("lm_eval.models.hf_steered", reason="the package lm-eval is not installed")
    path = export_vector(own, tmp_path / "v.pt", "lm-eval", layers=LAYERS, coefficient=2.0)
    folder = save_model(tmp_path / "model")
    model = peer.SteeredModel(pretrained=str(folder), steer_path=str(path), device="cpu", dtype="float32")
    found = model._model_call(torch.tensor([IDS]))[0]
    torch.testing.assert_close(found, _here(own, LAYERS, 2.0), atol=1e-5, rtol=1e-5)


def test_peft_reads_an_adapter_that_was_attached_here(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the package peft is not installed")
    from steerlab.adapters import attach

    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(hf_model("llama"), settings)
    theirs.save_pretrained(tmp_path / "lora")
    ours = hf_model("llama")
    attach(ours, tmp_path / "lora")
    torch.testing.assert_close(_logits(ours), _logits(theirs))
    assert float((_logits(ours) - _logits(hf_model("llama"))).abs().max()) > 1e-3

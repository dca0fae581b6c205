"""Exported checkpoints are the steered model in plain transformers, and what a bias cannot do is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlab import export as exporting
from steerlab.ablation.forced import steered_logits
from steerlab.errors import SteerlabError
from steerlab.export import export
from steerlab.generation import Request, Settings, generate
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import GENERATED
from tests.command import Command, save_model
from tests.tiny import hf_model, stranger, tiny, tokenizer, vector

TEXTS = ["a small town", "rain", "the river was high that year"]
GREEDY = Settings(greedy=True, stop=(), max_new_tokens=12)
# Several at one place, several places of one vector, a strength in residual units.
PUSH = (
    Intervention(vector(1), (0, 2), strength=1.5),
    Intervention(vector(2), 2, strength=-0.5, unit="residual"),
    Intervention(vector(3, "mlp_out"), 1),
)


def parallel(family: str) -> TracedModel:
    """Residual branches side by side, as Pythia has them, and one after the other."""
    return tiny("neox", use_parallel_residual=family == "neox, parallel")


def subject(family: str) -> TracedModel:
    return parallel(family) if family.startswith("neox") else tiny(family)


def plainly(folder: Path, model: TracedModel) -> tuple[Tensor, list[list[int]]]:
    """Logits (b s v) and greedy tokens of the folder by transformers alone."""
    hf: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    text = AutoTokenizer.from_pretrained(folder, padding_side="left")
    inputs = text(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    batch = model.encode(TEXTS)
    assert torch.equal(inputs["input_ids"], batch.input_ids)
    with torch.no_grad():
        logits = hf(**inputs, position_ids=batch.position_ids).logits
        out = hf.generate(**inputs, max_new_tokens=GREEDY.max_new_tokens, do_sample=False)
    return logits, out[:, batch.input_ids.shape[1] :].tolist()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2", "neox, parallel", "neox, in turn"])
def test_the_checkpoint_is_the_steered_model(family: str, tmp_path: Path) -> None:
    model = subject(family)
    push = (*PUSH, Intervention(vector(4, "attn_out"), 1), Intervention(vector(5, "resid_pre"), 3, strength=0.7))
    before = {name: weight.clone() for name, weight in model.hf.state_dict().items()}
    found = export(model, push, tmp_path / "out")
    logits, tokens = plainly(found.folder, model)

    batch = model.encode(TEXTS)
    steered = steered_logits(model, batch, Plan.uniform(push, len(TEXTS)))
    plain = model.forward(batch, logits=True).logits
    assert plain is not None
    real = batch.real
    scale = float((steered - plain)[real].abs().max())
    assert scale > 0.5 and float((logits - steered)[real].abs().max()) < 1e-4 * scale
    samples = generate(model, [Request(t, (i,), push, chat=False) for i, t in enumerate(TEXTS)], GREEDY)
    for sample, row in zip(samples, tokens, strict=True):
        assert list(sample.tokens) == row[: len(sample.tokens)]
    unsteered = generate(model, [Request(t, (i,), chat=False) for i, t in enumerate(TEXTS)], GREEDY)
    assert [s.tokens for s in unsteered] != [s.tokens for s in samples]

    assert len(found.biases) == 4 and found.difference < 1e-4 * found.effect
    assert found.architecture == ("LlamaForCausalLM" if family in ("mistral", "qwen2") else type(model.hf).__name__)
    after = model.hf.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not list(tmp_path.glob(".*"))
    record = json.loads((found.folder / "steering.json").read_text(encoding="utf-8"))
    assert record["base"] == {"model": model.name, "revision": model.revision, "dtype": "float32"}
    assert record["interventions"] == [one.to_json() for one in push]


def test_half_precision_tied_weights_and_a_bias_that_is_there(tmp_path: Path) -> None:
    hf = hf_model("llama", torch.bfloat16, mlp_bias=True, tie_word_embeddings=True)
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.bias.fill_(0.25)
    model = wrap(hf, tokenizer(), name="tied")
    one = Intervention(vector(1), 1, strength=4.0)
    found = export(model, [one], tmp_path / "out")
    assert found.difference < 0.05 * found.effect
    again: Any = AutoModelForCausalLM.from_pretrained(found.folder)
    assert again.dtype == torch.bfloat16
    bias = again.model.layers[1].mlp.down_proj.bias
    assert torch.equal(bias, (0.25 + 4.0 * one.vector.at(1)).to(torch.bfloat16))
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert not again.model.layers[0].mlp.down_proj.bias.any()


one = Intervention(vector(1), 1)
REFUSED: dict[str, tuple[Callable[[], TracedModel], Intervention, str]] = {
    "operator": (lambda: tiny("llama"), Intervention(vector(1), 1, "ablate"), "'ablate', which depends on the stream"),
    "positions": (lambda: tiny("llama"), Intervention(vector(1), 1, positions=GENERATED), "positions generated"),
    "gate": (lambda: tiny("llama"), Intervention(vector(1), 1, gate=Gate(0.1)), "has a gate"),
    "nothing": (lambda: tiny("llama"), Intervention(vector(1), 1, strength=0.0), "add nothing"),
    "embedding": (lambda: tiny("llama"), Intervention(vector(1, "resid_pre"), 0), "before the first block"),
    "width": (lambda: tiny("llama"), Intervention(vector(1, width=16), 1), "width 16"),
    "gemma2": (lambda: tiny("gemma2"), one, "a norm behind attention and MLP"),
    "gemma3": (lambda: tiny("gemma3"), one, "a norm behind attention and MLP"),
    "qwen3": (lambda: tiny("qwen3"), one, "no bias that is added straight to the stream"),
    "phi3": (lambda: tiny("phi3"), one, "it can be exported for llama"),
    "window": (lambda: tiny("mistral", sliding_window=8), one, "sliding window"),
    "granite": (lambda: wrap(stranger("Granite", residual_multiplier=0.5), tokenizer()), one, "no bias"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_bias_cannot_do_is_refused_and_nothing_written(why: str, tmp_path: Path) -> None:
    make, what, because = REFUSED[why]
    with pytest.raises(SteerlabError, match=because):
        export(make(), [what], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_the_steered_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an architecture reads its bias otherwise than its name says."""
    monkeypatch.setitem(exporting.FAMILIES, "gpt2", exporting.Biases("mlp.c_fc.bias", "attn.c_proj.bias"))
    wide = Intervention(vector(1), 1, strength=3.0)
    model = wrap(hf_model("gpt2", n_inner=32), tokenizer())
    with pytest.raises(SteerlabError, match="read back, gives logits"):
        export(model, [wide], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SteerlabError, match="holds something already"):
        export(tiny("llama"), [one], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(monkeypatch, capsys)
    said = command("export", "jv", "--out", tmp_path / "jv", "--json")
    assert said.code == 0, said.err
    (row,) = json.loads(said.out)
    assert row["architecture"] == "LlamaForCausalLM" and row["difference"] < 1e-4 * row["effect"]
    assert (tmp_path / "jv" / "model.safetensors").is_file() and (tmp_path / "jv" / "tokenizer.json").is_file()
    folder, file = save_model(tmp_path / "gemma", "gemma2"), tmp_path / "v.safetensors"
    vector(1).save(file)
    command.refused(
        "export",
        file,
        "-m",
        folder,
        "-l",
        "1",
        "--unit",
        "raw",
        "--out",
        tmp_path / "no",
        because="was fitted on model",
    )

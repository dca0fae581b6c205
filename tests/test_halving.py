"""What does not fit in memory is done in halves: the same samples and sums as in one batch, one sentence, and nothing counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steerlab.activations import capture_activations
from steerlab.backoff import BackOff
from steerlab.capture import capture_moments
from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import embeddings, log_likelihood
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.halving import Halving, is_out_of_memory
from steerlab.instructions.ends import end_activations, prompt_ends
from steerlab.instructions.forms import find_form
from steerlab.layer_choice import read_streams
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from tests.command import Command, save_model
from tests.seq2seq import TEXTS as SLOVENE
from tests.seq2seq import nllb
from tests.tiny import CORE, hf_model, tokenizer, vector

TEXTS = [f"a text of {'many ' * (n % 4)}words, number {n}" for n in range(11)]
SAID = (
    "steerlab: out of memory with {} {} at a time: going on with {}, and fewer where needed; "
    "the results stay the same but for rounding.\n"
)


def full(rows: int) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows}.00 GiB.\nGPU 0 has none.")


@contextmanager
def room_for(module: Any, most: int) -> Iterator[list[int]]:
    """The module's forward, in the middle of a model, fails for batches of more rows; the sizes it was asked for."""
    asked: list[int] = []

    def check(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows = len(given[0] if given else named["hidden_states"])
        asked.append(rows)
        if rows > most:
            raise full(rows)

    handle = module.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield asked
    finally:
        handle.remove()


def model(family: str = "llama") -> TracedModel:
    return wrap(hf_model(family), tokenizer(), name=f"own-{family}")


def test_parts_are_halved_until_they_fit_and_stay_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    def work(part: list[int]) -> list[int]:
        tried.append(len(part))
        if len(part) > 3:
            raise MemoryError
        return [2 * n for n in part]

    memory = Halving("numbers")
    found = [n for part in memory.run(range(13), work) for n in part]
    assert found == [2 * n for n in range(13)] and tried[:3] == [13, 7, 4] and memory.most == 2
    assert capsys.readouterr().err == SAID.format(13, "numbers", 7)
    tried.clear()
    assert len(memory.run(range(9), work)) == 5 and max(tried) == 2  # what failed once is not tried again
    assert capsys.readouterr().err == ""  # and said once
    assert memory.run([], work) == [] and len(Halving("x").run([1], work)) == 1


def test_one_item_that_does_not_fit_and_other_errors_are_told() -> None:
    def fails(part: list[int]) -> None:
        raise full(80)

    with pytest.raises(
        SteerlabError, match=r"one of the texts alone .CUDA out of memory. Tried .*: use a smaller dtype"
    ):
        Halving("texts").run([1, 2, 3], fails)
    with pytest.raises(RuntimeError, match="shapes"):
        Halving("texts").run([1, 2], lambda part: (_ for _ in ()).throw(RuntimeError("shapes do not fit")))


def test_the_allocator_of_this_machine_is_understood() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(real.value) and is_out_of_memory(full(1)) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("family", CORE)
def test_samples_are_those_of_the_whole_batch(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = model(family)
    push = (Intervention(vector(1), 1, strength=4.0),)
    asked = [
        Request(
            text, ("k", n), push if n % 2 else (), guided=Guided(Guide(gamma=0.4, eta=0.0), base_prompt="b") if n % 3 == 0 else None,
            backoff=BackOff() if n % 2 else None,
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    settings = Settings(max_new_tokens=9, temperature=1.2, stop=("a",))
    whole = generate(own, asked, settings, batch_rows=8)
    with room_for(own.hf.get_decoder().layers[2], 3) as sizes:
        halved = generate(own, asked, settings, batch_rows=8)
    assert halved == whole and max(sizes) == 8
    assert capsys.readouterr().err == SAID.format(8, "texts", 4)


@pytest.mark.parametrize("weighting", ["token", "text"])
def test_no_text_is_counted_twice_when_a_capture_fails_half_way(
    weighting: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pass fails at the third block, when the first two have been added to the sums already."""
    own = model()
    whole = capture_moments(own, TEXTS, weighting=weighting, token_budget=512)
    with room_for(own.hf.model.layers[2], 2) as sizes:
        halved = capture_moments(own, TEXTS, weighting=weighting, token_budget=512)
    assert max(sizes) > 4 and capsys.readouterr().err.count("out of memory") == 1
    assert torch.allclose(halved.count, whole.count, rtol=1e-12)
    for name in ("mean", "variance", "norm"):
        assert torch.allclose(getattr(halved, name), getattr(whole, name), rtol=1e-5, atol=1e-7), name


@pytest.mark.slow
def test_activations_scores_and_streams_are_those_of_the_whole_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, form = model(), find_form("chat")
    weights = torch.full((1, len(TEXTS)), 1 / len(TEXTS), dtype=torch.float64)
    groups = ["a", "a", "a", "a", "a", "b", "c", "d", "e", "f", "g"]

    def all_of(name: str) -> dict[str, np.ndarray]:
        likelihood, counts = log_likelihood(own, TEXTS)
        ends = prompt_ends(own, TEXTS, weights, form=form, groups=groups)
        streams = read_streams(own, {"x": TEXTS[:6], "y": TEXTS[6:]}, per_text=3)
        return {
            "activations": np.array(capture_activations(own, TEXTS, tmp_path / name, pooling="tokens").values),
            "likelihood": likelihood, "counts": counts, "embeddings": embeddings(own, TEXTS),
            "ends": ends.means.numpy(), "norm": ends.norm.numpy(),
            "each end": end_activations(own, TEXTS, form=form, groups=groups).numpy(),
            "means": streams.means["y"].mean, "stream norm": streams.norm.numpy() if streams.norm is not None else np.zeros(0),
        }  # fmt: skip

    whole = all_of("whole")
    capsys.readouterr()
    with room_for(own.hf.model.layers[2], 2):
        halved = all_of("halved")
    assert capsys.readouterr().err.count("out of memory") == 6
    for name, wanted in whole.items():
        np.testing.assert_allclose(halved[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_translations_are_those_of_the_whole_batch(capsys: pytest.CaptureFixture[str]) -> None:
    own = nllb()
    whole = own.run(list(SLOVENE), "slv_Latn", "eng_Latn", max_new_tokens=8)
    encoder: Any = own.hf.get_encoder()
    with room_for(encoder.layers[0], 2):
        assert own.run(list(SLOVENE), "slv_Latn", "eng_Latn", max_new_tokens=8) == whole
    assert capsys.readouterr().err.count("out of memory") == 1


def test_a_command_that_cannot_do_less_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where there are no halves, the training of an expert, an error of the allocator is still one sentence."""
    from steerlab.experts import training

    def fails(*_: Any, **__: Any) -> None:
        raise full(3)

    monkeypatch.setattr(training, "fit", fails)
    (tmp_path / "mine.txt").write_text("".join(f"number {n} says abc\n" for n in range(12)), encoding="utf-8")
    base = save_model(tmp_path / "base")
    words = (
        "expert",
        "train",
        "-t",
        tmp_path / "mine.txt",
        "-m",
        base,
        "--instruction",
        "Write.",
        "--out",
        tmp_path / "expert",
        "-q",
    )
    Command(monkeypatch, capsys).refused(
        *words, because="out of memory .CUDA out of memory. Tried to allocate 3.00 GiB"
    )

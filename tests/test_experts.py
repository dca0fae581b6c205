"""Experts learn what their texts have in common; a seed decides every byte; the base stays as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab import load
from steerlab.errors import SteerlabError
from steerlab.experts import Expert, ExpertConfig, Pair, lora, read_expert, train_expert, training
from steerlab.experts.expert import CARD, LOCK, RECORD, SAMPLES
from steerlab.experts.lora import CONFIG, WEIGHTS, lora_inside
from steerlab.experts.pairs import token_rows
from steerlab.generation import Request, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.records import pretty, sealed
from tests.command import save_model
from tests.tiny import CORE, hf_model, tokenizer

ASK = "Write: "
SMALL = ExpertConfig(
    rank=4, alpha=8, learning_rate=1e-2, batch_size=8, steps=24, evaluate_every=6, max_length=48, dropout=0.1, patience=0
)  # fmt: skip


def planted(n: int, first: int = 0) -> list[Pair]:
    """Texts in which every letter is followed by the next of the alphabet."""
    found = []
    for i in range(first, first + n):
        at = i * 7 % 20
        found.append(Pair(ASK, "".join(chr(97 + (at + k) % 26) for k in range(10)) + f" {i}"))
    return found


def fresh(family: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> TracedModel:
    return wrap(hf_model(family, dtype, **changes), tokenizer(), name=f"tiny-{family}")


def logits(model: TracedModel) -> Tensor:
    found = model.forward(model.encode([ASK, "abc", "Write: defg"]), logits=True).logits
    assert found is not None
    return found


def weights(model: TracedModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.hf.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Expert:
    """One expert of the tiny Llama, for the tests that only look at it."""
    return train_expert(
        fresh(), planted(24), tmp_path_factory.mktemp("expert"), SMALL, planted(12, 40), samples=6, progress=False
    )


@pytest.mark.parametrize("family", CORE)
def test_training_lowers_the_loss_on_a_planted_pattern_and_leaves_the_base(family: str, tmp_path: Path):
    model = fresh(family)
    before, answers = weights(model), logits(model)
    learning = [weight.requires_grad for weight in model.hf.parameters()]
    modules = [(name, type(module)) for name, module in model.hf.named_modules()]
    expert = train_expert(model, planted(24), tmp_path, SMALL, planted(12, 40), samples=2, progress=False)
    losses = [row["validation_loss"] for row in expert.history]
    assert losses[-1] < 0.8 * losses[0] and expert.memorisation.validation_loss == pytest.approx(min(losses), abs=1e-5)
    after = weights(model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(answers, logits(model)) and not model.hf.training
    assert learning == [weight.requires_grad for weight in model.hf.parameters()]
    assert modules == [(name, type(module)) for name, module in model.hf.named_modules()]


@pytest.mark.parametrize(("family", "dtype"), [*((f, "float32") for f in (*CORE, "gpt2")), ("llama", "bfloat16")])
def test_the_saved_adapter_is_the_trained_model(
    family: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = save_model(tmp_path / "base", family, dtype=getattr(torch, dtype))
    model = load(str(base), dtype=dtype, device="cpu")
    seen: list[Tensor] = []
    write = lora.write_adapter

    def watch(inside: Any, *rest: Any) -> None:
        model.hf.eval()
        seen.append(logits(model))
        write(inside, *rest)

    monkeypatch.setattr("steerlab.experts.expert.write_adapter", watch)
    config = replace(SMALL, steps=3, evaluate_every=3, keep="last")
    train_expert(model, planted(16), tmp_path / "expert", config, planted(4, 40), samples=0, progress=False)
    expert = load(str(base), dtype=dtype, device="cpu", adapter=tmp_path / "expert")
    assert not torch.equal(seen[0], logits(model))
    gap = (logits(expert) - seen[0]).float().norm() / seen[0].float().norm()
    assert gap == 0 if dtype == "float32" else gap < 0.02  # in bfloat16 the adapter is loaded rounded
    assert expert.adapter is not None
    with expert.adapter.off():
        assert torch.equal(logits(expert), logits(model))
    guided = Guided(Guide(0.5, 0.3), "abc")
    asked = [Request(ASK, ("x", i), chat=False, guided=guided) for i in range(2)]
    assert len(generate(expert, asked, Settings(max_new_tokens=3))) == 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(trained: Expert, tmp_path: Path):
    def again(folder: str, seed: int) -> Path:
        config = replace(SMALL, seed=seed)
        train_expert(fresh(), planted(24), tmp_path / folder, config, planted(12, 40), samples=6, progress=False)
        return tmp_path / folder

    names = sorted(path.name for path in trained.folder.iterdir())
    assert names == sorted([LOCK, CARD, CONFIG, WEIGHTS, RECORD, SAMPLES])
    state = torch.get_rng_state()
    same, other = again("same", 0), again("other", 1)
    assert torch.equal(state, torch.get_rng_state())
    assert all((same / name).read_bytes() == (trained.folder / name).read_bytes() for name in names if name != LOCK)
    assert (other / WEIGHTS).read_bytes() != (same / WEIGHTS).read_bytes()


@pytest.mark.parametrize("killed_at", [0, 6])
def test_a_killed_run_continues_and_ends_with_the_same_bytes(
    killed_at: int, trained: Expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step = training._step
    steps: list[int] = []

    def dying(*words: Any) -> tuple[float, int]:
        steps.append(words[3])
        if words[3] == killed_at and len(set(steps)) == len(steps):
            raise KeyboardInterrupt
        return step(*words)

    monkeypatch.setattr(training, "_step", dying)
    given = (planted(24), tmp_path, SMALL, planted(12, 40))
    model = fresh()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        train_expert(model, *given, samples=6, progress=False)
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    with pytest.raises(SteerlabError, match="training was interrupted: give the command that began it again"):
        read_expert(tmp_path)
    monkeypatch.setattr(training, "_step", lambda *words: (steps.append(words[3]), step(*words))[1])
    del steps[:]
    expert = train_expert(model, *given, samples=6, progress=False)
    assert steps[0] == killed_at - killed_at % SMALL.evaluate_every and steps[-1] == SMALL.steps - 1
    assert expert.record == trained.record
    assert (tmp_path / WEIGHTS).read_bytes() == (trained.folder / WEIGHTS).read_bytes()


def test_a_finished_expert_is_not_trained_again_and_another_is_refused(
    trained: Expert, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "fit", lambda *words: pytest.fail("it trained"))
    given = (fresh(), planted(24), trained.folder)
    assert train_expert(*given, SMALL, planted(12, 40), samples=6).record == trained.record
    with pytest.raises(SteerlabError, match=r"holds another expert \(config.rank is 4 there, 8 now\)"):
        train_expert(*given, replace(SMALL, rank=8), planted(12, 40), samples=6)
    with pytest.raises(SteerlabError, match="holds another expert .*provenance.data"):
        train_expert(*given, SMALL, planted(11, 40), samples=6)


def test_an_interrupted_training_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_step", die)
    with pytest.raises(KeyboardInterrupt):
        train_expert(fresh(), planted(20), tmp_path, SMALL, planted(4, 40), progress=False)
    with pytest.raises(SteerlabError, match=r"holds another training \(config.alpha is 8 there, 4 now\)"):
        train_expert(fresh(), planted(20), tmp_path, replace(SMALL, alpha=4), planted(4, 40), progress=False)


def test_training_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = [5.0, 4.0, 3.0, 3.5, 3.0]
    losses = iter([*script, 1.0, 1.0])
    config = replace(SMALL, steps=60, evaluate_every=2, patience=2, schedule="constant", warmup=0.0)
    given = (planted(20), planted(6, 40))
    with monkeypatch.context() as patched:
        patched.setattr(training, "text_loss", lambda *words: next(losses))
        expert = train_expert(fresh(), given[0], tmp_path / "a", config, given[1], samples=0, progress=False)
    assert [row["validation_loss"] for row in expert.history] == script
    assert expert.record["stopped_early"] and expert.record["steps"] == 8 and expert.record["kept_step"] == 4
    last = replace(config, steps=4, patience=0, keep="last")
    other = train_expert(fresh(), given[0], tmp_path / "b", last, given[1], samples=0, progress=False)
    assert (expert.folder / WEIGHTS).read_bytes() == (other.folder / WEIGHTS).read_bytes()


def test_memory_options_change_no_step(tmp_path: Path):
    """Checkpointing and accumulation give the gradients of one plain batch."""
    found = []
    for name, changes in {
        "plain": {},
        "checkpointed": {"checkpointing": True},
        "accumulated": {"batch_size": 2, "accumulate": 4},
    }.items():
        config = replace(SMALL, steps=2, evaluate_every=2, dropout=0.0, **changes)
        expert = train_expert(fresh(), planted(20), tmp_path / name, config, planted(4, 40), samples=0, progress=False)
        found.append(expert.history[-1]["validation_loss"])
    assert found[0] < expert.history[0]["validation_loss"] - 1e-3
    assert found == pytest.approx([found[0]] * 3, abs=1e-5)


def test_the_loss_is_on_the_text_alone_or_on_the_prompt_too(tmp_path: Path):
    model = fresh()
    rows = token_rows(model, planted(3), 48)
    starts = {row.start for row in rows}
    assert starts == {len(model.token_rows([ASK])[0])} and all(row.ids[-1] == 2 for row in rows)
    found = {}
    for only in (True, False):
        config = replace(SMALL, completion_only=only, steps=1, evaluate_every=1, dropout=0.0, batch_size=3)
        with lora_inside(model, config) as inside:
            found[only] = training._step(model, rows, config, 0, torch.optim.AdamW(inside.parameters()), {})
    assert found[True][1] == sum(len(row.ids) - row.start for row in rows)
    assert found[False][1] == sum(len(row.ids) - 1 for row in rows)
    plain = training.text_loss(model, rows, 2)
    assert plain == pytest.approx(found[True][0] / found[True][1], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"targets": ("q_proj", "query")}, "no linear layers named query: give some of down_proj, .*or all-linear"),
        ({"targets": ("lm_head",)}, "no linear layers named lm_head"),
        (
            {"quantise": "nf4"},
            "needs a CUDA GPU and bitsandbytes, and there is no (CUDA GPU|package bitsandbytes) here",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], told: str, tmp_path: Path):
    with pytest.raises(SteerlabError, match=told):
        train_expert(fresh(), planted(20), tmp_path, replace(SMALL, **changes), progress=False)
    assert not (tmp_path / WEIGHTS).exists()


def test_an_adapter_on_top_of_an_adapter_is_refused(trained: Expert, tmp_path: Path):
    base = save_model(tmp_path / "base")
    expert = load(str(base), device="cpu", adapter=trained.folder)
    with pytest.raises(SteerlabError, match="already has the adapter"):
        train_expert(expert, planted(20), tmp_path / "x", SMALL, progress=False)


@pytest.mark.parametrize("pairs", [[], [Pair(ASK, " ")], [Pair(ASK, "one text only")]])
def test_too_few_texts_are_refused(pairs: list[Pair], tmp_path: Path):
    with pytest.raises(SteerlabError, match="an expert (learns from texts|needs both)"):
        train_expert(fresh(), pairs, tmp_path, SMALL, progress=False)


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path):
    config = replace(SMALL, learning_rate=1e30, warmup=0.0, clip=1e30)
    with pytest.raises(SteerlabError, match="loss .*became (nan|inf).*lower the learning rate"):
        train_expert(fresh(), planted(20), tmp_path, config, planted(4, 40), progress=False)


def test_the_record_says_what_was_trained_on_what(trained: Expert):
    asked = trained.record["asked"]
    assert trained.base == "tiny-llama" and asked["texts"] == {"train": 24, "validation": 12}
    assert asked["prompts"] == [ASK] and not asked["chat"] and not trained.offensive
    assert [name for name, _ in asked["provenance"]["data"]] == ["train", "validation"]
    assert len(trained.samples()) == 6 and all(row["prompt"] == ASK for row in trained.samples())
    assert json.loads((trained.folder / CONFIG).read_text())["base_model_name_or_path"] == "tiny-llama"
    text = (trained.folder / CARD).read_text()
    assert 'base_model: "tiny-llama"' in text and not any(pair.text in text for pair in planted(52))


def test_changed_weights_and_foreign_folders_are_refused(trained: Expert, tmp_path: Path):
    with pytest.raises(SteerlabError, match="has no expert.json: give a folder"):
        read_expert(tmp_path)
    (tmp_path / RECORD).write_bytes((trained.folder / RECORD).read_bytes())
    (tmp_path / WEIGHTS).write_bytes((trained.folder / WEIGHTS).read_bytes()[:-1] + b"!")
    with pytest.raises(SteerlabError, match="is not what was trained"):
        read_expert(tmp_path)
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(SteerlabError, match="no record of an expert"):
        read_expert(tmp_path)


def test_a_changed_number_is_noticed_and_a_record_of_the_first_layout_is_read(trained: Expert, tmp_path: Path):
    """The first layout had no checksum of itself, of the samples and of the card."""
    place = shutil.copytree(trained.folder, tmp_path / "expert")
    assert read_expert(place).record == trained.record and trained.record["schema"] == 2
    (place / RECORD).write_bytes(pretty({**trained.record, "steps": 10_000}))
    with pytest.raises(SteerlabError, match=f"{RECORD} was changed after it was written: delete {RECORD} and train"):
        read_expert(place)
    (place / RECORD).write_bytes(pretty(sealed({**trained.record, "schema": 9})))
    with pytest.raises(SteerlabError, match="layout 9, and this steerlab reads layouts up to 2"):
        read_expert(place)
    old = {name: value for name, value in trained.record.items() if name not in ("files", "sha256")} | {"schema": 1}
    (place / RECORD).write_bytes(pretty(old))
    (place / CARD).write_text("edited")
    assert read_expert(place).history == trained.history

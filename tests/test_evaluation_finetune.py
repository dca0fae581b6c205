"""Transformers of every shape learn labels; a seed decides everything; stopping goes back to the best epoch; finished seeds stay."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState

from steerlab.errors import SteerlabError
from steerlab.evaluation import classifier, finetune
from steerlab.evaluation.classifier import FineTuneConfig, find_base
from steerlab.evaluation.downstream import difference, train_and_test
from steerlab.evaluation.finetune import SEEDS, FineTuned, fine_tune
from steerlab.store import RunFolder
from tests.command import save_model
from tests.tiny import COMMON, WIDE, tokenizer

LABELS = ("north", "south")
Texts = tuple[list[str], list[str]]


def _made(n: int, seed: int, labels: tuple[str, ...] = LABELS) -> Texts:
    """Texts of letters, of which each label has its own half of the alphabet."""
    rng = np.random.default_rng(seed)
    texts, given = [], []
    for k, label in enumerate(labels):
        for _ in range(n):
            letters = rng.choice(list("abcdef" if k == 0 else "uvwxyz"), size=int(rng.integers(4, 14)))
            texts.append("".join(letters))
            given.append(label)
    return texts, given


TRAIN, VALIDATION, TEST = _made(12, 0), _made(12, 1), _made(10, 2)


def _encoder(folder: Path) -> Path:
    """A tiny XLM-R with a byte tokenizer."""
    fields: dict[str, Any] = {**COMMON, **WIDE, "max_position_embeddings": 40}
    torch.manual_seed(0)
    model = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**fields))
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    found = {family: str(save_model(root / family, family)) for family in ("llama", "gemma2", "qwen2", "gpt2")}
    found["no-pad"] = str(save_model(root / "no-pad", "llama", pad=False, pad_token_id=None))
    found["xlm-roberta"] = str(_encoder(root / "xlm-roberta"))
    return found


def _quick(model: str, **changes: Any) -> FineTuneConfig:
    fields = {"learning_rate": 3e-3, "batch_size": 6, "epochs": 5, "patience": 5, "seeds": (1, 2), "cpu": True}
    return FineTuneConfig(model, **{**fields, **changes})


def _same(a: FineTuned, b: FineTuned) -> bool:
    numbers = (a.epochs, a.best_epoch, a.validation) == (b.epochs, b.best_epoch, b.validation)
    return numbers and (a.result.predicted == b.result.predicted).all() and a.result.macro_f1 == b.result.macro_f1


def test_the_defaults_are_the_studys() -> None:
    config = FineTuneConfig()
    assert (config.model, config.learning_rate, config.batch_size) == ("FacebookAI/xlm-roberta-base", 2e-5, 16)
    assert (config.epochs, config.patience, config.max_length, config.dropout) == (50, 10, 512, 0.2)
    assert config.seeds == tuple(range(1, 21))


@pytest.mark.parametrize("family", ["xlm-roberta", "llama", "gemma2", "qwen2", "gpt2", "no-pad"])
def test_every_shape_of_model_learns(models: dict[str, str], family: str) -> None:
    found = fine_tune(TRAIN, TEST, VALIDATION, _quick(models[family], seeds=(1,)), progress=False)
    assert found.result.macro_f1.value > 0.8
    assert found.result.labels == LABELS and found.result.predicted.shape == (1, 20)
    assert found.validation[0] > 0.9 and 1 <= found.best_epoch[0] <= found.epochs[0] <= 5
    assert found.result.train_size == 24 and found.validation_size == 24
    unfit = _quick(models[family], seeds=(1,), learning_rate=1e-12, epochs=1)
    assert fine_tune(TRAIN, TEST, VALIDATION, unfit, progress=False).result.macro_f1.value < 0.75


def test_polyglot_mini_learns_a_handful_of_texts() -> None:
    sport = ["Tim menang pertandingan bola", "Atlet berlari cepat", "Pelatih memuji pemain", "Gol di menit akhir"]
    health = [
        "Dokter memeriksa pasien",
        "Obat ini mengurangi nyeri",
        "Virus menyebar di kota",
        "Perawat di rumah sakit",
    ]
    texts: Texts = ([*sport, *health], ["sports"] * 4 + ["health"] * 4)
    config = _quick("polyglot-mini", learning_rate=5e-4, batch_size=8, seeds=(1,), epochs=6)
    before = fine_tune(texts, texts, texts, replace(config, learning_rate=1e-12, epochs=1), progress=False)
    after = fine_tune(texts, texts, texts, config, progress=False)
    assert before.result.macro_f1.value < 0.9 and after.result.macro_f1.value == 1
    assert after.validation == (1.0,) and after.result.labels == ("health", "sports")


def test_two_runs_agree_to_the_bit_and_leave_the_process_as_it_was(models: dict[str, str]) -> None:
    config = _quick(models["xlm-roberta"], epochs=2, learning_rate=5e-4)  # with dropout at work
    state = repr(np.random.get_state())  # noqa: NPY002
    kept, level = dict(AcceleratorState._shared_state), transformers.utils.logging.get_verbosity()
    rows: list[list[dict[str, Any]]] = []
    for draws in (0, 3):
        torch.rand(draws)  # whatever the process drew before
        before = torch.get_rng_state()
        rows.append(_trained(config))
        assert torch.equal(torch.get_rng_state(), before)
    assert rows[0] == rows[1] and rows[0][0]["logits"] != rows[0][1]["logits"]
    assert repr(np.random.get_state()) == state  # noqa: NPY002
    assert kept == AcceleratorState._shared_state
    assert transformers.utils.logging.get_verbosity() == level


def _trained(config: FineTuneConfig) -> list[dict[str, Any]]:
    """Every seed's row with the logits of the last answers."""
    base = find_base(config, LABELS)
    parts = [base.rows(*part, 512) for part in (TRAIN, VALIDATION, TEST)]
    logits: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        real = classifier.AutoModelForSequenceClassification.from_pretrained

        def watched(*words: Any, **named: Any) -> Any:
            model = real(*words, **named)
            model.register_forward_hook(lambda *args: logits.append(args[-1].logits.tolist()))
            return model

        patch.setattr(classifier.AutoModelForSequenceClassification, "from_pretrained", watched)
        with classifier.accelerate(config) as accelerator, finetune.tqdm(disable=True) as bar:
            rows = []
            for seed in config.seeds:
                row = classifier.train_seed(seed, base, parts, config, accelerator, bar)
                rows.append({**row, "logits": logits[-1]})
    return rows


def _scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    left = iter(scores)
    monkeypatch.setattr(classifier, "macro_f1", lambda *arguments: np.array([next(left)]))


def test_training_stops_when_validation_no_longer_rises(
    monkeypatch: pytest.MonkeyPatch, models: dict[str, str]
) -> None:
    config = _quick(models["llama"], seeds=(1,), epochs=9, patience=3)
    _scripted(monkeypatch, [0.2, 0.5, 0.5, 0.4, 0.5, 0.9, 0.9, 0.9, 0.9])
    found = fine_tune(TRAIN, TEST, VALIDATION, config, progress=False)
    assert (found.epochs, found.best_epoch, found.validation) == ((5,), (2,), (0.5,))
    _scripted(monkeypatch, [0.1 * i for i in range(1, 10)])
    rising = fine_tune(TRAIN, TEST, VALIDATION, config, progress=False)
    assert (rising.epochs, rising.best_epoch) == ((9,), (9,))


def test_the_best_epochs_weights_answer(monkeypatch: pytest.MonkeyPatch, models: dict[str, str]) -> None:
    config = _quick(models["llama"], seeds=(1,), learning_rate=1e-3)
    shuffled = TRAIN[0], np.random.default_rng(0).permutation(TRAIN[1]).tolist()  # answers keep changing
    scores = {"first": [0.9, *[0.1] * 4], "last": [*[0.1] * 4, 0.9], "only": [0.5]}
    found = {}
    for name, script in scores.items():
        _scripted(monkeypatch, script)
        epochs = replace(config, epochs=1 if name == "only" else 5)
        found[name] = fine_tune(shuffled, TRAIN, VALIDATION, epochs, progress=False).result.predicted
    assert (found["first"] == found["only"]).all() and (found["first"] != found["last"]).any()


@pytest.mark.parametrize("family", ["xlm-roberta", "llama", "gpt2", "no-pad"])
def test_a_padded_batch_answers_as_its_texts_alone(models: dict[str, str], family: str) -> None:
    base = find_base(_quick(models[family]), LABELS)
    rows = base.rows(["abc", "uvwxyzuvwxyz", "a"], ["north", "south", "north"], 512)
    with classifier._quiet(), torch.random.fork_rng():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base.source, config=base.hf).eval()
    pad, device = base.hf.pad_token_id, torch.device("cpu")
    with torch.no_grad():
        together = model(**rows.batch([0, 1, 2], pad, device)).logits
        alone = torch.cat([model(**rows.batch([i], pad, device)).logits for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_long_texts_are_cut_to_what_the_model_takes(models: dict[str, str]) -> None:
    base = find_base(_quick(models["xlm-roberta"]), LABELS)
    assert [len(row) for row in base.rows(["a" * 500, "a"], ["north", "south"], 512).ids] == [39, 2]
    assert [len(row) for row in base.rows(["a" * 500], ["north"], 10).ids] == [10]
    long = ([text * 20 for text in TEST[0]], TEST[1])
    assert fine_tune(long, long, long, _quick(base.source, seeds=(1,), epochs=1), progress=False).epochs == (1,)


def test_dropout_stands_before_the_head_where_there_is_one(models: dict[str, str]) -> None:
    assert find_base(_quick(models["xlm-roberta"]), LABELS).hf.classifier_dropout == 0.2
    assert find_base(_quick(models["xlm-roberta"], dropout=0.0), LABELS).hf.classifier_dropout == 0.0
    assert not hasattr(find_base(_quick(models["llama"]), LABELS).hf, "classifier_dropout")


def test_scores_and_intervals_are_those_of_the_classical_classifier(models: dict[str, str]) -> None:
    classical = train_and_test(*TRAIN, *TEST, seeds=(1, 2))
    again = finetune._scored(classical.predicted, classical.truth, classical.labels, classical.seeds, 24, 0)
    assert again.macro_f1 == classical.macro_f1 and again.per_class == classical.per_class
    assert again.per_seed == classical.per_seed and again.seed_interval == classical.seed_interval
    tuned = fine_tune(TRAIN, TEST, VALIDATION, _quick(models["llama"], epochs=3), progress=False).result
    gap = difference(tuned, classical)
    assert gap.value == pytest.approx(tuned.macro_f1.value - classical.macro_f1.value)


def test_without_validation_texts_a_share_of_the_training_texts_stops(models: dict[str, str]) -> None:
    config = _quick(models["llama"], seeds=(1,), epochs=1, validation_share=0.25)
    padded = ([*TRAIN[0], TRAIN[0][0], " "], [*TRAIN[1], "south", "north"])
    found = fine_tune(padded, TEST, config=config, progress=False)
    assert (found.result.train_size, found.validation_size, found.result.dropped) == (18, 6, 2)


def test_a_label_only_the_test_has_scores_zero(models: dict[str, str]) -> None:
    test = ([*TEST[0], "mmmm", "nnnn"], [*TEST[1], "east", "east"])
    found = fine_tune(TRAIN, test, VALIDATION, _quick(models["llama"], seeds=(1,)), progress=False).result
    assert found.labels == ("east", "north", "south") and found.per_class["east"].value == 0
    assert found.per_class["north"].value > 0.8 and (found.predicted != 0).all()


def test_finished_seeds_are_kept_and_only_for_the_same_question(
    monkeypatch: pytest.MonkeyPatch, models: dict[str, str], tmp_path: Path
) -> None:
    config = _quick(models["llama"], seeds=(1, 2, 3), epochs=2)
    whole = fine_tune(TRAIN, TEST, VALIDATION, config, progress=False)
    seen: list[int] = []
    real = finetune.train_seed

    def counted(seed: int, *words: Any) -> Any:
        seen.append(seed)
        return real(seed, *words)

    monkeypatch.setattr(finetune, "train_seed", counted)
    with RunFolder.open(tmp_path / "run", {"a": 1}) as run:
        fine_tune(TRAIN, TEST, VALIDATION, replace(config, seeds=(2,)), run, progress=False)
    with RunFolder.open(tmp_path / "run", {"a": 1}) as run:
        resumed = fine_tune(TRAIN, TEST, VALIDATION, config, run, progress=False)
        assert seen == [2, 1, 3] and _same(resumed, whole) and len(run.read(SEEDS)) == 3
        fine_tune(TRAIN, TEST, VALIDATION, replace(config, learning_rate=1e-4), run, progress=False)
        fine_tune(TRAIN, _made(9, 2), VALIDATION, replace(config, seeds=(1,)), run, progress=False)
        assert seen[3:] == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("train", "test", "validation", "words"),
    [
        (
            TRAIN,
            TEST,
            (["a"], ["North"]),
            r"labels \['North'\] were given, and the classifier learns \['north', 'south'\]",
        ),
        (TRAIN, TEST, ([" "], ["north"]), "0 validation texts"),
        ((["a", "b"], ["north"] * 2), TEST, None, r"2 training texts with the labels \['north'\]"),
        (TRAIN, (["a"], ["North"]), None, "none in common"),
        (TRAIN, ([], []), None, "none in common"),
        ((["a"], ["x", "y"]), TEST, None, "1 training texts and 2 labels"),
    ],
)
def test_bad_data_is_told_before_a_model_is_read(train: Texts, test: Texts, validation: Any, words: str) -> None:
    with pytest.raises(SteerlabError, match=rf"{words}[^\n]*$"):
        fine_tune(train, test, validation, FineTuneConfig("nowhere/no-model"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: give above 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": ()}, "at least one"),
        ({"precision": "int8"}, "one of no, bf16, fp16"),
        ({"validation_share": 0.0}, "validation_share"),
    ],
)
def test_values_that_cannot_be_are_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SteerlabError, match=words):
        FineTuneConfig(**changes)


def test_what_cannot_be_loaded_or_trained_is_told(
    monkeypatch: pytest.MonkeyPatch, models: dict[str, str], tmp_path: Path
) -> None:
    for name in ("nowhere/no-model", str(tmp_path / "empty")):
        with pytest.raises(SteerlabError, match=r"could not be loaded as a classifier[^\n]*$"):
            fine_tune(TRAIN, TEST, VALIDATION, FineTuneConfig(name))
    with pytest.raises(SteerlabError, match="lower the learning rate"):
        fine_tune(TRAIN, TEST, VALIDATION, _quick(models["llama"], learning_rate=1e30), progress=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(SteerlabError, match="pip install accelerate"):
        fine_tune(TRAIN, TEST, VALIDATION, _quick(models["llama"]), progress=False)

"""What a data set is worth to a transformer: fine-tune one as a classifier on it, macro-F1 on human test texts, many seeds.

The protocol of Cegin et al. (arXiv 2606.18389): AdamW at 2e-5, batches of 16, at most 50 epochs, early stopping on validation macro-F1
with patience 10, 512 tokens, classifier dropout 0.2, seeds 1 to 20. Where the paper is silent: constant learning rate, weight decay
0.01, gradients clipped at norm 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from steerlab.errors import SteerlabError
from steerlab.evaluation.classifier import FineTuneConfig, accelerate, find_base, train_seed
from steerlab.evaluation.downstream import DownstreamResult, _draws, _estimate, _f1, _macro, _replicates, clean
from steerlab.evaluation.splits import Labelled, held_out
from steerlab.records import config_key
from steerlab.store import RunFolder

SEEDS = "finetune.jsonl"


@dataclass(frozen=True, eq=False)
class FineTuned:
    """`result`: as of the classical classifier, with its intervals, but a seed means another head and order of the same training texts:
    the interval covers that and the test texts, not another training set. `epochs` run, the `best_epoch` whose weights were tested
    and its `validation` macro-F1, one each per seed. `validation_size`: texts that stopping was decided on.
    """

    result: DownstreamResult
    epochs: tuple[int, ...]
    best_epoch: tuple[int, ...]
    validation: tuple[float, ...]
    validation_size: int


def fine_tune(
    train: Labelled,
    test: Labelled,
    validation: Labelled | None = None,
    config: FineTuneConfig | None = None,
    run: RunFolder | None = None,
    progress: bool = True,
) -> FineTuned:
    """Fine-tune on `train`, stop by `validation` (default: a stratified share of `train`, the same for every seed), test on `test`.

    Each is texts and their labels; empty rows and repeats are dropped. Bit for bit the same on one CPU; on a GPU, kernels without a
    deterministic form remain. The process's random state is left as it was. Every finished seed is kept in `run`, and not trained
    again. Raises `SteerlabError` for lists of unequal length, fewer than two training labels, no test texts or none with a trained
    label, validation labels that were not trained, a model that cannot be loaded, and a loss that is not finite.
    """
    config = config or FineTuneConfig()
    train, validation, test, dropped = _checked(train, validation, test, config)
    base = find_base(config, sorted(set(train[1])))
    parts = [base.rows(*part, config.max_length) for part in (train, validation, test)]
    labels = tuple(sorted({*train[1], *test[1]}))
    place = {number: labels.index(name) for number, name in base.hf.id2label.items()}
    settings = {k: v for k, v in asdict(config).items() if k not in ("model", "revision", "seeds", "cpu")}
    key = config_key({"weights": base.identity(), "settings": settings, "data": [train, validation, test]})
    there = {r["seed"]: r for r in (run.read(SEEDS) if run else []) if r["key"] == key}
    found = []
    with (
        accelerate(config) as accelerator,
        tqdm(total=len(config.seeds), unit="seed", desc="fine-tune", disable=not progress) as bar,
    ):
        for seed in config.seeds:
            if seed not in there:
                row = {"key": key, "seed": seed, **train_seed(seed, base, parts, config, accelerator, bar)}
                if run:
                    run.append(SEEDS, [row], batch=f"{key[:16]}-{seed}")
                there[seed] = row
            found.append(there[seed])
            bar.update()
    truth = np.array([labels.index(name) for name in test[1]])
    predicted = np.array([[place[number] for number in row["predicted"]] for row in found])
    return FineTuned(
        _scored(predicted, truth, labels, config.seeds, len(train[0]), dropped),
        tuple(int(row["epochs"]) for row in found),
        tuple(int(row["best_epoch"]) for row in found),
        tuple(float(row["validation"]) for row in found),
        len(validation[0]),
    )


def _checked(
    train: Labelled, validation: Labelled | None, test: Labelled, config: FineTuneConfig
) -> tuple[Labelled, Labelled, Labelled, int]:
    texts, labels, dropped = clean(*train, "training")
    tested = clean(*test, "test")[:2]
    if len(set(labels)) < 2:
        raise SteerlabError(
            f"{len(texts)} training texts with the labels {sorted(set(labels))} were given: a classifier needs texts of at"
            " least two labels."
        )
    if not set(tested[1]) & set(labels):
        raise SteerlabError(
            f"the training labels {sorted(set(labels))} and the test labels {sorted(set(tested[1]))} have none in common: give test"
            " texts with the same names."
        )
    if validation is None:
        kept, held = held_out(labels, config.validation_share, 0)
        checked: Labelled = [texts[i] for i in held], [labels[i] for i in held]
        texts, labels = tuple(texts[i] for i in kept), tuple(labels[i] for i in kept)
    else:
        checked = clean(*validation, "validation")[:2]
    if not checked[0] or set(checked[1]) - set(labels):
        raise SteerlabError(
            f"{len(checked[0])} validation texts with the labels {sorted(set(checked[1]))} were given, and the classifier learns"
            f" {sorted(set(labels))}: give validation texts with those labels only."
        )
    return (texts, labels), checked, tested, dropped


def _scored(
    predicted: Int[np.ndarray, "s n"],
    truth: Int[np.ndarray, "n"],
    labels: tuple[str, ...],
    seeds: tuple[int, ...],
    size: int,
    dropped: int,
) -> DownstreamResult:
    """The answers of every seed, scored as `downstream` scores its own. `full` is the mean: every seed trains on every text."""
    k, n, once = len(labels), len(truth), np.ones((1, len(truth)))
    by_seed = np.concatenate([_f1(row, truth, k, once) for row in predicted])
    drawn = _replicates(predicted, truth, k, *_draws(seeds, n))
    per_seed = tuple(float(x) for x in _macro(by_seed))
    macro = _estimate(_macro(by_seed), _macro(drawn), n)
    per_class = {label: _estimate(by_seed[:, i], drawn[:, i], n) for i, label in enumerate(labels)}
    return DownstreamResult(macro, per_seed, macro.value, per_class, labels, predicted, truth, seeds, size, dropped)

"""At which layer can language and quality be read, from more than the text gives away, and does what is read carry over?

Linear probes at every layer of polyglot-mini on texts that neither the model nor the bundled vectors have seen; folds never
part translations of a sentence or a text from its worse version, and scores are on held-out folds with intervals over
sentences. Language: NTREX (ten languages), NusaX (four) and NusaWrites (Javanese against Sundanese), whole texts and single
tokens, the latter beside the control task of Hewitt and Liang (a random label per token type). Quality: human Slovene against
its DeepL back-translation (one and two hops), and twelve languages against copies with 30 % of the tokens corrupted. Beside
each: shuffled labels, the bag of input embeddings, character n-grams. Transfer: the quality probe trained in one language and
tested in another, trained at one layer and tested at another; Javanese against Sundanese across domains. The layer of
language x language transfer, domain transfer and learning curve is fixed in the config, not chosen by score.

    python -m analyses.05_probe_curves --data DIR          # about 7 minutes on one busy core
    python -m analyses.05_probe_curves --redraw            # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analyses import _probe_data as texts
from analyses._harness import Result, main
from analyses._probe_draw import EACH, LANGUAGE, LEARNING, QUALITY, TRANSFER, TRANSFER_LAYERS, draw
from steerlab import probes, scoring
from steerlab.evaluation.stats import bootstrap
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.probes import ProbeResult, Selectivity
from steerlab.probing import ProbeRows


@dataclass(frozen=True)
class Config:
    """How much is read. `layer` is the fixed one; `c` the inverse penalty of the logistic probe of single tokens."""

    sentences: int = 120
    per_text: int = 3
    pairs: int = 250
    slovene: int = 850
    rate: float = 0.3
    layer: int = 2
    c: float = 0.01
    repeats: int = 2
    resamples: int = 200
    seed: int = 0


def compute(config: Config) -> Result:
    """Every table."""
    model = load()
    spoken = {corpus: texts.languages(corpus, config.sentences) for corpus in texts.CORPORA}
    pairs = texts.quality(config.rate, config.seed, config.pairs, config.slovene)
    tokens = {name: own.rows(model, "tokens", config.per_text) for name, own in spoken.items()}
    language, each = _language(config, model, spoken, tokens)
    read = {name: (own, own.rows(model, "mean", 1)) for name, own in pairs.items()}
    sets = texts.shared_numbers(read)
    tables = {
        LANGUAGE: pd.DataFrame(language),
        EACH: pd.DataFrame(each),
        QUALITY: pd.DataFrame(_quality(config, sets)),
        LEARNING: _learning(config, sets[texts.BACK[2]]),
        **_transfer(config, sets, tokens, model.n_layers),
    }
    hashes = {name: own.sha256 for name, own in {**spoken, **pairs}.items()}
    return Result(tables, _facts(config, tables), model.revision, hashes)


def _row(level: str, what: str, layer: int, own: ProbeResult, chosen: Selectivity | None = None) -> dict[str, Any]:
    """One probe; layer -1 is the input of the first block or the text itself."""
    row = {"level": level, "set": what, "layer": layer, "kind": own.kind, **own.measured.row(own.metric)}
    row |= {"n": own.n, "groups": own.groups, "classes": len(own.classes), "c": own.c}
    gain = None if chosen is None else chosen.selectivity
    row["control"] = float("nan") if chosen is None else chosen.control.accuracy.value
    row |= {name: float("nan") if gain is None else getattr(gain, name[12:]) for name in GAINS}
    return row


GAINS = ("selectivity_value", "selectivity_low", "selectivity_high")


def _language(
    config: Config, model: TracedModel, spoken: Mapping[str, texts.Sentences], tokens: Mapping[str, ProbeRows]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Curves of single tokens and whole texts per corpus, and every language against the rest."""
    rows: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    how = {"shuffles": 1, "resamples": config.resamples}
    for corpus, own in tokens.items():
        y, groups = own.y, own.groups
        found = probes.selectivity(own.x, y, groups, own.types, "logistic", 5, config.seed, c=config.c, **how)
        rows += [_row("tokens", corpus, n, one.real, one) for n, one in zip(own.layers, found, strict=True)]
        for kind in ("diff_of_means", "lda"):
            other = probes.layerwise(own.x, y, groups, kind, 5, config.seed, **how)
            rows += [_row("tokens", corpus, n, one) for n, one in zip(own.layers, other, strict=True)]
        base = probes.selectivity(
            own.embedding[:, None], y, groups, own.types, "logistic", 5, config.seed, c=config.c, **how
        )[0]
        rows.append(_row("tokens", corpus, -1, base.real, base) | {"kind": probes.EMBEDDINGS})
        rows.append(
            _row("tokens", corpus, -1, probes.char_ngram_baseline(own.strings, y, groups, resamples=config.resamples))
        )
        layered = [(-1, base.real), *zip(own.layers, (one.real for one in found), strict=True)]
        each += [one for layer, real in layered for one in _each(corpus, own, layer, real, config)]
        whole = spoken[corpus].rows(model, "mean", 1)
        for n, one in zip(whole.layers, _layers(config, whole, "diff_of_means"), strict=True):
            rows.append(_row("texts", corpus, n, one))
    return rows, each


def _layers(config: Config, rows: ProbeRows, kind: probes.Kind) -> list[ProbeResult]:
    return probes.layerwise(rows.x, rows.y, rows.groups, kind, seed=config.seed, shuffles=1, resamples=config.resamples)


def _each(corpus: str, rows: ProbeRows, layer: int, real: ProbeResult, config: Config) -> list[dict[str, Any]]:
    """AUROC of every language against the rest, by the column of its scores."""
    weight = scoring.group_resamples(rows.groups.numpy(), config.resamples, config.seed)
    scores, fold, once = real.scores.numpy(), real.fold.numpy(), np.ones((1, real.n))
    found = []
    for k, name in enumerate(rows.names):
        column = scores[:, k] if scores.shape[1] > 1 else (scores[:, 0] if k else -scores[:, 0])
        positive = (rows.y == k).numpy()
        low, high = scoring.interval(scoring.auroc(column, positive, fold, weight))
        value = float(scoring.auroc(column, positive, fold, once)[0])
        found.append({"set": corpus, "language": name, "layer": layer, "value": value, "low": low, "high": high})
    return found


def _quality(config: Config, sets: Mapping[str, ProbeRows]) -> list[dict[str, Any]]:
    """Curves of whole texts: every kind of probe on Slovene, LDA and DiffMean on the corrupted copies."""
    rows = []
    how = {"shuffles": 1, "resamples": config.resamples}
    for name, own in sets.items():
        back = name in texts.BACK.values()
        kinds: Sequence[probes.Kind] = (
            ("logistic_cv", "ridge", "lda", "diff_of_means") if back else ("lda", "diff_of_means")
        )
        for kind in kinds:
            rows += [_row("texts", name, n, one) for n, one in zip(own.layers, _layers(config, own, kind), strict=True)]
        y, groups = own.y, own.groups
        kind = kinds[0]
        baselines = (
            probes.bag_of_embeddings(own.embedding, y, groups, kind, seed=config.seed, **how),
            probes.char_ngram_baseline(own.strings, y, groups, seed=config.seed, **how),
            probes.length_baseline(own.strings, y, groups, seed=config.seed, **how),
        )
        rows += [_row("texts", name, -1, one) for one in baselines]
    return rows


def _learning(config: Config, own: ProbeRows) -> pd.DataFrame:
    """Slovene, two hops: held-out AUROC against the number of training pairs."""
    shared = probes.trial(own.y, own.groups, seed=config.seed, shuffles=0, resamples=config.resamples)
    most = min(len(np.unique(shared.group[shared.fold != k])) for k in range(5))
    sizes = [*(n for n in (25, 50, 100, 200, 400) if n < most), most]
    data, below = own.at(config.layer).x.double().numpy(), own.embedding.double().numpy()
    scorers = {
        "logistic_cv": probes.probe_scorer(data, shared, "logistic_cv"),
        "diff_of_means": probes.probe_scorer(data, shared, "diff_of_means"),
        probes.EMBEDDINGS: probes.probe_scorer(below, shared, "logistic_cv"),
        probes.NGRAMS: probes.char_ngram_scorer(own.strings),
    }
    parts = []
    for kind, score in scorers.items():
        points = probes.learning_curve(shared, score, sizes, repeats=config.repeats)
        parts.append(probes.learning_table(points, kind))
    found: Any = pd.concat(parts, ignore_index=True)
    return found[found["metric"] == "auroc"]


def _transfer(
    config: Config, sets: Mapping[str, ProbeRows], tokens: Mapping[str, ProbeRows], n_layers: int
) -> dict[str, pd.DataFrame]:
    """Three matrices: languages and layers for quality, domains for Javanese against Sundanese."""
    how = {"seed": config.seed, "shuffles": 1, "resamples": config.resamples}
    back = sets[texts.BACK[2]]
    parts = {
        "language": probes.transfer({name: own.at(config.layer) for name, own in sets.items()}, "logistic_cv", **how),
        "layer": probes.transfer({str(n): back.at(n) for n in range(n_layers)}, "logistic_cv", **how),
        "domain": probes.transfer(_domains(tokens, config.layer), "logistic_cv", **how),
    }
    rows = {name: own.table().assign(matrix=name) for name, own in parts.items()}
    others = pd.concat([rows["layer"], rows["domain"]], ignore_index=True)
    return {TRANSFER: rows["language"], TRANSFER_LAYERS: others}


def _domains(tokens: Mapping[str, ProbeRows], layer: int) -> dict[str, probes.Labelled]:
    """The tokens of Javanese (0) and Sundanese (1) in three domains."""
    found = {}
    for place, corpus in enumerate((texts.NUSAX, texts.WRITES, texts.TOPICS)):
        own = tokens[corpus]
        part = texts.apart(own, layer, 1_000_000 * place)
        jv, su = own.names.index("jv"), own.names.index("su")
        kept = (part.y == jv) | (part.y == su)
        found[corpus] = probes.Labelled(part.x[kept], (part.y[kept] == su).long(), part.groups[kept])
    return found


def _facts(config: Config, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Means over languages of the off-diagonal of the quality matrix: between corrupted copies, and from and to Slovene
    back-translation, with intervals over languages.
    """
    cells = tables[TRANSFER]
    real = list(texts.BACK.values())
    inside = cells[~cells["train"].isin(real) & ~cells["test"].isin(real)]
    between = {
        "between languages": inside[inside["train"] != inside["test"]].groupby("train")["value"].mean(),
        "within languages": inside[inside["train"] == inside["test"]].set_index("train")["value"],
        "copies to back-translation": cells[~cells["train"].isin(real) & (cells["test"] == real[1])].set_index("train")[
            "value"
        ],
        "back-translation to copies": cells[(cells["train"] == real[1]) & ~cells["test"].isin(real)].set_index("test")[
            "value"
        ],
    }
    found = {name: bootstrap(own.to_numpy(float), seed=config.seed).to_json() for name, own in between.items()}
    return {"layer": config.layer, "transfer": found}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)

"""What do the bundled language vectors say in tokens, and how does that reach the next token?

At every layer of polyglot-mini, for the twelve language vectors and a random direction of the same norms: the tokens
the direction promotes and suppresses by the logit lens; how many of the promoted ones are typical of the language
(from counts in its 54 bundled sample texts, which miss rarer words; no vector was fitted on them); how far that order
agrees with the exact change of logits at half the stream's norm; direct against total effect and KL of the next token
behind nine task prompts that name no language.

    python -m analyses.08_lens_polyglot              # about 2 minutes on one core
    python -m analyses.08_lens_polyglot --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from analyses._bundled import known_vectors, sample_texts, text_hashes, vector_hashes
from analyses._harness import Result, main
from steerlab import data, figures, lens
from steerlab.bridge import Readout, readout
from steerlab.bundled.tune import task_prompts
from steerlab.estimators import random_like
from steerlab.evaluation.stats import bootstrap
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.pieces import count_tokens, readable, typical_tokens
from steerlab.vectors import SteeringVector

TOKENS, EFFECTS = "lens_tokens", "lens_effects"
SHOWN = ("cs", "da", "jv", "mt")  # in the picture; the table has all twelve
ROWS = 5  # tokens of a cell of the picture
VECTORS = {"language": "language vector", "random": "random direction, same norm"}
PATHS = {"total": "total effect", "direct": "direct effect", "random total": "random direction, total effect"}


@dataclass(frozen=True)
class Config:
    """Tokens on each side, and the lengths of the push as fractions of the stream's mean norm."""

    top: int = 10
    strengths: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    strength: float = 0.5
    seed: int = 7


def compute(config: Config) -> Result:
    """The tokens every vector promotes and suppresses, and what pushing along it does to the next token."""
    model = load()
    head = readout(model)
    tables = {TOKENS: compute_tokens(config, model, head), EFFECTS: compute_effects(config, model, head)}
    facts = {"top": config.top, "strengths": list(config.strengths)}
    hashes = {**text_hashes("sample", sample_texts()), **vector_hashes(known_vectors())}
    return Result(tables, facts, model.revision, hashes)


def both(config: Config) -> dict[str, dict[str, SteeringVector]]:
    """The language vectors, and for each a random direction of its norms."""
    known = known_vectors()
    return {"language": known, "random": {c: random_like(v, config.seed + i) for i, (c, v) in enumerate(known.items())}}


def compute_tokens(config: Config, model: TracedModel, head: Readout) -> pd.DataFrame:
    """One row per language, layer and promoted or suppressed token; of the random directions the promoted ones."""
    typical = typical_tokens(count_tokens(model, sample_texts()))
    rows: list[dict[str, object]] = []
    for kind, vectors in both(config).items():
        for (code, vector), own in zip(vectors.items(), typical, strict=True):
            for layer, scores in zip(vector.layers, lens.promotion(head, vector), strict=True):
                for side in ("promoted", "suppressed") if kind == "language" else ("promoted",):
                    for rank, token in enumerate(lens.top_tokens(scores, config.top, side == "suppressed"), start=1):
                        place = {"vector": kind, "language": code, "layer": layer, "side": side, "rank": rank}
                        piece = readable(model.tokenizer, token)
                        rows.append({**place, "id": token, "piece": piece, "typical": bool(own[token])})
    return pd.DataFrame(rows)


def compute_effects(config: Config, model: TracedModel, head: Readout) -> pd.DataFrame:
    """One row per vector, language, layer, strength and measure: kl, cosine, ratio, direct, total, agreement."""
    prompts, texts = task_prompts(None), sample_texts()
    typical, layers = typical_tokens(count_tokens(model, texts)), tuple(range(model.n_layers))
    parts = []
    for kind, vectors in both(config).items():
        moved = lens.kl_effect(model, head, vectors, prompts, layers, config.strengths).assign(measure="kl")
        parts.append(moved.rename(columns={"arm": "language"}).assign(vector=kind))
        for (code, vector), own in zip(vectors.items(), typical, strict=True):
            table = lens.effects(model, head, vector, prompts, config.strength, targets=own)
            parts.append(table.assign(language=code, vector=kind))
            exact = lens.exact_promotion(model, head, vector, texts[code], config.strength)
            pairs = zip(lens.promotion(head, vector), exact, strict=True)
            ranked: list[Any] = [spearmanr(a.numpy(), b.numpy()) for a, b in pairs]
            alike = [float(one.statistic) for one in ranked]
            facts = {"strength": config.strength, "measure": "agreement", "language": code, "vector": kind}
            parts.append(pd.DataFrame({"layer": layers, "value": alike}).assign(**facts))
    order = ["vector", "language", "layer", "strength", "measure", "value", "low", "high", "n", "reason"]
    return pd.concat(parts, ignore_index=True).reindex(columns=order)


def over_languages(table: Any, name: str, **where: object) -> pd.DataFrame:
    """Per layer the mean over languages of the rows where the columns have these values, with a bootstrap interval over
    languages; `name` goes into the column "series".
    """
    for column, value in where.items():
        table = table[table[column] == value]
    rows = []
    for layer, own in table.groupby("layer"):
        rows.append({"layer": layer, "series": name, **asdict(bootstrap(own["value"].to_numpy(float)))})
    return pd.DataFrame(rows)


def _latin(piece: str) -> str:
    """The piece as the figure's font can show it: letters beyond Latin by their number."""
    named = "".join(c if ord(c) < 0x250 or c in "␣’“”„–—…" else f"U+{ord(c):04X}" for c in piece)
    return named if len(named) <= 12 else named[:11] + "…"


def draw_tokens(table: Any) -> Figure:
    """The most promoted tokens of some languages at every layer; bold where they are typical of the language."""
    figure, (axes,) = figures.new(height=4.9)
    own = table[(table["vector"] == "language") & (table["side"] == "promoted") & (table["rank"] <= ROWS)]
    last = int(own["layer"].max())
    for y, code in enumerate(SHOWN):
        for layer in range(last + 1):
            cell = own[(own["language"] == code) & (own["layer"] == layer)].sort_values("rank")
            for k, (piece, hit) in enumerate(zip(cell["piece"], cell["typical"], strict=True)):
                weight, colour = ("bold", figures.COLOURS[0]) if hit else ("normal", "0.35")
                at = (layer, y - 0.38 + 0.17 * k)
                axes.annotate(_latin(piece), at, ha="center", va="center", fontsize=7.5, weight=weight, color=colour)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(len(SHOWN) - 0.5, -0.55), xlabel="layer")
    axes.set_xticks(range(last + 1))
    axes.set_yticks(range(len(SHOWN)), [data.language(code).name for code in SHOWN])
    axes.grid(visible=False)
    for y in range(1, len(SHOWN)):
        axes.axhline(y - 0.5, color="0.8", lw=0.6)
    share = typical_share(table)
    first, end = (share.query("series == 'language'")["value"].iloc[k] * 100 for k in (0, -1))
    chance = share.query("series == 'random'")["value"].mean() * 100
    axes.set_title(
        "Tokens a language vector promotes are typical of the language (bold):\n"
        f"{first:.0f} % at layer 0, {end:.0f} % at layer {last}; random directions {chance:.0f} % (12 languages)"
    )
    return figure


def typical_share(table: Any) -> pd.DataFrame:
    """Per layer the share of the promoted tokens that are typical of the language, for both kinds of vector."""
    promoted = table[table["side"] == "promoted"].astype({"typical": float})
    own = promoted.groupby(["vector", "language", "layer"])["typical"].mean().rename("value").reset_index()
    return pd.concat([over_languages(own, kind, vector=kind) for kind in VECTORS], ignore_index=True)


def draw(result: Result) -> dict[str, Figure]:
    """The tokens as a table to read, and the effects by layer."""
    tokens, effects = result.tables[TOKENS], result.tables[EFFECTS]
    shown = draw_effects(effects, tokens, result.facts["strengths"], result.facts["top"])
    return {TOKENS: draw_tokens(tokens), EFFECTS: shown}


def draw_effects(table: Any, tokens: Any, strengths: Sequence[float], most: int) -> Figure:
    """KL, log-probability of the language's tokens, typical tokens, and how alike the readings are, by layer."""
    figure, (kl, gain, share, alike) = figures.new(columns=2, rows=2, height=6.2)
    names = [f"{s:g}" for s in strengths]
    moved = [
        over_languages(table, name, measure="kl", vector="language", strength=s)
        for s, name in zip(strengths, names, strict=True)
    ]
    figures.lines(kl, pd.concat(moved), x="layer", series="series", series_order=names)
    top: Any = moved[-1]["value"]
    kl.set(ylabel="KL from unsteered (nats)", yscale="log")
    kl.set_title(
        f"At {names[-1]} x the norm, layer {int(top.idxmax())} moves the\nnext token most, by {top.max():.1f} nats"
    )
    kl.legend(title="length of the push / stream's norm", title_fontsize=7.5, fontsize=7.5, ncols=2)
    kl.set_ylim(top=kl.get_ylim()[1] * 8)  # room for the legend
    paths = [over_languages(table, name, measure=name, vector="language") for name in ("total", "direct")]
    paths.append(over_languages(table, "random total", measure="total", vector="random"))
    figures.lines(gain, pd.concat(paths), x="layer", series="series", series_order=tuple(PATHS), names=PATHS)
    total, direct = (part["value"] for part in paths[:2])
    best = int(np.argmax(total.to_numpy()))
    gain.set(ylabel="gain in log-probability (nats)")
    bottom, upper = gain.get_ylim()
    gain.set_ylim(top=upper + 0.35 * (upper - bottom))  # room for the legend
    gain.set_title(
        f"Layer {best} lifts the language most:\n{total[best]:.1f} nats in total, {direct[best]:.1f} directly"
    )
    found = typical_share(tokens).assign(value=lambda t: t["value"] * 100, low=lambda t: t["low"] * 100)
    found["high"] *= 100
    figures.lines(share, found, x="layer", series="series", series_order=tuple(VECTORS), names=VECTORS)
    share.set(ylabel=f"typical among the top {most} (%)", xlabel="layer", ylim=(-3, 103))
    end = found.query("series == 'language'")["value"].iloc[-1]
    share.set_title(f"At the last layer {end:.0f} % of promoted\ntokens are typical of the language")
    readings = {"cosine": "direct and total effect (cosine)", "agreement": "direction and exact change (rank corr.)"}
    parts = [over_languages(table, name, measure=name, vector="language") for name in readings]
    figures.lines(alike, pd.concat(parts), x="layer", series="series", series_order=tuple(readings), names=readings)
    alike.set(ylabel="agreement", xlabel="layer", ylim=(min(0.0, parts[0]["low"].min()) - 0.03, 1.03))
    start = parts[0]["value"].iloc[0]
    verdict = "differs from" if start < 0.9 else "agrees with"
    alike.set_title(f"Direct {verdict} total effect\n(cosine {start:.2f} at layer 0)")
    for axes in (gain, share, alike):
        axes.legend(fontsize=7.5)
    return figure


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)

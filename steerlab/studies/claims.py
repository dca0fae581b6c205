"""The claim's table: how often, and by how much, a steered cell beats its unsteered counterpart, with intervals and a control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, bootstrap, exact_sign_test, nested, wilson
from steerlab.studies.judging import BETTER

CASE = ("model", "language", "task", "mode")
ARM = ("kind", "group", "strength")


def gains(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per (case, arm): the metric steered and unsteered, each the mean over generation seeds, and `gain`, positive where
    steering is better.

    Seeds are paired: a seed in which either side is missing is left out of both means. Columns: model, language, task, mode,
    kind, group, strength, steered, unsteered, gain, seeds. Raises `SteerlabError` for a metric without a better direction.
    """
    if metric not in BETTER:
        raise SteerlabError(f"metric {metric!r} has no better direction: give one of {', '.join(BETTER)}.")
    plain: Any = cells[cells["kind"] == "none"]
    base = plain[[*CASE, "seed", metric]].rename(columns={metric: "unsteered"})
    steered: Any = cells[cells["kind"] != "none"]
    both = steered[[*CASE, *ARM, "seed", metric]].rename(columns={metric: "steered"}).merge(base, on=[*CASE, "seed"])
    both = both.dropna(subset=["steered", "unsteered"])
    found = both.groupby([*CASE, *ARM], sort=False).agg(
        steered=("steered", "mean"), unsteered=("unsteered", "mean"), seeds=("seed", "size")
    )
    found = found.reset_index()
    found["gain"] = BETTER[metric] * (found["steered"] - found["unsteered"])
    return found


def chosen_gains(cells: pd.DataFrame, metric: str, by: str = "macro_f1") -> pd.DataFrame:
    """As `gains`, with one strength per (case, kind, group): the one best in `by` on the first generation seed, measured on the
    *other* seeds, so that choosing does not flatter. Empty with fewer than two seeds.
    """
    first = cells["seed"].min()
    rest: Any = cells[cells["seed"] != first]
    start: Any = cells[cells["seed"] == first]
    picked = gains(start, by)
    if not len(rest) or not len(picked):
        return gains(cells, metric).iloc[:0]
    order = picked.sort_values(["gain", "strength"], ascending=[False, True], kind="stable")
    best = order.groupby([*CASE, "kind", "group"], sort=False).head(1)[[*CASE, *ARM]]
    return gains(rest, metric).merge(best, on=[*CASE, *ARM])


def claim_rows(cells: pd.DataFrame, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per model, mode, kind, group, strength rule and metric.

    `share`: of cases (language x task, and every strength where the rule is "every") in which steering is better; its interval
    is a bootstrap over (language, task), whose cases stand or fall together. `gain`: the mean difference, likewise. `p`: exact
    two-sided sign test over (language, task), each counted once by its mean gain. `vs_random`: share minus the random
    direction's on the same cases, with the same bootstrap.
    """
    for metric in metrics:
        for rule, table in (("every", gains(cells, metric)), ("chosen", chosen_gains(cells, metric))):
            for model, mode, kind, group in (
                table[["model", "mode", "kind", "group"]].drop_duplicates().itertuples(index=False)
            ):
                own = table[(table["model"] == model) & (table["mode"] == mode) & (table["group"] == group)]
                mine: Any = own[own["kind"] == kind]
                row = {"model": model, "mode": mode, "kind": kind, "group": group, "strengths": rule, "metric": metric}
                yield row | _claim(mine) | _against_random(mine, own[own["kind"] == "random"], kind)


def _claim(mine: Any) -> dict[str, Any]:
    places = list(zip(mine["language"], mine["task"], strict=True))
    gain = mine["gain"].to_numpy(float)
    share, mean = _share(gain > 0, places), bootstrap(gain, groups=places)
    by_place = mine.groupby(["language", "task"])["gain"].mean().to_numpy(float)
    test = exact_sign_test(by_place, np.zeros(len(by_place)))
    return {
        "cases": len(mine),
        "places": len(by_place),
        **_parts("share", share),
        **_parts("gain", mean),
        "p": test.p,
        "wins": test.wins,
        "losses": test.losses,
    }


def _share(won: np.ndarray, places: Sequence[Any]) -> Estimate:
    """Share of cases won, its bootstrap over places; where every place agrees, which leaves a bootstrap without width, Wilson's
    interval with each place counted once.
    """
    found = bootstrap(won.astype(float), groups=places)
    if found.known and (math.isnan(found.low) or found.low == found.high) and found.value in (0.0, 1.0):
        n = len(set(places))
        return wilson(round(found.value * n), n)
    return found


def shrinkage(cells: pd.DataFrame, metric: str, kind: str, group: str) -> Estimate:
    """Mean gain of zero-shot steering minus that of few-shot steering, over the (language, task) pairs that have both."""
    table: Any = gains(cells, metric)
    own = table[(table["kind"] == kind) & (table["group"] == group)]
    means = own.groupby(["mode", "language", "task"])["gain"].mean()
    modes = means.index.get_level_values("mode")
    if not {"zero-shot", "few-shot"} <= set(modes):
        return Estimate.missing("the study has one prompt mode")
    both = pd.concat([means["zero-shot"].rename("zero"), means["few-shot"].rename("few")], axis=1).dropna()
    return bootstrap((both["zero"] - both["few"]).to_numpy(float))


def _against_random(mine: Any, random: Any, kind: str) -> dict[str, Any]:
    """Share of cases won minus the share the random direction wins, per (language, task), with a paired bootstrap."""
    if kind == "random" or not len(random):
        return _parts("vs_random", Estimate.missing("no random direction to compare with"))
    won = mine.assign(won=mine["gain"] > 0).groupby(["language", "task"])["won"].mean()
    by_chance = random.assign(won=random["gain"] > 0).groupby(["language", "task"])["won"].mean()
    both = pd.concat([won.rename("a"), by_chance.rename("b")], axis=1).dropna()
    return _parts("vs_random", bootstrap((both["a"] - both["b"]).to_numpy(float)))


def _parts(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def claim_table(cells: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """`claim_rows` as a table. Raises `SteerlabError` where nothing was steered, or there is no unsteered cell to compare with."""
    kinds = set(cells["kind"])
    if "none" not in kinds or kinds == {"none"}:
        raise SteerlabError(
            f"the cells have the kinds {sorted(kinds)}: a claim compares steered cells with unsteered ones."
        )
    return pd.DataFrame(list(claim_rows(cells, metrics)))


def by_strength(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean gain over (language, task) for every model, mode, kind, group and strength, with a bootstrap interval over them."""
    rows = []
    table: Any = gains(cells, metric)
    for key, own in table.groupby(["model", "mode", *ARM], sort=False):
        mean = bootstrap(own["gain"].to_numpy(float))
        rows.append(
            dict(zip(("model", "mode", *ARM), key, strict=True))
            | {"metric": metric, "value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        )
    return pd.DataFrame(rows)


def correlation(x: np.ndarray, y: np.ndarray, groups: Sequence[Any], resamples: int = 1000) -> Estimate:
    """Spearman's rank correlation with a bootstrap interval over groups."""
    known = ~(np.isnan(x) | np.isnan(y))
    pairs = np.stack([x[known], y[known]], axis=1)
    owners = [g for g, keep in zip(groups, known, strict=True) if keep]
    if len(pairs) < 3:
        return Estimate.missing("fewer than 3 pairs", len(pairs))

    def rank(rows: np.ndarray) -> float:
        return float(pd.DataFrame(pairs[rows.astype(int)]).corr(method="spearman").iat[0, 1])

    value = rank(np.arange(len(pairs)))
    if math.isnan(value):
        return Estimate.missing("one side does not vary", len(pairs))
    return bootstrap(np.arange(len(pairs)).astype(float), rank, groups=owners, resamples=resamples)


def cost_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Tokens read and written per accepted text, by model, mode and kind, and as a ratio to unsteered few-shot prompting.

    Rejected drafts are paid for. The ratio's interval is a bootstrap over (language, task).
    """
    table = cells.assign(spent=cells["tokens"] + cells["prompt_tokens"])
    per: Any = table.groupby(["model", "mode", "kind", "language", "task"], sort=False)[
        ["tokens", "prompt_tokens", "spent", "n"]
    ].sum()
    per = per.reset_index()
    rows = []
    for (model, mode, kind), own in per.groupby(["model", "mode", "kind"], sort=False):
        few = per[(per["model"] == model) & (per["mode"] == "few-shot") & (per["kind"] == "none")]
        row: dict[str, Any] = {"model": model, "mode": mode, "kind": kind}
        row |= {f"{part}_per_text": own[part].sum() / own["n"].sum() for part in ("tokens", "prompt_tokens")}
        ratio = Estimate.missing("the study has no few-shot cells")
        if len(few):
            both = own.merge(few, on=["language", "task"], suffixes=("", "_few"))
            ratio = bootstrap((both["spent"] / both["n"] / (both["spent_few"] / both["n_few"])).to_numpy(float))
        rows.append(row | _parts("to_few_shot", ratio))
    return pd.DataFrame(rows)


def scores(cells: pd.DataFrame) -> pd.DataFrame:
    """Macro-F1 of every (case, arm) with an interval over generation seeds and classifier seeds together (`stats.nested`)."""
    rows = []
    groups: Any = cells.groupby([*CASE, *ARM], sort=False, dropna=False)
    for key, own in groups:
        seeds = [list(row) for row in own.sort_values("seed")["macro_f1_seeds"] if len(row)]
        found = nested(np.array(seeds, dtype=float)) if seeds else Estimate.missing("no seed has texts of two labels")
        rows.append(
            dict(zip((*CASE, *ARM), key, strict=True))
            | _parts("macro_f1", found)
            | {"n": found.n, "reason": found.reason}
        )
    return pd.DataFrame(rows)

"""The same prompts in four arms (none, steered, instructed, both): follow rates, what was gained and lost, and exact tests.

`none` shows the model the base query alone, `steered` steers it there; `instructed` shows the instruction too, `both` steers as well.
Two more stand beside them: `random`, the base query under a push of the same length in a random direction, and `guided`, the
baseline that touches no activation, classifier-free guidance between prompts with and without the instruction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import exact_mcnemar, paired_bootstrap, wilson
from steerlab.following.registry import check_all
from steerlab.following.verdict import Mode

Arm = Literal["none", "random", "steered", "instructed", "both", "guided"]
ARMS: tuple[Arm, ...] = ("none", "random", "steered", "instructed", "both", "guided")
PAIRS: tuple[tuple[Arm, Arm], ...] = (
    ("none", "steered"),
    ("instructed", "both"),
    ("none", "instructed"),
    ("steered", "both"),
    ("instructed", "guided"),
    ("guided", "both"),
    ("none", "random"),
    ("random", "steered"),
)
ALL = "all"


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a prompt in one arm. `group`: prompts about the same base query; `cells`: the instructions' names in
    tables; `query`: the base query itself, for relevance and judges.
    """

    prompt: str
    arm: Arm
    text: str
    instructions: tuple[str, ...]
    kwargs: tuple[Mapping[str, Any], ...]
    group: str = ""
    cells: tuple[str, ...] = ()
    query: str = ""


def answers(prompts: Sequence[InstructedPrompt], arm: Arm, texts: Sequence[str]) -> list[Answer]:
    """One arm's texts beside their prompts. Raises `SteerlabError` unless there are as many of both, and for an unknown arm."""
    if len(prompts) != len(texts):
        raise SteerlabError(f"{len(prompts)} prompts and {len(texts)} answers were given: give one answer per prompt.")
    _check_arms([arm])
    return [
        Answer(row.id, arm, text, row.instructions, row.kwargs, row.group, row.cells, row.base)
        for row, text in zip(prompts, texts, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class FourArms:
    """Verdicts of the same prompts in two or more arms.

    `items`: one row per prompt, instruction and arm: prompt, group, instruction, arm, strict, loose, reason (of the strict check).
    """

    items: pd.DataFrame

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms there are, in the order of `ARMS`."""
        there = set(self.items["arm"])
        return tuple(arm for arm in ARMS if arm in there)

    def followed(self, mode: Mode = "loose", instruction: str = ALL) -> pd.DataFrame:
        """True or False per prompt (rows) and arm (columns); for `all`, whether every instruction of the prompt was followed."""
        rows: Any = self.items if instruction == ALL else self.items[self.items["instruction"] == instruction]
        if not len(rows):
            raise SteerlabError(f"no prompt has the instruction {instruction!r}: give one of {', '.join(self.names)}.")
        wide: Any = rows.groupby(["prompt", "arm"], sort=False)[mode].all().unstack("arm")
        return wide[list(self.arms)].astype(bool)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`all`, then the instructions by falling number of prompts."""
        counts = Counter(self.items.loc[self.items["arm"] == self.arms[0], "instruction"])
        return (ALL, *sorted(counts, key=lambda name: (-counts[name], name)))

    def rates(self, mode: Mode = "loose", level: float = 0.95) -> pd.DataFrame:
        """Follow rates with Wilson intervals: instruction, arm, n, groups, followed, rate, low, high.

        The interval takes prompts as independent: where `groups` is smaller than `n` (one base query with several words, say) it is
        too narrow, and the interval of `changes` is the one to read.
        """
        rows = []
        for name in self.names:
            wide: Any = self.followed(mode, name)
            groups = len(set(self._groups(wide)))
            for arm in self.arms:
                rate = wilson(int(wide[arm].sum()), len(wide), level)
                rows.append((name, arm, len(wide), groups, int(wide[arm].sum()), rate.value, rate.low, rate.high))
        return pd.DataFrame(rows, columns=["instruction", "arm", "n", "groups", "followed", "rate", "low", "high"])

    def changes(self, mode: Mode = "loose", seed: int = 0, level: float = 0.95) -> pd.DataFrame:
        """What changed from one arm to another: instruction, before, after, n, gained, lost, difference, low, high, p, p_holm.

        `p`: exact two-sided McNemar test. `p_holm`: the same after Holm's correction over the instructions of one pair of arms
        (`all` is a test of its own). The interval of the difference is a bootstrap over base queries; with none, or where every
        prompt changed alike, it is missing (NaN).
        """
        rows = []
        for before, after in PAIRS:
            if before not in self.arms or after not in self.arms:
                continue
            block = []
            for name in self.names:
                wide: Any = self.followed(mode, name)
                a, b = wide[after].to_numpy(bool), wide[before].to_numpy(bool)
                test = exact_mcnemar(a, b)
                gap = paired_bootstrap(a.astype(float), b.astype(float), self._groups(wide), seed=seed, level=level)
                block.append(
                    (name, before, after, len(wide), test.wins, test.losses, gap.value, gap.low, gap.high, test.p)
                )
            adjusted = [block[0][-1], *holm([row[-1] for row in block[1:]])]
            rows += [(*row, p) for row, p in zip(block, adjusted, strict=True)]
        columns = ["instruction", "before", "after", "n", "gained", "lost", "difference", "low", "high", "p", "p_holm"]
        return pd.DataFrame(rows, columns=columns)

    def _groups(self, wide: pd.DataFrame) -> list[str]:
        own = dict(zip(self.items["prompt"], self.items["group"], strict=True))
        return [own[prompt] for prompt in wide.index]

    def __str__(self) -> str:
        wide: Any = self.followed()
        return "; ".join(f"{arm} {wilson(int(wide[arm].sum()), len(wide))}" for arm in self.arms)

    def _repr_html_(self) -> str:
        rates, changes = self.rates(), self.changes()
        cells = rates.assign(
            cell=[f"{r:.2f} [{lo:.2f}, {hi:.2f}]" for r, lo, hi in rates[["rate", "low", "high"]].to_numpy()]
        )
        wide = cells.pivot(index="instruction", columns="arm", values="cell").loc[list(self.names), list(self.arms)]
        wide.insert(0, "n", rates.drop_duplicates("instruction").set_index("instruction")["n"])
        head = "<p>Share of prompts whose instruction was followed (loose), 95 % Wilson intervals</p>"
        tail = changes.to_html(index=False, float_format=lambda x: f"{x:.3f}", border=0)
        return f"{head}{wide.to_html(border=0)}<p>Prompts gained and lost, exact McNemar tests</p>{tail}"


def compare_arms(given: Sequence[Answer]) -> FourArms:
    """Check every answer strictly and loosely. Raises `SteerlabError` when the arms do not hold the same prompts with the same
    instructions, a prompt stands twice in an arm, an arm is unknown, or there are fewer than two.
    """
    _check_arms([row.arm for row in given])
    by_arm: dict[str, dict[str, Answer]] = {}
    for row in given:
        if row.prompt in by_arm.setdefault(row.arm, {}):
            raise SteerlabError(f"prompt {row.prompt!r} has two answers in the arm {row.arm!r}: give one.")
        by_arm[row.arm][row.prompt] = row
    if len(by_arm) < 2:
        raise SteerlabError(
            f"answers of {len(by_arm)} arm were given: a comparison needs at least two of {', '.join(ARMS)}."
        )
    first = next(arm for arm in ARMS if arm in by_arm)
    for arm, rows in by_arm.items():
        odd = sorted(set(rows) ^ set(by_arm[first]))
        odd += [p for p in rows if p in by_arm[first] and _asked(rows[p]) != _asked(by_arm[first][p])]
        if odd:
            raise SteerlabError(
                f"the arms {first!r} and {arm!r} differ in prompt {odd[0]!r}: give all arms the same prompts."
            )
    items = [_items(row) for arm in ARMS if arm in by_arm for row in by_arm[arm].values()]
    columns = ["prompt", "group", "instruction", "arm", "strict", "loose", "reason"]
    return FourArms(pd.DataFrame([item for part in items for item in part], columns=columns))


def holm(p: Sequence[float]) -> list[float]:
    """p-values after Holm's correction (1979), in the order given."""
    order = np.argsort(np.array(p, dtype=float), kind="stable")
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p) - rank) * float(p[place])))
        adjusted[place] = highest
    return adjusted


def _items(row: Answer) -> list[tuple[Any, ...]]:
    strict, loose = (check_all(row.instructions, row.kwargs, row.text, mode) for mode in ("strict", "loose"))
    names = row.cells or row.instructions
    return [
        (row.prompt, row.group or row.prompt, name, row.arm, own.passed, other.passed, own.reason)
        for name, own, other in zip(names, strict, loose, strict=True)
    ]


def _asked(row: Answer) -> tuple[Any, ...]:
    return row.instructions, tuple(dict(own) for own in row.kwargs), row.group, row.cells


def _check_arms(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(ARMS))
    if unknown:
        raise SteerlabError(f"arm {unknown[0]!r} is not known: give one of {', '.join(ARMS)}.")

"""What every benchmark shares: its command line, interleaved repetitions, ratios, the table and the result file."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = RESULTS / "tmp"  # a smoke run is no measurement and never replaces one
C = TypeVar("C")
Sense = Literal["at most", "at least"]


@dataclass(frozen=True)
class Row:
    """One line of a table: `case` over `base`, the median of the ratios of single repetitions, and their range.

    `value` and `base_value` are the medians themselves, in `unit`. `target` is what the project promises, if anything.
    """

    case: str
    base: str
    ratio: float
    low: float
    high: float
    value: float
    base_value: float
    unit: str
    repetitions: int
    target: float | None = None
    sense: Sense = "at most"

    @property
    def met(self) -> bool | None:
        """Whether the ratio keeps the promise; None where none was made."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.sense == "at most" else self.ratio >= self.target

    def to_json(self) -> dict[str, object]:
        """Every field, and whether the target is met."""
        return {**asdict(self), "met": self.met}


@dataclass
class Report:
    """What a benchmark found: its table, and facts that are no ratios (shares, counts of differing tokens)."""

    question: str
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


def interleaved(
    cases: Mapping[str, Callable[[], object]], repetitions: int, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of every case in every repetition, after one run of each that does not count (but for warm=False).

    A repetition runs all cases one after the other, every second one in reverse, so that a drift of the machine meets all alike.
    """
    for run in cases.values() if warm else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for _ in range(repetitions):
        for name in order:
            gc.collect()
            began = time.perf_counter()
            cases[name]()
            seconds[name].append(time.perf_counter() - began)
        order.reverse()
    return seconds


def compare(
    seconds: Mapping[str, Sequence[float]],
    case: str,
    base: str,
    target: float | None = None,
    sense: Sense = "at most",
    unit: str = "s",
) -> Row:
    """The row for `case` over `base`: ratios within each repetition, then their median and range."""
    ratios = [a / b for a, b in zip(seconds[case], seconds[base], strict=True)]
    middle = statistics.median
    return Row(
        case,
        base,
        *(middle(ratios), min(ratios), max(ratios), middle(seconds[case]), middle(seconds[base])),
        unit=unit,
        repetitions=len(ratios),
        target=target,
        sense=sense,
    )


def machine() -> dict[str, object]:
    """What the ratios were measured on, as far as it matters: no names, no dates."""
    packages = ("torch", "transformers", "nnsight", "tokenizers")
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "architecture": platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        **({"accelerator": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else {}),
    }


def table(report: Report) -> str:
    """The rows as markdown, and the facts below."""
    head = "| case | over | ratio | range | medians | target | met |\n|---|---|---|---|---|---|---|"
    lines = [f"**{report.question}**", "", head]
    for row in report.rows:
        target = "" if row.target is None else f"{row.sense} {row.target:g}"
        met = {None: "", True: "yes", False: "no"}[row.met]
        medians = f"{row.value:.3g} / {row.base_value:.3g} {row.unit}"
        lines.append(
            f"| {row.case} | {row.base} | {row.ratio:.3f} | {row.low:.3f} to {row.high:.3f} | {medians} | {target} | {met} |"
        )
    return "\n".join([*lines, "", *(f"- {name}: {value}" for name, value in report.facts.items())])


def main(name: str, config: C, quick: Mapping[str, Any], measure: Callable[[C], Report], argv: Sequence[str]) -> Path:
    """Run one benchmark from its command line: every field of `config` is an option, `--quick` sets the small values.

    Prints the table, writes NAME.json and returns its path. A quick run goes to results/tmp unless --out says where.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=measure.__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; the ratios mean nothing")
    parser.add_argument("--out", type=Path, help="folder of the result file")
    for option in fields(config):  # type: ignore[arg-type]
        value = getattr(config, option.name)
        many = isinstance(value, tuple)
        kind = type(value[0] if many else value)
        parser.add_argument(f"--{option.name}", type=kind, nargs="+" if many else None, help=f"default {value}")
    given = vars(parser.parse_args(argv))
    small, out = given.pop("quick"), given.pop("out")
    chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    config = replace(config, **{**(quick if small else {}), **chosen})  # type: ignore[type-var]
    torch.set_num_threads(config.threads)  # type: ignore[attr-defined]
    report = measure(config)
    print(table(report), flush=True)
    if small:
        print("\nA quick run: it shows that the benchmark works, and its ratios mean nothing.", flush=True)
    record = {
        "benchmark": name,
        "question": report.question,
        "quick": small,
        "config": asdict(config),  # type: ignore[call-overload]
        "machine": machine(),
        "rows": [row.to_json() for row in report.rows],
        "facts": report.facts,
    }
    path = (out or (QUICK_RESULTS if small else RESULTS)) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path

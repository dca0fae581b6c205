"""Peak memory of streaming capture as the number of texts grows. About 40 minutes on two cores, nearly all in the two largest cases.

glibc's malloc keeps what it was given back, so that its high-water mark creeps up over batches of many shapes. The same capture
with `MALLOC_MMAP_THRESHOLD_` fixed, where every large block goes back to the system at once, shows what capture itself holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.peak import peak_mib
from benchmarks.subjects import plain_twin, random_llama, random_texts
from benchmarks.timing import Report, Row
from steerlab.batch import left_pad, plan_batches
from steerlab.capture import all_layers, capture_moments
from steerlab.model import TracedModel
from steerlab.types import Site

STREAM, PLAIN, KEEP = "streaming capture", "plain forward", "all rows kept"
GIVEN_BACK = "streaming capture, large blocks given back"
THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": "1048576"}  # bytes; fixing it also keeps glibc from raising it


@dataclass(frozen=True)
class Config:
    """Sizes of model and data; `stream`, `plain`, `keep`: numbers of texts for each way to pass over them."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    shortest: int = 10
    longest: int = 50
    token_budget: int = 4096
    stream: tuple[int, ...] = (1000, 5000, 20000)
    given_back: tuple[int, ...] = (1000, 20000)
    plain: tuple[int, ...] = (1000,)
    keep: tuple[int, ...] = (1000, 5000)
    threads: int = 2


QUICK = {
    "layers": 2,
    "d_model": 64,
    "vocab": 64,
    "token_budget": 256,
    "stream": (20, 40),
    "given_back": (20, 40),
    "plain": (20,),
    "keep": (20,),
}


def child(way: str, texts: int, config: Config) -> None:
    """Do one case and print its peak in MiB, the whole process included, and what the process held before it began."""
    torch.set_num_threads(config.threads)
    model = random_llama(config.layers, config.d_model, config.vocab)
    data = random_texts(texts, config.shortest, config.longest, config.vocab)
    before = peak_mib()
    if way in (STREAM, GIVEN_BACK):
        capture_moments(model, data, token_budget=config.token_budget)
    else:
        _pass(model, data, config.token_budget, None if way == KEEP else plain_twin(model))
    print(json.dumps({"peak": peak_mib(), "before": before}))


@torch.no_grad()
def _pass(model: TracedModel, texts: list[str], token_budget: int, plain: Any) -> None:
    """The same batches through transformers alone (`plain`), or through `forward` with every activation kept in memory."""
    rows = model.token_rows(texts)
    kept: dict[Site, list[Tensor]] = {site: [] for site in all_layers(model)}
    for members in plan_batches([len(row) for row in rows], token_budget):
        batch = left_pad([rows[i] for i in members], model.pad_id)
        if plain is None:
            for site, h in model.forward(batch, read=tuple(kept)).sites.items():
                kept[site].append(h[batch.real])
        else:
            plain(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            )


def in_a_fresh_process(way: str, texts: int, config: Config) -> dict[str, float]:
    """`child` in a process of its own."""
    code = (
        "import json, sys\nfrom benchmarks.memory import Config, child\n"
        "way, texts, config = json.loads(sys.argv[1])\nchild(way, texts, Config(**config))"
    )
    asked = json.dumps([way, texts, asdict(config)])
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, asked], capture_output=True, text=True, cwd=root, check=False,
        env={**os.environ, **(THRESHOLD if way == GIVEN_BACK else {})},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way} over {texts} texts failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(config: Config) -> Report:
    """Peak memory of each way and number of texts over that of streaming capture on the fewest texts (where large blocks are given
    back: over the same on the fewest); one process per case.
    """
    cases = [(STREAM, n) for n in config.stream]
    cases += [(GIVEN_BACK, n) for n in config.given_back]
    cases += [(PLAIN, n) for n in config.plain] + [(KEEP, n) for n in config.keep]
    found = {case: in_a_fresh_process(*case, config) for case in cases}
    report = Report(f"Does capture's memory grow with the data ({config.layers} layers, width {config.d_model})?")
    for case in cases[1:]:
        base = (GIVEN_BACK, config.given_back[0]) if case[0] == GIVEN_BACK else cases[0]
        if case == base:
            continue
        value, least = found[case]["peak"], found[base]["peak"]
        ratio = value / least
        target = 1.05 if case[0] in (STREAM, GIVEN_BACK) else None
        names = [f"{way}, {n} texts" for way, n in (case, base)]
        report.rows.append(
            Row(names[0], names[1], ratio, ratio, ratio, value, least, "MiB", repetitions=1, target=target)
        )
    report.facts = {
        f"MiB above the loaded model, {way}, {n} texts": round(seen["peak"] - seen["before"])
        for (way, n), seen in found.items()
    }
    return report


if __name__ == "__main__":
    timing.main("memory", Config(), QUICK, measure, sys.argv[1:])

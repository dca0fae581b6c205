"""The long commands, each as small as it can be made, on tiny models that this process holds."""

from __future__ import annotations

import copy
import importlib
import io
import multiprocessing
import os
import pkgutil
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

import steerlab.commands
from steerlab import cli, loading, translation, workers
from tests.command import save_model
from tests.seq2seq import TEXTS, save_translator
from tests.tiny import hf_model

STUDY = """
preset = "polyglot-mini"
languages = ["jv", "da"]
tasks = ["sentiment"]
modes = ["zero-shot"]
kinds = ["none", "language"]
seeds = [0]
per_label = {{ topic = 1, sentiment = 2 }}
max_new_tokens = 6
source = "sample"
texts = "{texts}"
classifier = ""
classifier_seeds = 1
[[models]]
name = "{model}"
template = "plain"
dtype = "float32"
device = "cpu"
strengths = [0.5]
layers = {{ early = 0 }}
vectors = "fit"
batch_rows = 4
"""
WORDS = {
    "jv": "aku kowe dheweke mangan turu lunga teka omah kali gunung",
    "da": "jeg du han spiser sover går kommer hus å bjerg",
}
SHARED = ("study low-resource", "sweep --workers", "vectors fit", "probe", "expert train")
QUICK = ("--max-new-tokens", "6", "--batch-rows", "2", "-q")


@dataclass(frozen=True)
class Job:
    """A command and what it is held against. `reads`: it reads activations, so a broken model must be noticed there. `traced`: it has a
    traced model at all. `shared`: several processes may work on its folder.
    """

    name: str
    words: tuple[str, ...]
    reads: bool = False
    traced: bool = True
    shared: bool = False

    def at(self, out: Path) -> list[str]:
        """The words, with OUT as this folder."""
        return [word.replace("OUT", str(out)) for word in self.words]


def jobs(place: Path) -> dict[str, Job]:
    """Every long command by name. `place` is what `prepare` made."""
    model, wide = ("-m", str(place / "model")), ("-m", str(place / "wide"))
    texts = tuple(word for code in WORDS for word in ("-t", f"{code}={place}/texts/{code}.txt"))
    vector, fitted = str(place / "vectors"), str(place / "fitted")
    two = ("-i", "simple:lowercase", "-i", "simple:quotes")
    sentiment = ("--task", "sentiment", "-l", "jv", *QUICK)
    expert = ("--expert", str(place / "adapter"), "--examples", f"{place}/reviews.csv", "--label-column", "label")
    sweep = (
        f"{vector}/language-jv.safetensors", *model, "--texts", f"{place}/texts/da.txt", "--prompts", f"{place}/prompts.txt",
        *("-l", "0", "-l", "2", "-s", "0.05", "--directions", "1", "-n", "1", "--effect", "distinct_2", "--batch-rows", "4"),
        *("--max-new-tokens", "16", "-q"),
    )  # fmt: skip
    known = [
        Job("synthesize", ("synthesize", *model, "-n", "2", "-v", vector, "--source", "sample", *sentiment)),
        Job("study low-resource", ("study", "low-resource", f"{place}/study.toml", "-q"), reads=True),
        Job("sweep", ("sweep", *sweep)),
        Job("sweep --workers", ("sweep", *sweep, "--workers", "2")),
        Job("guide", ("guide", *wide, "-n", "2", *expert, "--negatives", "2", *sentiment)),
        Job("sweep guidance", ("sweep", "guidance", *wide, "-n", "2", *sentiment, "--gamma", "0", "--gamma", "0.5", "--eta", "0")),
        Job("instruct fit", ("instruct", "fit", *two, *model, "-n", "4", "--splits", "2", "-q"), reads=True),
        Job("instruct select", ("instruct", "select", fitted, *model, "-n", "2", "-s", "1", "--folds", "2", *QUICK)),
        Job("instruct generate", ("instruct", "generate", fitted, *two, *model, "-p", "Tell me.", "-p", "And now?", "--samples", "3",
                                  "--layer", "1", "--sample", *QUICK)),
        Job("instruct evaluate", ("instruct", "evaluate", fitted, *model, "-n", "2", "--layer", "1", *QUICK)),
        Job("vectors fit", ("vectors", "fit", *texts, *model, "-q"), reads=True),
        Job("probe", ("probe", *texts, *model, "--folds", "2", "--resamples", "20", "--kind", "diff_of_means", "--vectors", "OUT/v"),
            reads=True),
        Job("contrast make", ("contrast", "make", "-t", f"{place}/sl.txt", "-l", "sl", "-m", f"{place}/nllb", "--max-new-tokens", "8",
                              "--batch-rows", "2", "-q"), traced=False),
        Job("contrast make --method degrade", ("contrast", "make", "--source", "sample", "-l", "cs", "--method", "degrade",
                                               "--limit", "10"), traced=False),
        Job("expert train", ("expert", "train", "-t", f"{place}/mine.txt", "--instruction", "Write.", *model, "--steps", "4", "--rank", "2",
                             "--batch-size", "4", "--samples", "3", "-q")),
    ]  # fmt: skip
    return {
        job.name: Job(job.name, (*job.words, "--out", "OUT"), job.reads, job.traced, job.name in SHARED)
        for job in known
    }


def prepare(place: Path) -> None:
    """Models, texts and vectors that the commands read."""
    (place / "texts").mkdir(parents=True)
    for code, words in WORDS.items():
        own = random.Random(code)
        lines = [" ".join(own.choices(words.split(), k=6)) + f" {i}" for i in range(8)]
        (place / "texts" / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "sl.txt").write_text("\n".join(TEXTS[:6]) + "\n", encoding="utf-8")
    (place / "prompts.txt").write_text("Tell me of the river.\nSay it again.\n", encoding="utf-8")
    (place / "mine.txt").write_text(
        "".join(f"number {n} says {'abcdefgh'[n % 8] * 9}\n" for n in range(16)), encoding="utf-8"
    )
    rows = "lovely place,positive\ngood food,positive\nnever again,negative\nbad air,negative\n"
    (place / "reviews.csv").write_text("text,label\n" + rows, encoding="utf-8")
    save_model(place / "model", max_position_embeddings=1024)
    save_model(place / "wide", max_position_embeddings=512)
    save_translator(place / "nllb")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    trained: Any = get_peft_model(copy.deepcopy(hf_model("llama", max_position_embeddings=512)), config)
    trained.save_pretrained(place / "adapter")
    (place / "study.toml").write_text(STUDY.format(texts=place / "texts", model=place / "model"), encoding="utf-8")
    known = jobs(place)
    for name, out in (("vectors fit", "vectors"), ("instruct fit", "fitted")):
        call(known[name].at(place / out))


def call(words: list[str]) -> None:
    """Run a command in this process, which must end well."""
    sys.argv = ["steerlab", *words]
    try:
        with redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as end:
        assert not end.code, f"{' '.join(words)} ended with {end.code}"


@contextmanager
def held_models() -> Iterator[None]:
    """Every module is imported and every model loaded once in this process, whichever command asks for it; workers are forked."""
    for module in pkgutil.iter_modules(steerlab.commands.__path__, "steerlab.commands."):
        importlib.import_module(module.name)
    kept = {loading.load: cache(loading.load), translation.load_translator: cache(translation.load_translator)}
    changed = []
    for module in [m for name, m in sys.modules.items() if name.startswith("steerlab")]:
        for name, value in list(vars(module).items()):
            if callable(value) and value in kept.keys():  # noqa: SIM118  some values cannot be hashed
                changed.append((module, name, value))
                setattr(module, name, kept[value])
    os.environ.pop("STEERLAB_DATA", None)
    context = multiprocessing.get_context
    workers.multiprocessing.get_context = lambda method: context("fork")  # type: ignore[assignment]
    try:
        yield
    finally:
        workers.multiprocessing.get_context = context
        for module, name, value in changed:
            setattr(module, name, value)

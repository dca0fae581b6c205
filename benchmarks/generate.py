"""What steering costs while a model writes, beside transformers' own `generate`. About 5 minutes on two cores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import timing
from benchmarks.subjects import plain_twin, random_llama, random_texts, random_vector
from benchmarks.timing import Report
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.loading import BUNDLED, bundled_path, load
from steerlab.model import TracedModel
from steerlab.steering import Intervention

GREEDY = Settings(greedy=True, stop=())
SAMPLED = Settings(temperature=0.8, top_p=0.9, stop=())


@dataclass(frozen=True)
class Config:
    """One batch of `rows` prompts of `prompt` tokens, `new_tokens` written to each. `bundled` 0 leaves the bundled model out."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    rows: int = 16
    prompt: int = 32
    new_tokens: int = 64
    repetitions: int = 7
    bundled: int = 1
    threads: int = 2


QUICK = {
    "layers": 3,
    "d_model": 64,
    "vocab": 64,
    "rows": 3,
    "prompt": 6,
    "new_tokens": 6,
    "repetitions": 2,
    "bundled": 0,
}


def plain(model: TracedModel, hf: Any, prompts: list[str], settings: Settings) -> list[tuple[int, ...]]:
    """transformers alone (`hf`), from text to tokens and text, as `steerlab.generation.generate` goes."""
    encoded = model.tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False).to(hf.device)
    drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    out = hf.generate(
        **encoded,
        max_new_tokens=settings.max_new_tokens,
        do_sample=not settings.greedy,
        pad_token_id=model.pad_id,
        **({} if settings.greedy else drawn),
    )
    new = out[:, encoded["input_ids"].shape[1] :]
    model.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [tuple(row) for row in new.tolist()]


def requests(prompts: list[str], interventions: tuple[Intervention, ...]) -> list[Request]:
    """The same interventions for every prompt."""
    return [Request(text, (i,), interventions, chat=False) for i, text in enumerate(prompts)]


def cases(model: TracedModel, prompts: list[str], config: Config) -> dict[str, Callable[[], object]]:
    """Every way to write the same number of tokens, by name."""
    vector, middle, twin = random_vector(model), model.n_layers // 2, plain_twin(model)
    greedy, sampled = (replace(s, max_new_tokens=config.new_tokens) for s in (GREEDY, SAMPLED))
    plans = {
        "unsteered": (),
        "one layer": (Intervention(vector, middle),),
        "all layers": (Intervention(vector, vector.layers),),
    }

    def ours(plan: str, settings: Settings) -> Callable[[], list[Sample]]:
        asked = requests(prompts, plans[plan])
        return lambda: generate(model, asked, settings, batch_rows=config.rows)

    return {
        "generate, greedy": lambda: plain(model, twin, prompts, greedy),
        **{f"{name}, greedy": ours(name, greedy) for name in plans},
        "generate, sampled": lambda: plain(model, twin, prompts, sampled),
        **{f"{name}, sampled": ours(name, sampled) for name in ("unsteered", "one layer")},
    }


def compare(model: TracedModel, prompts: list[str], config: Config, target: float) -> Report:
    """The rows of one model: greedy over greedy, sampled over sampled."""
    found = cases(model, prompts, config)
    ours = [sample.tokens for sample in found["unsteered, greedy"]()]  # type: ignore[attr-defined]
    theirs: list[tuple[int, ...]] = found["generate, greedy"]()  # type: ignore[assignment]
    if any(len(tokens) != config.new_tokens for tokens in ours):
        raise RuntimeError("a row ended early, so the two sides would not write equally much")
    seconds = timing.interleaved(found, config.repetitions)
    report = Report(model.name)
    for how in ("greedy", "sampled"):
        names = [name for name in found if name.endswith(how) and not name.startswith("generate")]
        for name in names:
            promise = target if how == "greedy" and not name.startswith("unsteered") else None
            report.rows.append(timing.compare(seconds, name, f"generate, {how}", promise))
    report.rows = [replace(row, case=f"{row.case}, {model.name}") for row in report.rows]
    differ = sum(a != b for a, b in zip(ours, theirs, strict=True))
    report.facts[f"rows whose unsteered greedy tokens differ from generate's, {model.name}"] = differ
    return report


def without_end(model: TracedModel) -> TracedModel:
    """The model with nothing that ends a text, so that both sides write the full length."""
    model.hf.generation_config.eos_token_id = None  # type: ignore[union-attr]
    model.tokenizer.eos_token = None
    return model


def measure(config: Config) -> Report:
    """Steered and unsteered decoding over transformers' `generate`: same prompts, same settings, same number of tokens."""
    report = Report("What does steering cost while writing?")
    model = random_llama(config.layers, config.d_model, config.vocab)
    parts = [compare(model, random_texts(config.rows, config.prompt, config.prompt, config.vocab), config, 1.05)]
    if config.bundled and (bundled_path() / "config.json").is_file():
        words = ("the town", "a river", "my friend", "this book")
        prompts = [f"Here is what people say about {words[i % 4]} number {i}:" for i in range(config.rows)]
        parts.append(compare(without_end(load(BUNDLED, device="cpu")), prompts, config, 1.15))
    for part in parts:
        report.rows += part.rows
        report.facts |= part.facts
    return report


if __name__ == "__main__":
    timing.main("generate", Config(), QUICK, measure, sys.argv[1:])

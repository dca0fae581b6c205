"""`steerlab instruct generate` and `evaluate`: texts under instructions, and the four arms with their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.backoff import BackOff
from steerlab.commands.instruct import Acting, Prompts, base_config, checked, vectors_of
from steerlab.data import read_texts
from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.evaluation.embeddings import embedder
from steerlab.following.arms import ARMS
from steerlab.following.trials import Cell
from steerlab.generation import Request, Settings
from steerlab.instructions import (
    Placed,
    compose,
    find_form,
    gather,
    plan_arms,
    recommended_pushes,
    reference_perplexity,
)
from steerlab.instructions.asking import unknown_cells
from steerlab.instructions.runs import vector_digests, write_requests
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from steerlab.vectors import SteeringVector

GROUP = "instruct"


@dataclass(frozen=True)
class Place:
    """Where and how strongly, when the vectors' own choices are not wanted: a layer for all, and what a strength means."""

    acting: Acting
    layer: int | None = None
    strength: float | None = None

    def pushes(self, vectors: Mapping[str, SteeringVector]) -> dict[str, tuple[Intervention, ...]]:
        """What each vector does: at the layer given, else as its header recommends."""
        if self.layer is None:
            if self.strength is not None:
                raise SteerlabError(
                    "a strength was given without a layer: give both, or neither for what the vectors recommend."
                )
            unknown = [name for name, v in vectors.items() if v.choice is None]
            if unknown:
                raise SteerlabError(
                    f"nothing was chosen for {unknown[0]!r}: run `steerlab instruct select` on this folder and give the folder it "
                    "makes, or give --layer and --strength."
                )
            return recommended_pushes(vectors)
        cell = Cell(self.layer, 1.0 if self.strength is None else self.strength)
        return {name: self.acting.application.at(vector, cell) for name, vector in vectors.items()}

    def together(self, vectors: Mapping[str, SteeringVector], orthogonal: bool) -> tuple[Intervention, ...]:
        """What all the vectors do to one text."""
        if orthogonal and self.layer is None:
            raise SteerlabError("--orthogonal needs --layer and --strength: it is made from vectors at given places.")
        if orthogonal:
            cell = Cell(self.layer or 0, 1.0 if self.strength is None else self.strength)
            return compose([Placed(v, cell, self.acting.application) for v in vectors.values()], orthogonal=True)
        own = self.pushes(vectors)
        return tuple(sorted((i for name in vectors for i in own.get(name, ())), key=lambda i: i.at))


@dataclass(frozen=True)
class Writing:
    """How texts are drawn."""

    max_new_tokens: int = 128
    greedy: bool = True
    temperature: float = 0.8
    top_p: float = 0.9
    stop: tuple[str, ...] = ()
    batch_rows: int = 64
    seed: int = 0

    @property
    def settings(self) -> Settings:
        """The same as `Settings`."""
        return Settings(
            max_new_tokens=self.max_new_tokens, greedy=self.greedy, temperature=self.temperature, top_p=self.top_p,
            stop=self.stop, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class GenerateOptions:
    """What `generate` was asked."""

    model: str
    instructions: tuple[str, ...]
    prompts: tuple[str, ...]
    file: Path | None
    samples: int
    form: str
    orthogonal: bool
    place: Place
    writing: Writing
    backoff: BackOff | None


def generate(
    asked: GenerateOptions, vectors: Path, out: Path, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Write `samples` texts behind every prompt under the vectors of all the instructions; one row per text."""
    texts = [*asked.prompts, *([] if asked.file is None else read_texts(asked.file, "text"))]
    if not texts or asked.samples < 1:
        raise SteerlabError(f"{len(texts)} prompts and {asked.samples} samples were given: give at least one of each.")
    there, form = vectors_of(vectors), find_form(asked.form)
    lacking = [name for name in asked.instructions if name not in there]
    if lacking or not asked.instructions:
        raise SteerlabError(
            f"{vectors} has no vector for {', '.join(lacking)}: give some of {', '.join(there)}, or fit more with "
            "`steerlab instruct fit -i NAME`."
            if lacking
            else f"no instruction was given: give -i and one or more of {', '.join(there)}."
        )
    chosen = {name: there[name] for name in asked.instructions}
    acting = asked.place.together(chosen, asked.orthogonal)
    model = load(asked.model, dtype=dtype, device=device)
    checked(chosen, model)
    requests = [
        Request(form.put(text), (GROUP, number, sample), acting, form.chat, backoff=asked.backoff)
        for number, text in enumerate(texts)
        for sample in range(asked.samples)
    ]
    settings = form.ends(asked.writing.settings)
    facts = [{"prompt": text, "sample": s} for text in texts for s in range(asked.samples)]
    config: dict[str, Any] = {
        "command": "instruct generate", "model": asked.model, "revision": model.revision, "instructions": asked.instructions,
        "prompts": texts,
        "form": asked.form, "samples": asked.samples, "interventions": [i.to_json() for i in acting], "settings": settings.to_json(),
        "batch_rows": asked.writing.batch_rows, "backoff": asked.backoff and asked.backoff.to_json(), "vectors": vector_digests(chosen),
    }  # fmt: skip
    with RunFolder.open(out, config) as folder:
        samples = write_requests(
            folder, model, requests, facts, settings, batch_rows=asked.writing.batch_rows, progress=progress
        )
        folder.finish()
    rows = []
    for fact, sample in zip(facts, samples, strict=True):
        weaker = "" if not sample.lowered else f"to {sample.lowered[-1].share:g} at token {sample.lowered[-1].step}"
        rows.append({"prompt": fact["prompt"], "text": sample.text, "weakened": weaker})
    return rows


@dataclass(frozen=True)
class EvaluateOptions:
    """What `evaluate` was asked beside its prompts."""

    arms: tuple[str, ...]
    scale: float
    reference: str
    embedder: str
    place: Place
    writing: Writing
    backoff: BackOff | None


def evaluate(
    asked: EvaluateOptions,
    vectors: Path,
    shown_vectors: Path | None,
    prompts: Prompts,
    out: Path,
    dtype: str,
    device: str | None,
    progress: bool,
) -> list[dict[str, Any]]:
    """Write every test prompt in every arm, check and measure; tables in `out`, one row per instruction."""
    if not set(asked.arms) <= set(ARMS):
        raise SteerlabError(f"the arms {', '.join(asked.arms)} were given: give some of {', '.join(ARMS)}.")
    own, form = vectors_of(vectors), prompts.shape
    shown = own if shown_vectors is None else vectors_of(shown_vectors)
    rows = [row for row in prompts.rows("test") if not unknown_cells([row], list(own))]
    if not rows:
        raise SteerlabError(f"no test prompt has an instruction with a vector in {vectors}: it has {', '.join(own)}.")
    arms: Any = asked.arms
    planned = plan_arms(
        rows, asked.place.pushes(own), shown_pushes=asked.place.pushes(shown), arms=arms, form=form, scale=asked.scale,
        backoff=asked.backoff, seed=prompts.seed,
    )  # fmt: skip
    requests = [request for _, _, request in planned]
    model = load(prompts.model, dtype=dtype, device=device)
    checked(own | shown, model)
    settings = form.ends(asked.writing.settings)
    config = base_config("evaluate", asked, prompts, rows, model.revision) | {
        "vectors": vector_digests(own),
        "shown": vector_digests(shown),
    }
    with RunFolder.open(out, config) as folder:
        facts = [{"prompt": row.id, "arm": arm, "instructions": list(row.cells)} for row, arm, _ in planned]
        samples = write_requests(
            folder, model, requests, facts, settings, batch_rows=asked.writing.batch_rows, progress=progress
        )
        run = gather(planned, samples)
        rates, changes = run.followed.rates(), run.followed.changes(seed=prompts.seed)
        folder.write_table("rates.csv", rates)
        folder.write_table("rates_strict.csv", run.followed.rates("strict"))
        folder.write_table("changes.csv", changes)
        quality = run.quality(*_measures(asked, model, dtype, device))
        folder.write_table("quality.csv", quality.table(prompts.seed))
        folder.write_table("weakened.csv", _weakened(planned, samples))
        folder.finish()
    return run.table.to_dict("records")


def _measures(asked: EvaluateOptions, model: TracedModel, dtype: str, device: str | None) -> tuple[Any, Any]:
    """Perplexity and relevance, from the models that were named."""
    surprise = None
    if asked.reference != "none":
        other = model if asked.reference == "self" else load(asked.reference, dtype=dtype, device=device)
        surprise = reference_perplexity(other)
    if asked.embedder == "none":
        return surprise, None
    return surprise, embedder(None, model) if asked.embedder == "self" else embedder(asked.embedder)


def _weakened(planned: Sequence[tuple[InstructedPrompt, Any, Request]], samples: Sequence[Any]) -> pd.DataFrame:
    """Where texts were weakened while they were written."""
    rows = [
        (row.id, arm, *low)
        for (row, arm, _), sample in zip(planned, samples, strict=True)
        for low in sample.lowered
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["prompt", "arm", "token", "share", "reason"])

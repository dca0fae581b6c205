"""An expert from texts to folder: `train_expert` writes adapter, record and card; `read_expert` reads the record back."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steerlab import disk
from steerlab.capture import provenance
from steerlab.errors import SteerlabError
from steerlab.experts import card, training
from steerlab.experts.config import ExpertConfig
from steerlab.experts.lora import CONFIG as ADAPTER
from steerlab.experts.lora import WEIGHTS, check_trainable, lora_inside, write_adapter
from steerlab.experts.memory import Memorisation, memorisation, recited
from steerlab.experts.pairs import Pair, apart, distinct_pairs, hold_out, is_offensive, token_rows
from steerlab.generation import Request, Settings, generate
from steerlab.model import TracedModel
from steerlab.records import differences, encode, is_sealed, parse, pretty, read_object, sealed
from steerlab.schema import upgraded
from steerlab.tasks import FINISHES, Task, postprocess, task

RECORD, SAMPLES, CARD, LOCK = "expert.json", "samples.jsonl", "README.md", ".lock"
KIND, SCHEMA = "steerlab expert", 2
STEPS = {1: lambda record: {**record, "files": {}}}  # layout 1 had no checksums of itself, its samples and its card


@dataclass(frozen=True)
class Expert:
    """A trained expert: the folder of its adapter, for `load(base, adapter=folder)`, and its record, `expert.json`."""

    folder: Path
    record: dict[str, Any]

    @property
    def base(self) -> str:
        """The model it was trained on."""
        return str(self.record["asked"]["provenance"]["model"])

    @property
    def offensive(self) -> bool:
        """Whether its texts are offensive, and so not to be shown unasked."""
        return bool(self.record["offensive"])

    @property
    def memorisation(self) -> Memorisation:
        """What it has by heart."""
        return Memorisation.from_json(self.record["memorisation"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row per evaluation: step, training loss since the one before, validation loss."""
        return self.record["history"]

    def samples(self) -> list[dict[str, Any]]:
        """The texts it wrote when it was measured, with their prompts."""
        file = self.folder / SAMPLES
        return parse(file.read_bytes(), file) if file.is_file() else []


def train_expert(
    model: TracedModel,
    pairs: Sequence[Pair],
    folder: Path | str,
    config: ExpertConfig | None = None,
    validation: Sequence[Pair] | None = None,
    chosen: str | Task | None = None,
    samples: int = 64,
    progress: bool = True,
) -> Expert:
    """Train a LoRA adapter on prompts and their texts and write it to `folder` with its record and card; the model stays as it was.

    validation: pairs that decide when to stop; default: a share of `pairs`. Repeats are dropped, and training texts equal or near
    to a validation text. chosen: the task of the texts, which decides how samples end. samples: texts it then writes, at
    temperature 1 among the 10 most likely tokens, to measure what it copies. The same model, texts and config give the same bytes
    on one CPU; a call that was interrupted continues at the last evaluation, and one that is finished trains nothing.
    The adapter is trained and saved in float32; a base loaded in bfloat16 later takes it rounded, as transformers does.

    Raises `SteerlabError` for no texts, a folder with another expert, unknown targets, and what `ExpertConfig` refuses.
    """
    config, place = config or ExpertConfig(), Path(folder).expanduser()
    known = None if chosen is None else task(chosen)
    check_trainable(model, config)
    train, held = _split(pairs, validation, config)
    asked = _asked(model, train, held, config, known, samples)
    if (place / RECORD).is_file():
        return _finished(place, asked)
    rows, held_rows = (token_rows(model, part, config.max_length) for part in (train, held))
    with disk.told(place), lora_inside(model, config) as inside:
        place.mkdir(parents=True, exist_ok=True)
        lock = disk.take_lock(place / LOCK)
        try:
            state = training.fit(model, inside, rows, held_rows, config, place, asked, progress)
            write_adapter(inside, place, model.name, model.revision)
            size = config.batch_size
            same = rows[:: max(1, len(rows) // len(held_rows))][: len(held_rows)]
            losses = training.text_loss(model, same, size), training.text_loss(model, held_rows, size)
            recitals = recited(model, same, size), recited(model, held_rows, size)
            written = _write_samples(model, train, config, known, samples, progress)
            texts = [row["text"] for row in written]
            found = memorisation(losses, recitals, texts, [p.text for p in train], [p.text for p in held])
            adapter = {"parameters": sum(w.numel() for w in inside.parameters() if w.requires_grad)}
            record = _record(asked, state, config, known, found, adapter | disk.fingerprint(place / WEIGHTS))
            _write(place, record, written)
        finally:
            os.close(lock)
    return read_expert(place)


def read_expert(folder: Path | str) -> Expert:
    """The expert in a folder that `train_expert` wrote.

    Raises `SteerlabError` where there is none (an adapter from elsewhere has no record, and loads all the same), and where the
    weights are not those of the record.
    """
    place = Path(folder).expanduser()
    if not (place / RECORD).is_file():
        begun = (place / training.STATE).is_file()
        told = (
            "its training was interrupted: give the command that began it again"
            if begun
            else "give a folder that `steerlab expert train` wrote"
        )
        raise SteerlabError(f"{place} has no {RECORD}: {told}.")
    record = read_object(place / RECORD)
    if record.get("kind") != KIND:
        raise SteerlabError(f"{place / RECORD} is no record of an expert: give a folder that `steerlab expert train` wrote.")
    layout = record.get("schema")
    record = upgraded(place / RECORD, KIND, record, layout, SCHEMA, STEPS)
    weights = place / WEIGHTS
    if not weights.is_file() or disk.fingerprint(weights)["sha256"] != record["adapter"]["sha256"]:
        raise SteerlabError(
            f"{weights} is not what was trained: the file was changed or removed, train the expert again."
        )
    changed = [name for name, own in record["files"].items() if _other(place / name, own)]
    if changed or (layout == SCHEMA and not is_sealed(record)):
        raise SteerlabError(
            f"{place / (changed or [RECORD])[0]} was changed after it was written: delete {RECORD} and train the expert again."
        )
    return Expert(place, record)


def _other(file: Path, written: dict[str, Any]) -> bool:
    return not file.is_file() or disk.fingerprint(file) != written


def _split(
    pairs: Sequence[Pair], validation: Sequence[Pair] | None, config: ExpertConfig
) -> tuple[list[Pair], list[Pair]]:
    own = distinct_pairs(pairs)
    if not own:
        raise SteerlabError(
            f"{len(pairs)} texts were given and none has words: an expert learns from texts, give some."
        )
    if validation is None:
        return hold_out(own, config.validation_share, config.seed)
    held = distinct_pairs(validation)
    return apart(own, held), held


def _asked(
    model: TracedModel, train: list[Pair], held: list[Pair], config: ExpertConfig, known: Task | None, samples: int
) -> dict[str, Any]:
    """Everything that decides the result: two calls that agree in it are one."""
    texts = {name: [f"{p.prompt}\x1f{p.text}" for p in part] for name, part in (("train", train), ("validation", held))}
    origin = provenance(
        model, texts, method="lora", positions="text" if config.completion_only else "all", seed=config.seed
    )
    origin = replace(origin, versions=(*origin.versions, ("peft", importlib.metadata.version("peft"))))
    return {
        "provenance": origin.to_json(),
        "config": config.to_json(),
        "task": "" if known is None else known.name,
        "chat": any(p.chat for p in train),
        "prompts": list(dict.fromkeys(p.prompt for p in train)),
        "texts": {"train": len(train), "validation": len(held)},
        "samples": samples,
    }


def _finished(place: Path, asked: dict[str, Any]) -> Expert:
    expert = read_expert(place)
    if other := differences(expert.record["asked"], asked):
        raise SteerlabError(f"{place} holds another expert ({'; '.join(other[:3])}): give another folder.")
    return expert


def _write_samples(
    model: TracedModel, train: Sequence[Pair], config: ExpertConfig, known: Task | None, count: int, progress: bool
) -> list[dict[str, Any]]:
    """Texts written behind the training prompts in turn."""
    if count < 1:
        return []
    finish = FINISHES["line" if known is None else known.finish]
    asked = list(dict.fromkeys((p.prompt, p.chat) for p in train))
    longest = max(len(model.token_rows([text], chat)[0]) for text, chat in asked)
    room = model.context_length - longest
    settings = Settings(
        max_new_tokens=max(1, min(finish.max_new_tokens, room)),
        temperature=1.0,
        top_p=1.0,
        top_k=10,
        stop=finish.stop,
        seed=config.seed,
    )
    chosen = [asked[i % len(asked)] for i in range(count)]
    requests = [Request(text, ("expert", i), chat=chat) for i, (text, chat) in enumerate(chosen)]
    written = generate(model, requests, settings, progress=progress)
    tidied = [sample.text if known is None else postprocess(sample.text, known) for sample in written]
    return [{"prompt": prompt, "text": text} for (prompt, _), text in zip(chosen, tidied, strict=True)]


def _record(
    asked: dict[str, Any],
    state: training.State,
    config: ExpertConfig,
    known: Task | None,
    found: Memorisation,
    adapter: dict[str, Any],
) -> dict[str, Any]:
    kept = state.history[state.best_row if config.keep == "best" else -1]
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "offensive": known is not None and is_offensive(known),
        "asked": asked,
        "steps": state.step,
        "stopped_early": state.step < config.steps,
        "kept_step": kept["step"],
        "base_validation_loss": state.history[0]["validation_loss"],
        "memorisation": found.to_json(),
        "adapter": adapter,
        "history": state.history,
    }


def _write(place: Path, record: dict[str, Any], written: Sequence[dict[str, Any]]) -> None:
    """Samples and card first, the record last: where it stands, the expert is whole. The training state has done its work."""
    disk.replace(place / SAMPLES, b"".join(encode(row) for row in written))
    disk.replace(place / CARD, card.card(record).encode())
    record = {**record, "files": {name: disk.fingerprint(place / name) for name in (SAMPLES, CARD, ADAPTER)}}
    disk.replace(place / RECORD, pretty(sealed(record)))
    (place / training.STATE).unlink(missing_ok=True)

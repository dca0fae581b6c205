"""Samples as a Hugging Face data set: parquet files with typed columns and a card, whole or not there, loadable with `load_dataset`."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, Features, Value

from steerlab import data
from steerlab.datacard import Origin, card
from steerlab.disk import fingerprint, replace, sync_folder, told
from steerlab.errors import SteerlabError
from steerlab.evaluation.language import identify
from steerlab.evaluation.splits import held_out
from steerlab.interop.hub import upload
from steerlab.records import config_key, pretty, read_object, understood
from steerlab.schema import upgraded
from steerlab.steering_text import described
from steerlab.store import CONFIG, SAMPLES, read_config, read_rows
from steerlab.tasks import TASKS, check_label

COLUMNS = ("language", "task", "label", "text")
RECORD, CARD = "steerlab.json", "README.md"
SCHEMA = 1
NAME = re.compile(r"\w[\w.+-]*")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Choice:
    """Which samples, and how they are split. Empty tuples take everything; `in_language` drops texts that language identification
    puts elsewhere; `validation` is the share of slots per label held out, by `seed`: a slot's texts under all conditions stay together.
    """

    conditions: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    in_language: bool = False
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise SteerlabError(
                f"a validation share of {self.validation} was asked for: give one from 0 up and below 1."
            )


@dataclass(frozen=True)
class Exported:
    """`counts`: texts by configuration and split. `dropped`: texts left out of the choice, by reason."""

    path: Path
    counts: dict[str, dict[str, int]]
    dropped: dict[str, int]


def read_samples(where: Path) -> tuple[list[dict[str, Any]], Origin]:
    """The sample rows of a run folder or a .jsonl file, and what is known of how they were made.

    Raises `SteerlabError` where there are none, and naming the first row that is no sample.
    """
    file = where / SAMPLES if where.is_dir() else where
    rows = read_rows(file)
    if not rows:
        raise SteerlabError(f"{where} has no samples: write some with `steerlab synthesize`.")
    for number, row in enumerate(rows, start=1):
        row.setdefault("condition", "all")
        missing = [
            name for name in (*COLUMNS, "condition") if not isinstance(row.get(name), str) or not row[name].strip()
        ]
        if missing:
            raise SteerlabError(
                f"row {number} of {where} has no text as {missing[0]!r} (it has {', '.join(row)}): every sample needs {', '.join(COLUMNS)}."
            )
        if row["task"] in TASKS:
            try:
                check_label(TASKS[row["task"]], row["label"])
            except SteerlabError as error:
                raise SteerlabError(f"row {number} of {where}: {error}") from error
    config = read_config(where) if where.is_dir() and (where / CONFIG).is_file() else {}
    measured = where / "metrics.json"
    with understood(measured):
        metrics = tuple(dict(row) for row in read_object(measured).get("metrics", [])) if measured.is_file() else ()
    return rows, Origin(config, metrics, fingerprint(file)["sha256"])


def choose(rows: Sequence[Mapping[str, Any]], choice: Choice) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The chosen rows in their order, and how many were dropped by each filter.

    Raises `SteerlabError` for a condition, language or task that no row has, and where nothing is left.
    """
    kept, dropped = [dict(row) for row in rows], {}
    for column, wanted in (("condition", choice.conditions), ("language", choice.languages), ("task", choice.tasks)):
        have = list(dict.fromkeys(str(row[column]) for row in rows))
        if unknown := [name for name in wanted if name not in have]:
            raise SteerlabError(f"no sample has the {column} {unknown[0]!r}: choose among {', '.join(have)}.")
        if wanted:
            left = [row for row in kept if row[column] in wanted]
            dropped[f"another {column}"] = len(kept) - len(left)
            kept = left
    if choice.in_language:
        wanted_lid = {code: data.language(code).lid for code in {row["language"] for row in kept}}
        found = [guess.language for guess in identify([row["text"] for row in kept])]
        left = [row for row, code in zip(kept, found, strict=True) if code == wanted_lid[row["language"]]]
        dropped["not in the language"] = len(kept) - len(left)
        kept = left
    if not kept:
        raise SteerlabError(f"no sample of {len(rows)} is left after the filters {dropped}: choose more.")
    return kept, dropped


def configurations(rows: Sequence[Mapping[str, Any]], choice: Choice) -> dict[str, dict[str, Dataset]]:
    """One configuration per task and language ("topic-jv"), each with the split train and, where asked for, validation.

    Columns: id, text, label (a `ClassLabel` in the task's order), language, condition, steering (in words).
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        name = f"{row['task']}-{row['language']}"
        if not NAME.fullmatch(name):
            raise SteerlabError(
                f"{name!r} cannot name a folder: give tasks and languages plain names of letters, digits, - and _."
            )
        groups.setdefault(name, []).append(row)
    found = {}
    for name, own in groups.items():
        features = _features(own)
        splits = {split: part for split, part in _split(own, choice).items() if part}
        found[name] = {split: Dataset.from_dict(_columns(part), features=features) for split, part in splits.items()}
    return found


def described_parts(
    rows: Sequence[Mapping[str, Any]], origin: Origin, choice: Choice, licence: str, name: str, where: Path
) -> tuple[dict[str, dict[str, Dataset]], dict[str, dict[str, int]], dict[str, int], str]:
    """The chosen rows as configurations with their counts, what was left out, and the card. Raises `SteerlabError` also where what the
    run recorded of itself, in `where`, is not as it was written.
    """
    kept, dropped = choose(rows, choice)
    name = name.encode("utf-8", "replace").decode()  # it may be that of a file, which need not be UTF-8
    with understood(where):
        parts = configurations(kept, choice)
        counts = {config: {split: len(one) for split, one in own.items()} for config, own in parts.items()}
        return parts, counts, dropped, card(origin, kept, counts, dropped, asdict(choice), licence, name)


def export(where: Path, out: Path, choice: Choice, licence: str = "", name: str = "", force: bool = False) -> Exported:
    """Write the data set to the folder `out`: a parquet file per configuration and split, the card, and a record of what it came from.

    The same export may be repeated. Raises `SteerlabError` as `read_samples` and `choose` do, and when `out` holds another data set
    (unless `force`) or anything that is no data set of ours (always), before a byte of it is touched.
    """
    if licence and not LICENCE.fullmatch(licence):
        raise SteerlabError(
            f"licence {licence!r} is no licence as the hub spells them: give cc-by-4.0, apache-2.0, other, say."
        )
    rows, origin = read_samples(where)
    parts, counts, dropped, text = described_parts(rows, origin, choice, licence, name or where.stem, where)
    key = config_key({"samples": origin.sha256, "choice": asdict(choice), "card": text})
    out = Path(os.path.abspath(out.expanduser()))
    stage, old = (out.with_name(f".{out.name}.{end}") for end in ("new", "old"))
    with told(out):
        if old.exists() and not out.exists():  # killed between the two renames below
            old.rename(out)
        _may_replace(out, key, force)
        shutil.rmtree(stage, ignore_errors=True)
        try:
            _write(stage, parts, text, {"key": key, "samples": origin.sha256, "choice": asdict(choice)})
            shutil.rmtree(old, ignore_errors=True)
            if out.exists():
                out.rename(old)
            stage.rename(out)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    return Exported(out, counts, dropped)


def push(folder: Path, repo_id: str, private: bool = True, api: Any = None) -> str:
    """Upload an exported folder to the Hugging Face hub as it is, card included, and return its address.

    `api`: a `huggingface_hub.HfApi`, by default one with the token this machine is logged in with. Raises `SteerlabError` for a folder
    that is no export, a card without a licence, and when the hub refuses.
    """
    _record(folder)
    if '\nlicense: "unknown"\n' in (folder / CARD).read_text(encoding="utf-8"):
        raise SteerlabError(f"{folder} states no licence: export it again with --license, what is published needs one.")
    upload(folder, repo_id, "dataset", private, "Data set exported by steerlab", api)
    return f"https://huggingface.co/datasets/{repo_id}"


def _features(rows: Sequence[Mapping[str, Any]]) -> Features:
    known = TASKS.get(str(rows[0]["task"]))
    names = list(known.labels) if known else sorted({str(row["label"]) for row in rows})
    text = Value("string")
    return Features(
        {
            "id": text,
            "text": text,
            "label": ClassLabel(names=names),
            "language": text,
            "condition": text,
            "steering": text,
        }
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"id": [row["id"] for row in rows]}
    for name in ("text", "label", "language", "condition"):
        found[name] = [str(row[name]) for row in rows]
    return {**found, "steering": [described(row.get("interventions") or ()) for row in rows]}


def _split(rows: Sequence[Mapping[str, Any]], choice: Choice) -> dict[str, list[Mapping[str, Any]]]:
    """The rows with ids, by split. Equal ids get numbers."""
    named, seen = [], Counter[str]()
    for row in rows:
        slot = f"{row['label']}/{row['index']}" if "index" in row else f"{row['label']}/row{len(named)}"
        name = f"{row['task']}/{row['language']}/{row['condition']}/{slot}"
        seen[name] += 1
        named.append({**row, "slot": slot, "id": name if seen[name] == 1 else f"{name}/{seen[name]}"})
    if not choice.validation:
        return {"train": named}
    slots = {row["slot"]: str(row["label"]) for row in named}
    _, held = held_out(list(slots.values()), choice.validation, choice.seed)
    out = {list(slots)[i] for i in held}
    return {
        "train": [row for row in named if row["slot"] not in out],
        "validation": [row for row in named if row["slot"] in out],
    }


def _write(stage: Path, parts: Mapping[str, Mapping[str, Dataset]], text: str, record: Mapping[str, Any]) -> None:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        for config, splits in parts.items():
            (stage / config).mkdir(parents=True)
            for split, one in splits.items():
                one.to_parquet(str(stage / config / f"{split}-00000-of-00001.parquet"))
    finally:
        if shown:
            datasets.enable_progress_bars()
    for path in stage.rglob("*.parquet"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    replace(stage / CARD, text.encode())
    files = {
        path.relative_to(stage).as_posix(): fingerprint(path) for path in sorted(stage.rglob("*")) if path.is_file()
    }
    replace(stage / RECORD, pretty({"schema": SCHEMA, **record, "files": files}))


def _may_replace(out: Path, key: str, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    there = _record(out)
    if there.get("key") != key and not force:
        raise SteerlabError(f"{out} holds another data set: give another folder, or --force to replace it.")


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file() or not (folder / CARD).is_file():
        raise SteerlabError(
            f"{folder} is no data set that was exported here ({RECORD} is missing): give another folder."
        )
    record = read_object(folder / RECORD)
    return upgraded(folder / RECORD, "data set", record, record.get("schema"), SCHEMA)

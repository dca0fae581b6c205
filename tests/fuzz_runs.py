"""Run folders whose files were changed by hand, by another program or by somebody who means harm, and what is made of them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
from hypothesis import strategies as st

from steerlab import store, watch
from steerlab.commands import dataset as dataset_command
from steerlab.dataset import Choice, export
from steerlab.origin import cells_again, read_origin
from steerlab.records import pretty
from steerlab.report import write_report
from steerlab.store import RunFolder
from tests import odd_texts as odd
from tests.fuzz import Target
from tests.fuzz_records import SAMPLE, rows_of
from tests.labelled_run import labelled_run
from tests.reported_run import reported_run
from tests.small_run import CONFIG, rows, work
from tests.tiny import vector

JsonFile = Callable[[Any], bytes]


@functools.cache
def _made(make: Callable[[Path], Path]) -> dict[str, bytes]:
    """The files of a run, made once."""
    with tempfile.TemporaryDirectory() as folder:
        run = make(Path(folder) / "run")
        return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _put(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        path = folder / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "run"


@st.composite
def _changed(draw: st.DrawFn, make: Callable[[Path], Path], names: tuple[str, ...]) -> dict[str, bytes]:
    """The files of a run, one of them with odd values, odd lines, broken JSON or damaged bytes."""
    files = dict(_made(make))
    name = draw(st.sampled_from(names))
    what = draw(st.sampled_from(["value", "value", "value", "broken", "bytes", "gone"]))
    if what == "gone":
        del files[name]
    elif what == "bytes" or name.endswith((".csv", ".png")):
        files[name] = draw(odd.damaged(files[name]))
    elif what == "broken":
        files[name] = draw(odd.BROKEN_JSON).encode()
    elif name.endswith(".jsonl"):
        lines = [json.loads(line) for line in files[name].splitlines()]
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = draw(odd.replaced(lines[at]))
        files[name] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    else:
        files[name] = json.dumps(draw(odd.replaced(json.loads(files[name])))).encode()
    return files


LOG = {
    "file": "samples.jsonl",
    "batch": "0",
    "rows": 0,
    "end": 0,
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}
HOSTILE = st.builds(
    lambda name, end: json.dumps(LOG | {"file": name, "end": end}).encode() + b"\n",
    st.sampled_from(["../../kept", "../kept", "/kept", "config.json", "manifest.json", "batches.jsonl", "a/../../../kept", "..", ""]),
    st.sampled_from([0, 1, -1, 2**70, 1.5, None]),
)  # fmt: skip


def _resume(files: dict[str, bytes], folder: Path) -> None:
    path = _put(files, folder)
    with RunFolder.open(path, CONFIG) as run:
        for batch in range(3):
            if str(batch) not in run.completed_batches():
                run.append("samples.jsonl", rows(batch), batch=str(batch))
        run.write_json("metrics.json", {"rows": len(run.read("samples.jsonl"))})
        run.finish()
    store.verify(path)


@st.composite
def _with_log(draw: st.DrawFn) -> dict[str, bytes]:
    if draw(st.integers(0, 2)):
        return draw(_changed(work, ("config.json", "batches.jsonl", "batches.jsonl", "samples.jsonl", "manifest.json")))
    files = dict(_made(work))
    files["batches.jsonl"] = files["batches.jsonl"] + draw(HOSTILE) if draw(st.booleans()) else draw(HOSTILE)
    return files


def _verify(files: dict[str, bytes], folder: Path) -> None:
    store.verify(_put(files, folder))


@st.composite
def _manifest(draw: st.DrawFn) -> dict[str, bytes]:
    files = draw(_changed(work, ("manifest.json",)))
    if draw(st.booleans()):
        entry = draw(st.one_of(odd.JSON, st.just({"bytes": 21, "sha256": "0"})))
        named = {draw(st.one_of(odd.NAMES, st.sampled_from(["../../kept"]))): entry}
        files["manifest.json"] = json.dumps({"schema": 1, "config_key": "", "files": named}).encode()
    return files


def _write_name(name: str, folder: Path) -> None:
    with RunFolder.open(folder / "run", CONFIG) as run:
        run.write_text(name, "x")
        found = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"x"]
        assert len(found) == 1 and found[0].is_relative_to(folder / "run")


def _watch(files: dict[str, bytes], folder: Path) -> None:
    from rich.console import Console

    seen = watch.snapshot(_put(files, folder))
    assert json.loads(pretty(watch.rows(seen)))
    with (folder / "screen").open("w", encoding="utf-8") as screen:
        Console(file=screen).print(watch.view(seen))


# ---- the page


class Page(HTMLParser):
    """What a page runs, asks for and shows."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.bad = 0, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            asks = name in ("src", "href", "action", "formaction", "data") and not str(value).startswith(("data:", "#"))
            if (
                name.startswith("on")
                or asks
                or (tag in ("iframe", "object", "embed", "base", "form") and name == "src")
            ):
                self.bad.append((tag, name, value))


def _report(files: dict[str, bytes], folder: Path) -> None:
    write_report([_put(files, folder)], folder / "page.html")
    text = (folder / "page.html").read_bytes().decode()
    page = Page()
    page.feed(text)
    assert page.scripts == 1 and not page.bad, page.bad
    assert "\0" not in text and "hf_abcdefghijkl" not in text


@st.composite
def _odd_samples(draw: st.DrawFn) -> dict[str, bytes]:
    """A run whose samples, settings and metrics hold odd texts."""
    if draw(st.booleans()):
        return draw(
            _changed(
                reported_run,
                ("config.json", "samples.jsonl", "metrics.json", "metrics.json", "tables/cost.csv", "batches.jsonl"),
            )
        )
    files = dict(_made(reported_run))
    kept = json.loads(files["samples.jsonl"].splitlines()[0])
    texts = draw(st.lists(odd.TEXTS, min_size=2, max_size=4))
    lines = [
        kept | {"text": text, "condition": text, "index": i % 2, "interventions": []} for i, text in enumerate(texts)
    ]
    files["samples.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files["config.json"] = json.dumps({"note": draw(odd.TEXTS), draw(odd.TEXTS): draw(odd.TEXTS)}).encode()
    del files["batches.jsonl"]
    return files


# ---- data sets


@st.composite
def _rows_with(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    given = {
        "validation": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "in_language": draw(st.booleans()),
        "seed": draw(st.integers(0, 3)),
    }
    return draw(rows_of(SAMPLE)), given


def _export(example: tuple[bytes, dict[str, Any]], folder: Path) -> None:
    data, given = example
    (folder / "given.jsonl").write_bytes(data)
    made = export(folder / "given.jsonl", folder / "out", Choice(**given))
    given_texts = [row["text"] for row in store.read_rows(folder / "given.jsonl")]
    found = []
    for path in sorted((folder / "out").rglob("*.parquet")):
        found += datasets.Dataset.from_parquet(str(path), cache_dir=str(folder / "cache"))["text"]  # pyright: ignore
    assert sum(sum(own.values()) for own in made.counts.values()) == len(found)
    assert set(found) <= set(given_texts) and (given["in_language"] or sorted(found) == sorted(given_texts))


def _card(files: dict[str, bytes], folder: Path) -> None:
    text = dataset_command.preview(_put(files, folder), Choice(), "", "name")
    text.encode()
    head = text.split("\n---\n", 1)[0].removeprefix("---\n")
    assert "license:" in head and "configs:" in head


@st.composite
def _push_rows(draw: st.DrawFn) -> dict[str, bytes]:
    return draw(_changed(labelled_run, ("config.json", "samples.jsonl", "metrics.json")))


# ---- what a run is repeated from


def _with_vectors(folder: Path) -> Path:
    from steerlab.vectorset import save_set
    from tests.tiny import vector as tiny_vector

    own = tiny_vector(0)
    step = {"vector": own.name, "stream": own.stream, "layers": [1], "operator": "add", "strength": 0.5, "unit": "raw", "target": 0.0,
            "positions": "all", "gate": None, "cap": None, "method": "", "model": ""}  # fmt: skip
    cell = {"condition": "plain", "language": "jv", "task": "topic", "prompt_language": "jv", "shots": {"travel": ["a"]},
            "labels": ["travel"], "interventions": [step]}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(pretty({"cells": [cell], "model": "m", "model_revision": "r"}))
    (folder / "origin.json").write_bytes(
        pretty({"dtype": "float32", "device": "cpu", "vectors": [["v0"]], "versions": {}})
    )
    save_set({"v0": own}, folder / "vectors")
    return folder


def _cells(files: dict[str, bytes], folder: Path) -> None:
    path = _put(files, folder)
    found = cells_again(path, store.read_config(path))
    assert all(cell.name for cell in found) and read_origin(path)
    assert all(step.vector.equals(vector(0)) for cell in found for step in cell.interventions)


TARGETS = [
    Target("runs", "run folder, continued", "changed configurations, logs, rows; logs that name files outside", _with_log(), _resume),
    Target("runs", "run folder, verified", "changed manifests; manifests that name files outside", _manifest(), _verify),
    Target("runs", "name of a file of a run", "odd names, paths out of the folder", odd.NAMES, _write_name),
    Target("runs", "run folder, watched", "changed configurations and logs",
        _changed(reported_run, ("config.json", "batches.jsonl")), _watch),
    Target("runs", "report page", "odd and hostile texts in every place, damaged tables", _odd_samples(), _report, 0.4),
    Target("runs", "data set export", "JSON lines: odd fields, names and texts; read back from parquet", _rows_with(), _export, 0.3),
    Target("runs", "data set card", "runs with changed configurations, rows and metrics", _push_rows(), _card),
    Target("runs", "cells of a run, again", "changed configurations, origins and vectors",
        _changed(_with_vectors, ("config.json", "origin.json", "vectors/vectors.json")), _cells),
]  # fmt: skip

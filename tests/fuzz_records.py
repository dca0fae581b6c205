"""Records and words that commands are given: studies as TOML, samples and pairs as JSON lines, positions, layers, shards."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from steerlab.backtranslation import read_pairs
from steerlab.choice import Choice, spans
from steerlab.commands import evaluate, exchange, study
from steerlab.commands.study import to_toml
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.instructions.sources import prompt_source
from steerlab.projections import Projections
from steerlab.provenance import Provenance
from steerlab.records import config_key, encode, parse, plain, pretty
from steerlab.sharding import Shard
from steerlab.steering import Intervention
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.presets import PRESETS, find_study
from steerlab.studies.units import units_of
from steerlab.tasks import Task, prompt
from steerlab.types import Positions
from tests import odd_texts as odd
from tests.fuzz import Target
from tests.tiny import vector

# ---- TOML of studies

PRESET = to_toml("polyglot-mini")


def _literal(value: Any) -> str:
    """A value as TOML, as near as its words come."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_string(k)} = {_literal(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("-inf" if value < 0 else "inf") if math.isinf(value) else repr(value)
    return _string("" if value is None else str(value))


def _string(text: str) -> str:
    return '"' + "".join(c if c.isalnum() or c in " /.-_" else f"\\U{ord(c):08x}" for c in text) + '"'


FIELDS = [f.name for f in fields(StudyConfig) if f.name != "models"]
PLAN = [f.name for f in fields(ModelPlan)]
WORDS = st.sampled_from(
    ["topic", "jv", "none", "zero-shot", "language", "random", "raw", "4bit", "fit", "sample", "early"]
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    odd.NUMBERS, WORDS, odd.NAMES, odd.SHORT, st.booleans(), st.lists(st.one_of(WORDS, odd.NUMBERS, odd.SHORT), max_size=3),
    st.dictionaries(st.one_of(WORDS, odd.NAMES), st.one_of(odd.NUMBERS, odd.NAMES), max_size=2),
)  # fmt: skip


@st.composite
def _study(draw: st.DrawFn) -> bytes:
    what = draw(st.sampled_from(["fields", "fields", "damage", "text"]))
    if what == "damage":
        return draw(odd.damaged(PRESET.encode()))
    if what == "text":
        return draw(odd.WHOLE).encode()
    lines = [
        f"{name} = {_literal(draw(VALUES))}"
        for name in draw(st.lists(st.sampled_from(FIELDS), max_size=2, unique=True))
    ]
    lines += [f"{_string(draw(odd.NAMES))} = 1"] * draw(st.booleans()) * draw(st.booleans())
    for _ in range(draw(st.integers(0, 2))):
        chosen = draw(st.lists(st.sampled_from(PLAN), max_size=2, unique=True))
        lines += ["[[models]]", *(f"{name} = {_literal(draw(VALUES))}" for name in chosen)]
    return "\n".join(lines).encode()


def _find_study(data: bytes, folder: Path) -> None:
    (folder / "given.toml").write_bytes(data)
    found = find_study(str(folder / "given.toml"))
    assert json.loads(pretty(found.to_json())) and config_key(found.to_json())
    for unit in units_of(found):
        assert "/" not in unit.name and "\0" not in unit.name and unit.name not in (".", "..")
    assert found.cases() and found.settings(0)


def _presets(name: str, folder: Path) -> None:
    found = study.presets(name)
    assert not isinstance(found, str) or tomllib.loads(found)


# ---- rows of samples, pairs and prompts

SAMPLE = {
    "language": "jv",
    "task": "topic",
    "condition": "plain",
    "label": "travel",
    "index": 0,
    "text": "Aku mangan sega.",
}
PAIR = {"id": "a", "source": "own", "human": "Aku mangan sega.", "degraded": "Aku sega."}
PROMPT = {
    "instructions": ["simple:max_words"],
    "kwargs": [{"n": 3}],
    "split": "train",
    "group": "g",
    "base": "Write a note.",
}


def rows_of(row: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Lines of JSON like this row: whole, with odd places, broken, damaged."""
    one = st.one_of(st.just(row), st.just(row), odd.replaced(row), st.fixed_dictionaries(dict.fromkeys(row, odd.TEXTS)))
    line = st.one_of(one.map(json.dumps), one.map(lambda r: json.dumps(r, ensure_ascii=False)))
    odd_lines = st.lists(st.one_of(line, line, line, odd.BROKEN_JSON), min_size=1, max_size=4).map("\n".join)
    lines = st.one_of(
        st.just(json.dumps(row)),
        odd_lines,
        st.lists(odd.WHOLE, min_size=1, max_size=3).map(lambda t: _as_texts(row, t)),
    )
    whole = lines.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(whole, whole, whole, whole.flatmap(odd.damaged))


def _as_texts(row: dict[str, Any], texts: list[str]) -> str:
    """Whole rows but for an odd text in the last of their fields."""
    return "\n".join(json.dumps({**row, list(row)[-1]: text}, ensure_ascii=False) for text in texts)


def _evaluate(data: bytes, folder: Path) -> None:
    (folder / "given.jsonl").write_bytes(data)
    rows = evaluate.run(folder / "given.jsonl", "sample", 1, "none", None)
    assert rows and json.loads(encode({"rows": rows}))


def _pairs(data: bytes, folder: Path) -> None:
    (folder / "given.jsonl").write_bytes(data)
    found = read_pairs(folder / "given.jsonl")
    assert all(pair.human.strip() and pair.degraded.strip() for pair in found) and len(found.sha256) == 64
    for pair in found:
        encode(pair)


def _prompts(data: bytes, folder: Path) -> None:
    (folder / "given.jsonl").write_bytes(data)
    for row in prompt_source(str(folder / "given.jsonl"), "train"):
        assert row.instructions and len(row.instructions) == len(row.kwargs) and encode(row)


# ---- JSON as it is kept


def _round_trip(value: Any, folder: Path) -> None:
    data = encode(value)
    assert data.count(b"\n") == 1 and parse(data, Path("x")) == [plain(value)]


def _from_json(read: Callable[[Any], Any]) -> Callable[[Any, Path], None]:
    def holds(record: Any, folder: Path) -> None:
        found = read(record)
        assert read(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()

    return holds


OWN = vector(0)
CHOICE = Choice((1, 2), 0.5, evidence=(("share", 0.5, 0.4, 0.6),), cap=0.5, gate=(0.1, True)).to_json()
PROVENANCE = Provenance("m", "r", data=(("a", "b"),), seed=3, versions=(("torch", "2"),)).to_json()
PROJECTIONS = Projections((1.0, 2.0), (0.0, 1.0), (math.nan, 0.5)).to_json()
STEP = Intervention(OWN, (1,), strength=0.5).to_json()

# ---- words of options

PARTS = st.one_of(
    st.sampled_from(["all", "last:2", "last:0", "last:²", "-3:-1", ":", "3:1", "1/4", "²/3", "0/1", "1/0", "٣/٤", "auto", "0-5,9"]),
    st.sampled_from(["5-1", "99999-1", "0-99999", "²", "-1", "1-2-3", ",", "1__0:2", "polyglot-mini", "paper",
                     "9" * 5000 + ":", "last:" + "9" * 5000]),
    odd.TEXTS,
)  # fmt: skip


def _words(text: str, folder: Path) -> None:
    """Every reader of an option either gives a value or refuses; one that gives it is enough."""
    refusals = []
    for read in (_positions, _layers, _shard):
        try:
            read(text)
        except SteerlabError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]


def _positions(text: str) -> None:
    found = Positions.parse(text)
    assert Positions.parse(str(found)) == found


def _layers(text: str) -> None:
    found = exchange.layers_of(text)
    assert all(0 <= layer < 100_000 for layer in found) and (not found or spans(found))


def _shard(text: str) -> None:
    found = Shard.parse(text, {"RANK": text, "WORLD_SIZE": text})
    assert 0 <= found.index < found.count and list(found.order(range(3))) is not None


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        **{name: odd.NUMBERS for name in asdict(Settings()) if name not in ("stop", "greedy", "bad_ids")},
        "stop": st.lists(odd.TEXTS, max_size=2).map(tuple),
    },
)
NUMBER_FIELDS = {name: type(value) for name, value in asdict(Settings()).items() if type(value) in (int, float)}


def _settings(given: dict[str, Any], folder: Path) -> None:
    typed = {name: value for name, value in given.items() if name == "stop" or type(value) is NUMBER_FIELDS.get(name)}
    assert Settings(**typed).to_json()


TEMPLATES = st.tuples(
    odd.TEXTS, odd.TEXTS, st.sampled_from(["{label}", "{label}{in_language}{in_name}", "{label:d}", "{label!r}", ""])
)


def _task(example: tuple[str, str, str], folder: Path) -> None:
    before, label, field = example
    made = Task("t", (label,), before + field, before + field + "{examples}")
    for code in (None, "jv"):
        assert label in prompt(made, label, code) or "{label" not in field
        assert label in prompt(made, label, code, (before, label)) or not label.strip() or "{label" not in field


TARGETS = [
    Target("records", "study as TOML", "odd fields and values, damaged files", _study(), _find_study, 2),
    Target("records", "preset as TOML", "odd names", st.one_of(st.sampled_from(list(PRESETS)), odd.NAMES), _presets),
    Target("records", "samples to evaluate", "JSON lines: odd fields and texts, damaged bytes", rows_of(SAMPLE), _evaluate, 0.2),
    Target("records", "contrast pairs", "JSON lines: odd fields and texts, damaged bytes", rows_of(PAIR), _pairs),
    Target("records", "prompts with instructions", "JSON lines: odd fields and texts, damaged bytes", rows_of(PROMPT), _prompts),
    Target("records", "row of a run", "odd JSON values",
        st.one_of(st.dictionaries(odd.SHORT, odd.JSON, max_size=3), odd.JSON), _round_trip),
    Target("records", "choice of a vector", "odd records",
        st.one_of(st.just(CHOICE), odd.replaced(CHOICE)), _from_json(Choice.from_json)),
    Target("records", "provenance", "odd records",
        st.one_of(st.just(PROVENANCE), odd.replaced(PROVENANCE)), _from_json(Provenance.from_json)),
    Target("records", "projections", "odd records",
        st.one_of(st.just(PROJECTIONS), odd.replaced(PROJECTIONS)), _from_json(Projections.from_json)),
    Target("records", "intervention", "odd records",
        st.one_of(st.just(STEP), odd.replaced(STEP)), _from_json(lambda r: Intervention.from_json(r, OWN))),
    Target("records", "words of options", "positions, layers, shards from odd words", PARTS, _words),
    Target("records", "sampling settings", "odd numbers and stop texts", SETTINGS, _settings),
    Target("records", "task of one's own", "odd templates, labels and examples", TEMPLATES, _task),
]  # fmt: skip

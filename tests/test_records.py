from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.records import config_key, differences, encode, parse, plain, pretty, read_object


@dataclass(frozen=True)
class _Settings:
    layers: tuple[int, ...]
    strength: float


class _Colour(StrEnum):
    RED = "red"


class _Mode(Enum):
    FAST = 1


def test_plain_says_the_same_in_json() -> None:
    value = {
        "settings": _Settings((1, 2), 0.5),
        "array": np.arange(4).reshape(2, 2),
        "tensor": torch.tensor([1.5]),
        "scalar": np.float32(0.25),
        "flag": np.bool_(True),
        "path": Path("a") / "b",
        "colour": _Colour.RED,
        "mode": _Mode.FAST,
    }
    wanted = {
        "settings": {"layers": [1, 2], "strength": 0.5},
        "array": [[0, 1], [2, 3]],
        "tensor": [1.5],
        "scalar": 0.25,
        "flag": True,
        "path": "a/b",
        "colour": "red",
        "mode": 1,
    }
    assert plain(value) == wanted
    assert json.loads(pretty(value)) == wanted


def test_missing_becomes_null_and_not_zero() -> None:
    assert plain([float("nan"), np.float64("nan"), 0.0]) == [None, None, 0.0]


@pytest.mark.parametrize("value", [float("inf"), np.float32("-inf"), {1: "a"}, {1, 2}, object(), b"bytes"])
def test_plain_refuses_what_json_has_no_word_for(value: object) -> None:
    with pytest.raises(SteerlabError, match="cannot be stored|knows strings only"):
        plain(value)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(SteerlabError, match="half a character"):
        encode({"text": "\ud83d"})


@pytest.mark.parametrize("row", [[1], "text", None])
def test_a_row_is_an_object(row: object) -> None:
    with pytest.raises(SteerlabError, match="is not a row"):
        encode(row)


def test_config_key_ignores_order_and_nothing_else() -> None:
    key = config_key({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert key == config_key({"b": {"d": None, "c": (1, 2)}, "a": 1})
    assert key != config_key({"a": 1, "b": {"c": [2, 1], "d": None}})
    assert key != config_key({"a": 1, "b": {"c": [1, 2]}})
    assert config_key({"a": 1}) != config_key({"a": True}) != config_key({"a": "1"})


def test_differences_name_nested_fields_in_order() -> None:
    there = {"seed": 1, "data": {"name": "ntrex", "n": 5}, "old": 0}
    given = {"seed": 2, "data": {"name": "ntrex", "n": 6}, "new": None}
    assert differences(there, given) == [
        "data.n is 5 there, 6 now",
        "new is absent there, null now",
        "old is 0 there, absent now",
        "seed is 1 there, 2 now",
    ]
    assert differences(there, dict(reversed(there.items()))) == []
    assert differences({"a": 1}, {"a": True}) != []


def test_only_a_newline_ends_a_row() -> None:
    rows = [{"text": "one\u2028two\x85three\r\x0bfour\nfive"}, {"text": "ውሃ מים 🌊"}]
    data = b"".join(encode(row) for row in rows)
    assert data.count(b"\n") == 2
    assert parse(data, Path("rows.jsonl")) == rows
    assert parse(b"", Path("rows.jsonl")) == []


@pytest.mark.parametrize("broken", [b'{"a": 1', b"", b"[1]", b'{"a": "\xff"}', b"null"])
def test_a_broken_line_is_named(broken: bytes) -> None:
    good = encode({"a": 0})
    with pytest.raises(SteerlabError, match=r"line 2 of .*rows\.jsonl is not a JSON object"):
        parse(good + broken + b"\n" + good, Path("rows.jsonl"))
    with pytest.raises(SteerlabError, match="line 12 of"):
        parse(good + broken + b"\n" + good, Path("rows.jsonl"), first_line=11)


def test_read_object_refuses_other_json(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for content in (b"[]", b"{", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(SteerlabError, match="is not a JSON object"):
            read_object(file)
    file.write_bytes(b'{"a": 1}')
    assert read_object(file) == {"a": 1}

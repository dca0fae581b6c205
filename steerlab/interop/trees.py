"""What a tree of mappings, lists and arrays means as vectors: by the shape of the tree, never by the name of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.interop.foreign import Foreign
from steerlab.interop.records import ControlVectorRecord, SteeringVectorsRecord
from steerlab.types import Stream

_LAYER = re.compile(r"(?:.*\D)?(\d+)")
_HOOKPOINT = re.compile(
    r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d+)(?:\.(mlp|self_attn|attn|attention))?"
)
_STREAMS: dict[str, Stream] = {
    "decoder_block": "resid_post",
    "self_attn": "attn_out",
    "attn": "attn_out",
    "attention": "attn_out",
    "mlp": "mlp_out",
}
MOST = 2000


def vectors_of(tree: object, name: str, layers: Sequence[int] = (), embedding_first: bool = False) -> list[Foreign]:
    """The vectors in a tree, one per name; `name` is for one that has none.

    Known: instances of steering-vectors' and repeng's classes, lm-evaluation-harness's steering by hookpoint, mappings
    from layers to rows, matrices and lists of rows (row i belongs to block i, or to `layers[i]`), one row with its `layers`,
    and mappings from names to any of these. embedding_first drops the first row of a matrix, the embedding's.

    Raises `SteerlabError` saying what was found where none of these was.
    """
    names = isinstance(tree, Mapping) and 0 < len(tree) <= MOST and all(isinstance(key, str) for key in tree)
    if names and isinstance(tree, Mapping) and not _is_one(tree):
        return [_one(item, str(key), layers, embedding_first) for key, item in tree.items()]
    return [_one(tree, name, layers, embedding_first)]


def _is_one(tree: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one vector and not several by name."""
    if set(tree) >= {"layer_activations", "layer_type"}:
        return True
    if all(isinstance(item, Mapping) and "steering_vector" in item for item in tree.values()):
        return True
    return all(_layer_of(key) is not None and _ndim(item) == 1 for key, item in tree.items())


def _one(tree: object, name: str, layers: Sequence[int], embedding_first: bool) -> Foreign:
    if isinstance(tree, SteeringVectorsRecord):
        return _steering_vectors(vars(tree), name)
    if isinstance(tree, ControlVectorRecord):
        return Foreign(name, _by_layer(vars(tree).get("directions"), name), method=str(vars(tree).get("method", "")))
    if isinstance(tree, Mapping) and tree and _is_one(tree):
        if "layer_activations" in tree:
            return _steering_vectors(tree, name)
        if all(isinstance(item, Mapping) for item in tree.values()):
            return _steered(tree, name)
        return Foreign(name, _by_layer(tree, name))
    return Foreign(name, _matrix(tree, name, layers, embedding_first))


def _matrix(value: object, name: str, layers: Sequence[int], embedding_first: bool) -> dict[int, Tensor]:
    if isinstance(value, list | tuple) and value and all(_ndim(item) == 1 for item in value):
        rows = [_row(item) for item in value]
    elif _ndim(value) == 1:
        if not layers:
            raise SteerlabError(f"{name!r} is one row and names no layer: say which with --layers.")
        return dict.fromkeys(layers, _row(value))
    elif _ndim(value) == 2:
        rows = list(_row(value))
    else:
        raise SteerlabError(
            f"{name!r} is {_described(value)}: one row per layer is expected, as a matrix, a list, or a mapping from layers."
        )
    rows = rows[1:] if embedding_first else rows
    places = tuple(layers) or tuple(range(len(rows)))
    if len(places) != len(rows):
        raise SteerlabError(
            f"{name!r} has {len(rows)} rows and {len(places)} layers were given: give one layer per row."
        )
    return dict(zip(places, rows, strict=True))


def _by_layer(found: object, name: str) -> dict[int, Tensor]:
    if not isinstance(found, Mapping) or not found:
        raise SteerlabError(f"{name!r} is {_described(found)}: a mapping from layers to rows is expected.")
    rows = {}
    for key, item in found.items():
        layer = _layer_of(key)
        if layer is None or _ndim(item) != 1 or layer in rows:
            raise SteerlabError(f"{name!r} has {_described(item)} at {key!r}: one row per layer is expected.")
        rows[layer] = _row(item)
    return rows


def _steering_vectors(fields: Mapping[Any, Any], name: str) -> Foreign:
    kind = str(fields.get("layer_type", "decoder_block"))
    if kind not in ("decoder_block", "self_attn", "mlp"):
        raise SteerlabError(
            f"{name!r} is added to the {kind}, which is no stream here: decoder_block, self_attn and mlp are."
        )
    return Foreign(name, _by_layer(fields.get("layer_activations"), name), _STREAMS[kind], "steering-vectors")


def _steered(tree: Mapping[Any, Mapping[str, Any]], name: str) -> Foreign:
    """lm-evaluation-harness: hookpoint -> vector, coefficient and action; "add" adds the product, "clamp" sets the projection."""
    rows: dict[int, Tensor] = {}
    streams: set[Stream] = set()
    targets: set[float] = set()
    actions: set[str] = set()
    for hookpoint, entry in tree.items():
        place = _HOOKPOINT.fullmatch(str(hookpoint))
        if place is None or entry.get("bias") is not None or entry.get("head_index") is not None:
            raise SteerlabError(
                f"{name!r} steers {hookpoint!r}, with a bias {entry.get('bias') is not None}, head {entry.get('head_index')}: "
                "whole blocks, attention and MLP outputs without a bias can be expressed here."
            )
        action, coefficient = str(entry.get("action", "add")), float(entry.get("steering_coefficient", 1.0))
        rows[int(place[1])] = _row(entry["steering_vector"]).reshape(-1) * (coefficient if action == "add" else 1.0)
        streams.add(_STREAMS[place[2] or "decoder_block"])
        actions.add(action)
        targets.add(coefficient)
    if (
        len(streams) > 1
        or len(actions) > 1
        or not actions <= {"add", "clamp"}
        or (actions == {"clamp"} and len(targets) > 1)
    ):
        raise SteerlabError(
            f"{name!r} mixes actions ({', '.join(sorted(actions))}), streams or values: import one kind at a time."
        )
    choice = None
    if actions == {"clamp"}:
        choice = Choice(tuple(sorted(rows)), 1.0, "match", "raw", targets.pop(), rule="clamp of lm-evaluation-harness")
    return Foreign(name, rows, streams.pop(), "lm-evaluation-harness", choice)


def _layer_of(key: object) -> int | None:
    if isinstance(key, bool):
        return None
    if isinstance(key, int | np.integer):
        return int(key) if key >= 0 else None
    found = _LAYER.fullmatch(key) if isinstance(key, str) else None
    return int(found[1]) if found else None


def _ndim(value: object) -> int:
    return value.ndim if isinstance(value, np.ndarray | Tensor) and value.ndim else -1


def _row(value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        raise SteerlabError(f"an array of {value.dtype} was found where numbers are expected: save it as float32.")
    found = value.detach() if isinstance(value, Tensor) else torch.from_numpy(_native(value))
    if not (
        found.is_floating_point() or found.dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    ):
        raise SteerlabError(f"an array of {found.dtype} was found where numbers are expected: save it as float32.")
    return found.float()


def _native(value: Any) -> np.ndarray:
    """The array in this machine's byte order, in one piece."""
    found = np.asarray(value)
    return np.ascontiguousarray(found, dtype=found.dtype.newbyteorder("="))


def _described(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping with {len(value)} keys ({', '.join(repr(key)[:40] for key in list(value)[:3])})"
    return f"a {type(value).__name__}"

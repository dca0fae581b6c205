"""Edits as plain data and plain functions, for engines that run them where this package is not installed.

A step is a tuple (start, stop, mask, rows, operator, gate, v, strength, target, cap): tensors, numbers and names, or a function of
tensors as operator. `steer` and what it calls are functions of tensors alone; their source is what crosses.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any

import torch
from nnsight import register
from nnsight.intervention.serialization import CustomCloudUnpickler, dumps, loads
from torch import Tensor

from steerlab.compiled import Act, Shift, TokenContext, act
from steerlab.errors import SteerlabError

Step = tuple[Any, ...]
THERE = {"torch", "numpy", "transformers", "nnsight", "cloudpickle"}  # wherever nnsight runs

for _module in ("steerlab.engines.plain", "steerlab.compiled", "steerlab.operators"):
    register(_module)  # nnsight sends their functions by source, not by name


def steps_of(groups: Sequence[Shift | Act], context: TokenContext) -> list[Step]:
    """The groups of one site as steps; `mask` "b s" says which tokens of this context they act on."""
    found: list[Step] = []
    for group in groups:
        mask, span = context.mask(group.positions)[0], (group.positions.start, group.positions.stop)
        if isinstance(group, Shift):
            found.append((*span, mask, None, None, None, group.delta, None, None, None))
        else:
            rows = None if group.whole else group.rows
            numbers = (group.v, group.strength, group.target, group.cap)
            found.append((*span, mask, rows, group.operator, group.gate, *numbers))
    return found


def check_spans(groups: Sequence[Shift | Act], engine: str) -> None:
    """Raise `SteerlabError` for positions by token id: while the model writes elsewhere, nobody here knows its tokens."""
    for group in groups:
        if group.positions.only_ids or group.positions.skip_ids:
            raise SteerlabError(
                f"positions {group.positions} pick generated tokens by their ids, which engine {engine!r} cannot while it writes: "
                "give a span of positions, or use engine 'local'."
            )


def steer(h: Tensor, steps: Sequence[Step], at: int | None = None) -> Tensor:
    """`h` "b s d" after the steps. `at`: None where h is the context the steps were made for, else the place of its one new
    token, counted from the end of the prompt.
    """
    for start, stop, mask, rows, operator, gate, *numbers in steps:
        there: list[Any] = [None if x is None else x.to(h.device) for x in numbers]
        v, strength, target, cap = there
        if at is None:
            chosen = mask.to(h.device)
        elif (start is None or at >= start) and (stop is None or at < stop):
            chosen = None
        else:
            continue
        if operator is None:
            moved = h + v.to(h.dtype)
            h = moved if chosen is None else torch.where(chosen[..., None], moved, h)
        else:
            rows = None if rows is None else rows.to(h.device)
            chosen = chosen[rows] if chosen is not None and rows is not None else chosen
            h = act(h, chosen, operator, gate, rows, v, strength, target, cap)
    return h


def steer_tokens(h: Tensor, steps: Sequence[Step], last: int) -> Tensor:
    """`h` "s d", tokens of one row, after the steps; `last` is the place of the last of them, counted from the end of the prompt."""
    if len(h) == 1:
        return steer(h[None], steps, last)[0]
    places = torch.arange(last - len(h) + 1, last + 1, device=h.device)
    here = []
    for start, stop, _, *rest in steps:
        mask = torch.ones_like(places, dtype=torch.bool)
        mask = mask if start is None else mask & (places >= start)
        mask = mask if stop is None else mask & (places < stop)
        here.append((start, stop, mask[None], *rest))
    return steer(h[None], here)[0]


class Census(CustomCloudUnpickler):
    """Reads a payload and keeps which names of which modules it asks the other side for, in `asked`."""

    asked: set[tuple[str, str]]

    def find_class(self, module: str, name: str) -> Any:
        """The object by its name, as the other side would look it up."""
        self.asked.add((module, name))
        return super().find_class(module, name)


def asked_for(payload: bytes, persistent: dict[str, Any] | None = None) -> set[tuple[str, str]]:
    """(module, name) of everything a payload does not bring with it."""
    asked: set[tuple[str, str]] = set()
    loads(payload, persistent, type("OneCensus", (Census,), {"asked": asked}))
    return asked


def foreign(asked: Collection[tuple[str, str]]) -> list[str]:
    """What of it the other side may lack, or should not be sent: modules a server need not have, and classes, which travel as
    their bytecode.
    """
    lacking = [
        f"{module}.{name}"
        for module, name in asked
        if not (module.split(".")[0] in THERE or module.split(".")[0] in sys.stdlib_module_names)
    ]
    return sorted([*lacking, *(name for _, name in asked if name == "_make_skeleton_class")])


def check_function(function: Any, what: str) -> None:
    """Raise `SteerlabError` for a function that carries more than tensors and plain functions with it."""
    try:
        lacking = foreign(asked_for(dumps(function)))
    except Exception as error:  # whatever an object's own reduction raises
        lacking = [str(error).split("\n")[0]]
    if lacking:
        raise SteerlabError(
            f"{what} cannot be sent ({', '.join(lacking)}): give a function that uses nothing but tensors and plain functions."
        )

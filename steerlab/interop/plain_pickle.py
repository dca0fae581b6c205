"""Pickles read without running anything: numbers, texts, lists, mappings, numpy arrays and torch tensors, and no more.

A pickle is a program for a small stack machine. This is that machine without its power to call: names of classes and
functions stay names, and the few that arrays and tensors are made of have their meaning here. Everything else is refused
by name (Python's own documentation says of the module it replaces: "Only unpickle data you trust").
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from steerlab.errors import SteerlabError
from steerlab.interop.records import CLASSES, Record

_DTYPE = re.compile(r"[fiub][1248]")
_VALUES = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_VALUES |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_VALUES |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_FIXED: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_DEEPEST = 12


class _Name(NamedTuple):
    """A class or function that was named; it is never looked up."""

    text: str


class _Dtype:
    """A numpy type whose byte order follows in its state."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def set(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">", "=", "|") else "="

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Array:
    """A numpy array whose content follows in its state."""

    value: np.ndarray

    def set(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def loads(data: bytes, source: str) -> object:
    """What the pickle holds: plain values, lists, tuples, mappings, arrays, tensors and `Record`s of known classes.

    Raises `SteerlabError`, naming it, for anything that would have to be called, and for data that is no whole pickle.
    """
    machine = _Machine(source)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _settled(machine.pop(), 0, {})
            machine.step(opcode.name, argument)
    except SteerlabError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise SteerlabError(f"{source} is no whole pickle ({first}): fetch or write the file again.") from error
    raise SteerlabError(f"{source} is no whole pickle (it has no end): fetch or write the file again.")


class _Machine:
    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("its stack is empty")
        return self.stack.pop()

    def group(self) -> list[Any]:
        """Everything above the last mark, which goes."""
        at = max(i for i, item in enumerate(self.stack) if item is _MARK)
        found, self.stack[at:] = self.stack[at + 1 :], []
        return found

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _FIXED:
            self.stack.append(_FIXED[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.name(name, argument)
        elif not self.collect(name):
            self.build(name)

    def name(self, opcode: str, argument: Any) -> None:
        if opcode == "GLOBAL":
            text = str(argument).replace(" ", ".", 1)
        else:
            text = ".".join(str(part) for part in [self.pop(), self.pop()][::-1])
        text = text.replace("numpy._core.", "numpy.core.")
        if text not in KNOWN and text not in _BARE and text not in CLASSES:
            raise SteerlabError(
                f"{self.source} asks for {text!r}, which is neither a number, a text, a list, an array nor a tensor: "
                "nothing of it was run; write its arrays again with numpy.savez or safetensors."
            )
        self.stack.append(_Name(text))

    def collect(self, name: str) -> bool:
        """The opcodes that put values into lists, tuples and mappings; False for another opcode."""
        if name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name == "TUPLE":
            self.stack.append(tuple(self.group()))
        elif name == "LIST":
            self.stack.append(self.group())
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self.group()
            _kind(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = [self.stack.pop(-2), self.pop()] if name == "SETITEM" else self.group()
            if name == "DICT":
                self.stack.append({})
            _kind(self.stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("POP", "POP_MARK"):
            self.group() if name == "POP_MARK" else self.stack.pop()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            return False
        return True

    def build(self, name: str) -> None:
        """The opcodes that would call something: what they may make is in `KNOWN`, and is made here."""
        if name == "BUILD":
            state, made = self.pop(), self.stack[-1]
            if isinstance(made, Record):
                made.__dict__.update(_kind(state, dict))
            else:
                made.set(state)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = self.pop(), self.pop()
            if not isinstance(called, _Name):
                raise ValueError("it calls what is no name")
            if called.text in CLASSES:
                self.stack.append(CLASSES[called.text]())
            else:
                self.stack.append(KNOWN[called.text](*_kind(arguments, tuple)))
        else:
            raise SteerlabError(
                f"{self.source} uses the pickle opcode {name}: plain data needs none of it, so it is refused."
            )


def _kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {kind.__name__} was expected and a {type(value).__name__} came")
    return value


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(raw, _kind(dtype, _Dtype).numpy()).reshape(shape, order=order).copy()


def _dtype(code: Any, *_: object) -> _Dtype:
    if not _DTYPE.fullmatch(str(code)):
        raise ValueError(f"an array of type {code!r} is no array of numbers")
    return _Dtype(str(code))


def _storage(data: Any) -> torch.Tensor:
    """The flat tensor of a torch storage, itself a file that torch reads as weights only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch names its own typed storages as deprecated
        try:
            found = torch.load(io.BytesIO(_kind(data, bytes)), map_location="cpu", weights_only=True)
        except Exception as error:  # torch says it with many types
            raise ValueError("a tensor's storage can not be read") from error
        return torch.empty(0, dtype=found.dtype).set_(found.untyped())


def _tensor(flat: Any, offset: Any, size: Any, stride: Any, *_: object) -> torch.Tensor:
    if math.prod(size) > _kind(flat, torch.Tensor).numel():
        raise ValueError("a tensor is larger than its storage")
    return torch.as_strided(flat, tuple(size), tuple(stride), int(offset)).clone()


KNOWN: dict[str, Callable[..., Any]] = {
    "_codecs.encode": lambda text, codec="latin1": str(text).encode("latin1"),
    "collections.OrderedDict": lambda *items: dict(*items),
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": lambda dtype, data: _array(data, dtype, (), "C")[()],
    "numpy.core.numeric._frombuffer": _array,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: _kind(tensor, torch.Tensor),
}
_BARE = {"numpy.ndarray", "numpy.memmap"}  # named as an argument, never called


def _settled(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """The value with its arrays in their places; what stands in many places is settled once, so that no small file grows large."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Name | _Dtype) or value is _MARK:
        raise ValueError("it holds the name of something in place of a value")
    if type(value) not in (list, tuple, dict) and not isinstance(value, Record):
        return value
    if id(value) not in seen:
        if isinstance(value, list | tuple):
            seen[id(value)] = type(value)(_settled(item, depth + 1, seen) for item in value)
        elif type(value) is dict:
            pairs = ((_settled(key, depth + 1, seen), _settled(item, depth + 1, seen)) for key, item in value.items())
            seen[id(value)] = dict(pairs)
        else:
            value.__dict__.update({key: _settled(item, depth + 1, seen) for key, item in vars(value).items()})
            seen[id(value)] = value
    return seen[id(value)]

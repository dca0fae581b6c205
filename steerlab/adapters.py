"""A LoRA adapter inside a transformers model: one set of weights that is expert with it and base without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Adapter:
    """The adapter layers that peft put into a transformers model, switched on and off together; on at first.

    `name` is where it came from, `digest` tells two adapters apart.
    """

    def __init__(self, hf: Any, name: str, digest: str) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer  # an extra: most models have no adapter

        self.name, self.digest, self.on = name, digest, True
        self.layers = [module for module in hf.modules() if isinstance(module, BaseTunerLayer)]

    def switch(self, on: bool) -> None:
        """Use the adapter, or leave it out."""
        if on != self.on:
            for layer in self.layers:
                layer.enable_adapters(on)
            self.on = on

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Afterwards the adapter is on or off as before, also when the body raised."""
        before = self.on
        try:
            yield
        finally:
            self.switch(before)

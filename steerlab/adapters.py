"""A LoRA adapter inside a transformers model: one set of weights that is expert with it and base without."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steerlab.errors import SteerlabError


class Adapter:
    """The adapter layers that peft put into a transformers model, switched on and off together; on at first.

    `name` is where it came from, `digest` tells two adapters apart.
    """

    def __init__(self, hf: Any, name: str) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer  # an extra: most models have no adapter

        self.name, self.on = name, True
        self.layers = [module for module in hf.modules() if isinstance(module, BaseTunerLayer)]
        if not self.layers:
            raise SteerlabError(
                f"the adapter {name} put no layer into the model: give a LoRA adapter trained on this model."
            )
        digest = hashlib.sha256()
        for key, weight in hf.named_parameters():
            if "lora_" in key:
                digest.update(key.encode() + weight.detach().float().cpu().numpy().tobytes())
        self.digest = "adapter-" + digest.hexdigest()[:16]

    def switch(self, on: bool) -> None:
        """Use the adapter, or leave it out."""
        if on != self.on:
            for layer in self.layers:
                layer.enable_adapters(on)
            self.on = on

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, forward passes are the base's (whatever writes texts switches the adapter itself, to the expert's); afterwards it
        is as before, also when the body raised.
        """
        with self.kept():
            self.switch(False)
            yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Afterwards the adapter is on or off as before, also when the body raised."""
        before = self.on
        try:
            yield
        finally:
            self.switch(before)


def attach(hf: Any, source: str | Path) -> Adapter:
    """Load a LoRA adapter from a folder or the hub into the model, next to its weights, which stay as they are.

    Raises `SteerlabError` without peft, and where the adapter cannot be read or does not fit the model.
    """
    name = str(source)
    folder = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) or folder.is_dir():
        if not (folder / "adapter_config.json").is_file():
            raise SteerlabError(
                f"{name} is no adapter: give a folder with adapter_config.json and adapter_model.safetensors, "
                "as `steerlab expert train` writes it."
            )
        name = str(folder)
    try:
        hf.load_adapter(name, use_safetensors=True)
    except ImportError as error:
        raise SteerlabError(
            "an adapter needs the package peft: run pip install -e '.[finetune]' in the checkout."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"the adapter {source} could not be loaded ({first}): give one trained on this model."
        ) from error
    hf.eval()
    return Adapter(hf, str(source))

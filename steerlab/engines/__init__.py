"""Other places the verbs of `TracedModel` run, chosen by `load(..., engine=NAME)`; each module is imported when it is asked for."""

from __future__ import annotations

from typing import Any

from steerlab.errors import SteerlabError

ENGINES = {
    "local": "transformers in this process",
    "tp": "transformers in several processes started by torchrun, which share every layer",
    "vllm": "vLLM, in an environment of its own",
    "ndif": "the service that hosts models too large for home",
}


def check_name(engine: str) -> None:
    """Raise `SteerlabError` for an engine that is not there, listing those that are."""
    if engine not in ENGINES:
        known = ", ".join(f"{name!r} ({what})" for name, what in ENGINES.items())
        raise SteerlabError(f"engine {engine!r} is not known: give one of {known}.")


def check_cache(model: Any) -> None:
    """Raise `SteerlabError` unless the model's engine gives the keys and values of a forward, for another to go on from."""
    if not model.keeps_cache:
        raise SteerlabError(
            f"engine {model.engine!r} keeps no keys and values to go on from: read whole texts, or use engine 'local'."
        )

"""Other places the verbs of `TracedModel` run, chosen by `load(..., engine=NAME)`; each module is imported when it is asked for."""

from __future__ import annotations

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

"""steerlab: steer language models from the inside, and prove what it did.

The names below load on first use, so that `import steerlab` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and documentation only; `_WHERE` is what runs
    from steerlab.activations import capture_activations
    from steerlab.bundled.vectors import bundled_vectors
    from steerlab.capture import capture_moments
    from steerlab.errors import SteerlabError
    from steerlab.fitting import fit_contrast_vector, fit_language_vectors
    from steerlab.generation import Request, Settings, generate
    from steerlab.loading import load, wrap
    from steerlab.model import TracedModel
    from steerlab.steering import Gate, Intervention, Plan
    from steerlab.types import Positions, Site
    from steerlab.vectors import SteeringVector

__version__ = "0.1.0"

_WHERE = {
    "load": "loading",
    "wrap": "loading",
    "TracedModel": "model",
    "Site": "types",
    "Positions": "types",
    "SteerlabError": "errors",
    "SteeringVector": "vectors",
    "Intervention": "steering",
    "Gate": "steering",
    "Plan": "steering",
    "Request": "generation",
    "Settings": "generation",
    "generate": "generation",
    "capture_moments": "capture",
    "capture_activations": "activations",
    "fit_language_vectors": "fitting",
    "fit_contrast_vector": "fitting",
    "bundled_vectors": "bundled.vectors",
}
__all__ = [
    "Gate",
    "Intervention",
    "Plan",
    "Positions",
    "Request",
    "Settings",
    "Site",
    "SteeringVector",
    "SteerlabError",
    "TracedModel",
    "bundled_vectors",
    "capture_activations",
    "capture_moments",
    "fit_contrast_vector",
    "fit_language_vectors",
    "generate",
    "load",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"steerlab.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'steerlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])

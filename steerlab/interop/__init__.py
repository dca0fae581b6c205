"""What other programs write, read; and ours in their formats: control vectors, pickled vectors, models, the hub."""

from __future__ import annotations

from steerlab.interop.exchange import FORMATS, export_vector, import_vectors
from steerlab.interop.foreign import Foreign
from steerlab.interop.hub import from_pretrained, push_to_hub
from steerlab.interop.llama2c import from_llama2c

__all__ = [
    "FORMATS",
    "Foreign",
    "export_vector",
    "from_llama2c",
    "from_pretrained",
    "import_vectors",
    "push_to_hub",
]

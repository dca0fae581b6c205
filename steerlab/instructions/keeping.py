"""Instruction vectors in a folder: file names for names like "simple:end_mark_!", and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set


def file_key(name: str) -> str:
    """A name as a file's: ":" becomes "-", any other character that a file name should not have _uHEX_, its code point."""
    body = re.sub(r"[^A-Za-z0-9._-]", lambda found: f"_u{ord(found.group()):x}_", name.replace(":", "-"))
    return body if re.match(r"[A-Za-z0-9_-]", body) else f"_{body}"


def save_instructions(vectors: Mapping[str, SteeringVector], folder: str | Path) -> None:
    """Save the vectors as a set (`steerlab.vectorset`); each file keeps its vector's own name.

    Raises `SteerlabError` as `save_set` does, and for two names that would be one file.
    """
    keys = {file_key(name): vector for name, vector in vectors.items()}
    if len(keys) < len(vectors):
        raise SteerlabError(
            f"the names {', '.join(vectors)} make {len(keys)} files: rename those that differ in ':' and '-' only."
        )
    save_set(keys, folder)


def load_instruction_vectors(folder: str | Path) -> dict[str, SteeringVector]:
    """The vectors of a folder by their own names. Raises as `load_set` does."""
    return {vector.name: vector for vector in load_set(folder).values()}

"""What a finished run vouches for: size and sha256 of every file, checked on demand and whenever the run is opened again."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from steerlab.disk import fingerprint, inside, replace, sync_folder, told
from steerlab.errors import SteerlabError
from steerlab.records import is_sealed, pretty, read_object, sealed
from steerlab.schema import upgraded

MANIFEST, DAMAGED = "manifest.json", ".damaged"
SCHEMA = 2
STEPS = {1: dict}  # layout 1 had no checksum of itself


class Damaged(SteerlabError):
    """A manifest that is not what was written."""


def write_manifest(path: Path, key: str) -> dict[str, Any]:
    """Write, as the last file of a run folder, what all its files are; hidden ones are left out."""
    names = sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    files = {name.as_posix(): fingerprint(path / name) for name in shown}
    manifest = sealed({"schema": SCHEMA, "config_key": key, "files": files})
    replace(path / MANIFEST, pretty(manifest))
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The files a run folder vouches for, by name.

    Raises `SteerlabError` where the manifest is of a newer layout, and `Damaged` where it was changed or is none.
    """
    file = path / MANIFEST
    try:
        value = read_object(file)
    except SteerlabError as error:
        raise Damaged(f"{file} is not what was written there: run the same command again to write it anew.") from error
    layout, files = value.get("schema"), value.get("files")
    known = isinstance(files, dict) and all(inside(name) for name in files)
    if not known or not (layout == 1 or is_sealed(value)):
        raise Damaged(f"{file} is not what was written there: run the same command again to write it anew.")
    return upgraded(file, "run", value, layout, SCHEMA, STEPS)["files"]


def verify(path: str | Path) -> None:
    """Check that every file the manifest of a finished run names is there with the size and sha256 it had.

    Raises `SteerlabError` naming the first that is missing or changed, or that the run was not finished.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise SteerlabError(
            f"{path} holds no finished run ({MANIFEST} is missing): run the same command again to finish it."
        )
    with told(path):
        for name, written in read_manifest(path).items():
            if not (path / name).is_file():
                raise SteerlabError(
                    f"{path / name} is missing: restore it, or run the command again into a new folder."
                )
            if fingerprint(path / name) != written:
                raise SteerlabError(
                    f"{path / name} was changed after the run finished: do not use its numbers, or run it again."
                )


def quarantine(path: Path, sources: Collection[str]) -> None:
    """Move files of a finished run that are not what it vouches for into `.damaged`, so that they are made again, and say so; without
    its manifest the run is not finished any more. `sources` are the files that cannot be made again.

    Raises `SteerlabError` for one of those, and for a manifest of a newer layout.
    """
    try:
        files = read_manifest(path)
        bad = [n for n, own in files.items() if not (path / n).is_file() or fingerprint(path / n) != own]
    except Damaged:
        bad = [MANIFEST]
    if lost := [name for name in bad if name in sources]:
        raise SteerlabError(
            f"{path / lost[0]} was changed after the run finished, and what the run holds follows from it: restore the file, or delete "
            "the run folder and start again."
        )
    if not bad:
        return
    for name in bad:
        if (path / name).exists():
            (path / DAMAGED / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path / name, path / DAMAGED / name)
    (path / MANIFEST).unlink(missing_ok=True)
    sync_folder(path)
    names = ", ".join(bad)
    print(
        f"steerlab: {names} in {path} changed after the run finished: kept in {DAMAGED}/ and made again.",
        file=sys.stderr,
    )

"""Vectors on the Hugging Face hub: a set of vector files with a card, pushed as it is and pulled at one commit."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.interop.vectorcard import card
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
CARD = "README.md"


def push_to_hub(
    vectors: Mapping[str, SteeringVector], repo_id: str, *, licence: str, private: bool = True, api: Any = None
) -> str:
    """Upload vectors with a card as a model repository of the hub, in one commit; returns its address.

    `licence` as the hub spells it ("cc-by-4.0"). `api`: a `huggingface_hub.HfApi`, by default one with the token this machine
    is logged in with. Raises `SteerlabError` for no vectors, a bad name or licence, and when the hub refuses.
    """
    if not vectors:
        raise SteerlabError("no vectors were given: push at least one.")
    text = card(vectors, repo_id, licence)
    with tempfile.TemporaryDirectory() as folder:
        save_set(vectors, folder)
        disk.replace(Path(folder) / CARD, text.encode())
        upload(Path(folder), repo_id, "model", private, "Steering vectors, written by steerlab", api)
    return f"https://huggingface.co/{repo_id}"


def upload(folder: Path, repo_id: str, repo_type: str, private: bool, message: str, api: Any = None) -> None:
    """Make the repository if there is none, and put the folder there in one commit. Raises `SteerlabError` when the hub refuses."""
    _check(repo_id)
    api = api or _api()
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=repo_type, commit_message=message)
    except Exception as error:  # as with a download
        raise SteerlabError(
            f"{repo_id!r} could not be uploaded ({_first(error)}): log in with `hf auth login`, and check the name."
        ) from error


def from_pretrained(repo_id: str, *, revision: str = "", api: Any = None) -> tuple[dict[str, SteeringVector], str]:
    """The vectors of a repository, and the commit they were read at: give that as `revision` to get the same ones again.

    Only vector files and their index are fetched. Raises `SteerlabError` where the hub has no such repository or revision,
    and where it holds no whole set of vectors.
    """
    _check(repo_id)
    api = api or _api()
    try:
        commit = revision if _COMMIT.fullmatch(revision) else str(api.repo_info(repo_id, revision=revision or None).sha)
        folder = api.snapshot_download(repo_id, revision=commit, allow_patterns=["*.safetensors", "vectors.json"])
    except Exception as error:  # what a download raises depends on the network stack below the hub's package
        raise SteerlabError(
            f"{repo_id!r} could not be fetched ({_first(error)}): check the name and revision."
        ) from error
    return load_set(folder), commit


def pull(repo_id: str, out: Path, *, revision: str = "", api: Any = None) -> str:
    """Fetch the vectors of a repository into the folder `out`, whole or not at all; returns the commit."""
    vectors, commit = from_pretrained(repo_id, revision=revision, api=api)
    if out.exists() and not (out / "vectors.json").is_file() and any(out.iterdir()):
        raise SteerlabError(f"{out} holds other files: give a new folder, or one of vectors.")
    fresh = not out.exists()
    try:
        save_set(vectors, out)
    except BaseException:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        raise
    return commit


def _check(repo_id: str) -> None:
    if not _REPO.fullmatch(repo_id) or ".." in repo_id:
        raise SteerlabError(f"{repo_id!r} is no repository of the hub: give USER/NAME.")


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")

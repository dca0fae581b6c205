"""`steerlab instruct transfer`: vectors of one model as vectors of another, of whatever width, through a map learned on prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.commands.instruct import VECTORS, Prompts, base_config, checked, vectors_of
from steerlab.errors import SteerlabError
from steerlab.instructions import find_form, fit_map, map_vectors, save_instructions
from steerlab.instructions.runs import vector_digests
from steerlab.loading import load
from steerlab.store import RunFolder


@dataclass(frozen=True)
class TransferOptions:
    """What `transfer` was asked beside its prompts; `donor` "": the model the vectors name."""

    donor: str
    donor_form: str
    kind: str
    last: int
    held_out: float


def transfer(
    asked: TransferOptions, vectors: Path, prompts: Prompts, out: Path, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Learn the map, keep the mapped vectors and the map's fit in `out`; one row per layer."""
    if asked.kind not in ("ridge", "procrustes"):
        raise SteerlabError(f"--kind {asked.kind!r} is not known: give ridge or procrustes.")
    fitted, form, donor_form = vectors_of(vectors), prompts.shape, find_form(asked.donor_form)
    rows = prompts.rows("train")
    bare = list(dict.fromkeys(row.base for row in rows))
    groups = {text: row.group for row in rows for text in (row.base, row.prompt)}
    name = asked.donor or next(iter(fitted.values())).provenance.model
    if not name:
        raise SteerlabError(f"the vectors in {vectors} do not say of which model they are: give --donor.")
    donor = load(name, dtype=dtype, device=device)
    checked(fitted, donor)
    model = load(prompts.model, dtype=dtype, device=device)
    config = base_config("transfer", asked, prompts, rows, model.revision)
    config |= {"donor": donor.name, "donor_revision": donor.revision, "vectors": vector_digests(fitted)}
    with RunFolder.open(out, config) as folder:
        if not folder.finished:
            kind: Any = asked.kind
            learned = fit_map(
                donor, model, list(groups), kind=kind, donor_form=donor_form, form=form, last=asked.last,
                groups=list(groups.values()), held_out=asked.held_out, seed=prompts.seed, progress=progress,
            )  # fmt: skip
            mapped = map_vectors(fitted, learned, model, bare, form=form, last=asked.last)
            save_instructions(mapped, folder.path / VECTORS)
            folder.write_table("fit.csv", learned.fit)
            folder.finish()
        fit: Any = pd.read_csv(folder.path / "fit.csv")
        return fit.to_dict("records")

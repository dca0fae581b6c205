"""`steerlab instruct interfere`: how much several instruction vectors get in each other's way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.commands.instruct import Prompts, base_config, checked, vectors_of
from steerlab.commands.instruct_write import Place, Writing
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.instructions import Placed, joined
from steerlab.instructions.composition import plan_interference, read_interference
from steerlab.instructions.runs import vector_digests, write_requests
from steerlab.loading import load
from steerlab.store import RunFolder
from steerlab.vectors import SteeringVector


@dataclass(frozen=True)
class InterfereOptions:
    """What `interfere` was asked beside its prompts."""

    place: Place
    writing: Writing
    shown: bool
    mode: str


def interfere(
    asked: InterfereOptions, vectors: Path, prompts: Prompts, out: Path, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Write every test prompt under nothing, each vector, all, and all made orthogonal; cosines and rates in `out`, one row per
    instruction.
    """
    there = vectors_of(vectors)
    lacking = [name for name in prompts.instructions if name not in there]
    if lacking or len(prompts.instructions) < 2:
        raise SteerlabError(
            f"{vectors} has no vector for {', '.join(lacking)}: give at least two of {', '.join(there)}, or fit more with "
            "`steerlab instruct fit -i NAME`."
            if lacking
            else f"{len(prompts.instructions)} instructions were given: give at least two of {', '.join(there)}."
        )
    if asked.mode not in ("loose", "strict"):
        raise SteerlabError(f"--mode {asked.mode!r} was given: give loose or strict.")
    chosen = {name: there[name] for name in prompts.instructions}
    placed, form = places(asked.place, chosen), prompts.shape
    rows = joined(prompts.rows("test"), prompts.instructions)
    planned = plan_interference(placed, rows, shown=asked.shown, form=form)
    model = load(prompts.model, dtype=dtype, device=device)
    checked(chosen, model)
    config = base_config("interfere", asked, prompts, rows, model.revision) | {"vectors": vector_digests(chosen)}
    with RunFolder.open(out, config) as folder:
        facts = [{"prompt": row.id, "acting": acting} for acting, row, _ in planned]
        samples = write_requests(
            folder, model, [request for _, _, request in planned], facts, form.ends(asked.writing.settings),
            batch_rows=asked.writing.batch_rows, progress=progress,
        )  # fmt: skip
        mode: Any = asked.mode
        found = read_interference(placed, planned, [s.text for s in samples], mode)
        folder.write_table("rates.csv", found.rates)
        folder.write_table("cosines.csv", found.cosines)
        folder.finish()
    return _rows(found.rates)


def places(place: Place, vectors: Mapping[str, SteeringVector]) -> dict[str, Placed]:
    """The vectors where the command line puts them, else where their own headers do."""
    if place.layer is None:
        place.pushes(vectors)  # says what is missing
        return {name: Placed.as_chosen(vector) for name, vector in vectors.items()}
    cell = Cell(place.layer, 1.0 if place.strength is None else place.strength)
    return {name: Placed(vector, cell, place.acting.application) for name, vector in vectors.items()}


def _rows(rates: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per instruction, one column per what acts."""
    found = []
    for name in dict.fromkeys(rates["instruction"]):
        own: Any = rates[rates["instruction"] == name]
        told = {r.acting: f"{r.rate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in own.itertuples()}
        found.append({"instruction": name, "n": int(own["n"].iloc[0]), **told})
    return found

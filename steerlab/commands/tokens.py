"""`steerlab tokens`: which tokens of a text a vector is read from and which it steers, how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from steerlab.batch import left_pad
from steerlab.commands.lens import find
from steerlab.commands.synthesize import recommended
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.loading import BUNDLED, load
from steerlab.operators import OPERATORS
from steerlab.records import plain
from steerlab.steering import Gate, Intervention, Plan
from steerlab.token_map import TokenMap, map_batch, token_map
from steerlab.types import Positions
from steerlab.vectors import SteeringVector

_STRENGTH = 0.5  # of the residual norm, where nothing is recommended


@dataclass(frozen=True)
class Ask:
    """What to map: a text, or a prompt with its answer (written by the steered model where none is given), and how to
    steer. None stands for a default.
    """

    text: str | None = None
    prompt: str | None = None
    answer: str | None = None
    layers: tuple[int, ...] = ()
    strength: float | None = None
    unit: str | None = None
    operator: str = "add"
    positions: str = "all"
    gate: str | None = None
    read: str | None = None
    max_new_tokens: int = 40
    seed: int = 0


def run(which: str, model: str, ask: Ask, dtype: str, device: str | None) -> TokenMap:
    """The map. Bad input is refused before the model is loaded."""
    if (ask.text is None) == (ask.prompt is None):
        raise SteerlabError("give either --text or --prompt.")
    if ask.answer is not None and ask.prompt is None:
        raise SteerlabError("--answer was given without --prompt: give the prompt it answers, or --text.")
    if ask.max_new_tokens < 1:
        raise SteerlabError(f"--max-new-tokens is {ask.max_new_tokens}: give at least 1.")
    vector = find(which, model)
    own = intervention(vector, ask, model)
    read = None if ask.read is None else Positions.parse(ask.read)
    loaded = load(model, dtype=dtype, device=device)
    vector.check(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers)
    if ask.text is not None:
        return token_map(loaded, [ask.text], [own], read=read)
    prompt = str(ask.prompt)
    if ask.answer is not None:
        return token_map(loaded, [prompt], [own], [ask.answer], chat=True, read=read)
    settings = Settings(max_new_tokens=ask.max_new_tokens, seed=ask.seed)
    written = generate(loaded, [Request(prompt, ("tokens",), (own,))], settings)[0]
    (head,) = loaded.token_rows([prompt], chat=True)
    # The very tokens that were generated: read again as text they could be cut otherwise.
    batch = left_pad([[*head, *written.tokens]], loaded.pad_id, [len(head)])
    return map_batch(loaded, Plan(((own,),)), batch, read)


def intervention(vector: SteeringVector, ask: Ask, model: str) -> Intervention:
    """The intervention asked for; layer and strength default to the recommended ones of a bundled vector."""
    if ask.operator not in OPERATORS:
        raise SteerlabError(f"operator {ask.operator!r} is not known: choose one of {', '.join(OPERATORS)}.")
    if ask.unit not in (None, "raw", "residual"):
        raise SteerlabError(f"unit {ask.unit!r} is not known: choose 'raw' or 'residual'.")
    known = recommended(vector.name) if model == BUNDLED else None
    layers = ask.layers or ((known[0],) if known else (vector.layers[len(vector.layers) // 4],))
    lengths = ask.operator == "add"
    strength = ask.strength
    if strength is None:
        strength = (known[1] if known and not ask.layers else _STRENGTH) if lengths else 1.0
    chosen: dict[str, Any] = {"operator": ask.operator, "unit": ask.unit or ("residual" if lengths else "raw")}
    return Intervention(
        vector, layers, strength=strength, positions=Positions.parse(ask.positions), gate=gate(ask.gate), **chosen
    )


def gate(given: str | None) -> Gate | None:
    """Read "above:0.1" or "below:0.1". Raises `SteerlabError` on anything else."""
    if given is None:
        return None
    side, _, number = given.partition(":")
    try:
        threshold = float(number)
    except ValueError:
        threshold = None
    if side not in ("above", "below") or threshold is None:
        raise SteerlabError(f"--gate {given!r} is not known: give above:COSINE or below:COSINE, such as above:0.1.")
    return Gate(threshold, side == "above")


def rows(mapped: TokenMap) -> list[dict[str, Any]]:
    """The map's table as rows."""
    return cast("list[dict[str, Any]]", plain(mapped.table().to_dict("records")))

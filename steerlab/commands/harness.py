"""The command line of lm-evaluation-harness, with a steered model in it under the name `steerlab`.

    python -m steerlab.commands.harness run --model steerlab --model_args vector=jv,layers=2,strength=0.4 --tasks xcopa_id --batch_size 32

The harness has no plugins for models: its own `lm-eval` knows this one only where this module was imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from steerlab.ablation import selection
from steerlab.commands.exchange import layers_of
from steerlab.commands.lens import find
from steerlab.commands.tokens import Ask, intervention
from steerlab.errors import SteerlabError
from steerlab.interop.harness import SteeredLM
from steerlab.loading import BUNDLED, load
from steerlab.steering import Intervention

try:  # after the module that says in a sentence that the package is missing
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found]  # an extra
    from lm_eval.api.registry import register_model  # type: ignore[import-not-found]
except ModuleNotFoundError as missing:
    raise SteerlabError(
        f"lm-evaluation-harness needs the package {missing.name}: run pip install -e '.[harness]' in the checkout."
    ) from missing

ROWS = 32


@register_model("steerlab")
class NamedLM(SteeredLM):
    """`SteeredLM` from the words of `--model_args`; those of the steering default to what `steerlab tokens` takes.

    `vector`: a file, or a bundled vector by name or language; without one the model is not steered. `layers`: 3, 0-5 or 0-5+9.
    `target` and `cap` as in `Intervention`. The harness gives `batch_size` (1 unless it is told otherwise), `max_batch_size` and
    `device` by options of its own; `cuda:0`, its default, is what there is where there is no GPU, as for its `hf` models.

    Raises `SteerlabError` for a model, vector or number that does not fit.
    """

    def __init__(
        self,
        pretrained: str = BUNDLED,
        vector: str = "",
        layers: str | int | Sequence[int] = "",
        strength: float | int | None = None,
        unit: str | None = None,
        operator: str | None = None,
        target: float | int | None = None,
        positions: str | None = None,
        gate: str | None = None,
        cap: float | int | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        adapter: str | None = None,
        seed: int = 0,
        max_gen_toks: int = 256,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        steering = {
            "strength": None if strength is None else float(strength), "unit": unit, "operator": operator, "target": target,
            "positions": positions, "gate": gate, "cap": cap,
        }  # fmt: skip
        given = {name: value for name, value in steering.items() if value is not None}
        if at := _places(layers):
            given["layers"] = at
        if given and not vector:
            raise SteerlabError(f"{', '.join(given)} was given without a vector: name one with vector=.")
        pushes = (push(vector, pretrained, **given),) if vector else ()
        place = None if device == "cuda:0" and not torch.cuda.is_available() else device
        model = load(pretrained, dtype=dtype, device=place, revision=revision, adapter=adapter)
        for own in pushes:
            own.vector.check(model.name, model.revision, model.d_model, model.n_layers)
        most = batch_size if isinstance(batch_size, int) else max_batch_size or ROWS
        super().__init__(model, pushes, batch_rows=most, max_gen_toks=max_gen_toks, seed=seed)


def push(
    vector: str, model: str, target: float | int | None = None, cap: float | int | None = None, **given: Any
) -> Intervention:
    """What was asked for, else what the vector's own file recommends, else what the package does."""
    found = find(vector, model)
    if found.choice is not None and not given and target is None:
        own = selection.recommended(found)
    else:
        own = intervention(found, Ask(**given), model)
    numbers = {name: value for name, value in (("target", target), ("cap", cap)) if value is not None}
    return replace(own, **numbers)


def _places(layers: str | int | Sequence[int]) -> tuple[int, ...]:
    """Layers as the harness gives them: a number, a list, or text, where commas part its own words."""
    if isinstance(layers, int):
        return (layers,)
    return layers_of(layers.replace("+", ",")) if isinstance(layers, str) else tuple(layers)


def main() -> None:
    """The harness's command line; one sentence for bad input (exit code 2)."""
    try:
        cli_evaluate()
    except SteerlabError as error:
        print(f"steerlab: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

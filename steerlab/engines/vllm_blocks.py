"""The two blocks that run inside vLLM, beside the weights: one steers every step of a request, one reads its context.

A block of vLLM puts out (what it adds, the stream before that), and the stream is their sum; some put out the stream itself. A module's
output is looked at once per step, so what several sites want of it stands together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnsight
import torch

from steerlab.engines.plain import Step, steer, steer_tokens

# (path of a module, its sites in order: (steps, whether it is read))
Place = tuple[list[str | int], list[tuple[Sequence[Step], bool]]]


def gathered(sites: Sequence[tuple[list[str | int], Sequence[Step], bool]]) -> list[Place]:
    """(path, steps, wanted) of sites in the order of the forward pass, as places."""
    found: list[Place] = []
    for path, steps, wanted in sites:
        if not found or found[-1][0] != path:
            found.append((path, []))
        found[-1][1].append((steps, wanted))
    return found


def install_steering(model: Any, name: str, places: list[Place], at: int) -> Any:
    """Leave the steps in the engine, for requests that name them; `at` is the place of the context's last token."""
    with model.edit(name=name) as (tracer, edit):
        last = at
        for _ in tracer.iter[:]:
            for path, parts in places:
                module = model
                for part in path:
                    module = module[part] if isinstance(part, int) else getattr(module, part)
                out = module.output
                bare = isinstance(out, torch.Tensor)
                whole = out if bare else out[0] + out[1]
                for steps, _wanted in parts:
                    whole = steer_tokens(whole, steps, last)
                if bare:
                    out[:] = whole
                else:
                    out[0][:] = whole
                    out[1][:] = 0
            last = last + 1
    return edit


def install_reading(model: Any, name: str, places: list[Place]) -> Any:
    """Leave in the engine what reads, and first edits, one context; `mine` is each request's own list."""
    with model.edit(name=name) as (_, edit):
        mine = nnsight.save([])
        for path, parts in places:
            module = model
            for part in path:
                module = module[part] if isinstance(part, int) else getattr(module, part)
            out = module.output
            bare = isinstance(out, torch.Tensor)
            whole = out.clone() if bare else out[0] + out[1]
            for steps, wanted in parts:
                if steps:
                    whole = steer(whole[None], steps)[0]
                    if bare:
                        out[:] = whole
                    else:
                        out[0][:] = whole
                        out[1][:] = 0
                if wanted:
                    mine.append(whole.clone())
    return edit

"""Tensor parallel: the processes that torchrun started share every layer of one model, through transformers' own plan.

Every process runs the same program and calls the same verbs in the same order; nnsight puts the pieces of an activation together
before it is read or edited, so a verb returns whole tensors, the same ones in every process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed
from nnsight.modeling.tp import UnshardableCheckpoint, check_tp_request
from torch import Tensor
from transformers import AutoConfig
from transformers.distributed.configuration_utils import DistributedConfig

from steerlab.batch import Batch
from steerlab.decoding import Decoded, Finished, Mix, Pick, Watch
from steerlab.errors import SteerlabError
from steerlab.model import Side, TracedModel
from steerlab.steering import CompiledPlan, Plan

RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # what torchrun tells each process


class TensorParallelModel(TracedModel):
    """The part of a model that this process holds, with the verbs of the whole."""

    engine = "tp"

    def decode(
        self,
        batch: Batch,
        pick: Pick,
        finished: Finished,
        max_new_tokens: int,
        plan: Plan | CompiledPlan | None = None,
        retire: bool = True,
        same: Tensor | None = None,
        sides: Sequence[Side] = (),
        mix: Mix | None = None,
        watch: Watch | None = None,
    ) -> Decoded:
        """As `TracedModel.decode`. All processes write the tokens that the first one picked: a tie that rounding broke otherwise
        in one of them would part their loops, and each would wait for the others for ever.
        """

        def first(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
            chosen = pick(rows, history, logits, step).contiguous()
            torch.distributed.broadcast(chosen, src=0)
            return chosen

        return super().decode(batch, first, finished, max_new_tokens, plan, retire, same, sides, mix, watch)


def placement(
    source: str, revision: str, device: str | None, adapter: object, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What `from_pretrained` is told so that each process loads its part.

    Raises `SteerlabError` outside torchrun, for a model that cannot be split into so many parts, for a device (each process
    takes its own), an adapter, and options that place or quantize weights.
    """
    if any(name not in os.environ for name in RANK) or int(os.environ["WORLD_SIZE"]) < 2:
        raise SteerlabError(
            "engine 'tp' splits a model over the processes that torchrun starts, and this process stands alone: start the program "
            "with `torchrun --nproc-per-node N`, or use engine 'local'."
        )
    if device not in (None, "cpu", "cuda"):
        raise SteerlabError(
            f"device {device!r} was given for engine 'tp', whose processes take one device each: leave it out."
        )
    if adapter is not None:
        raise SteerlabError("engine 'tp' cannot carry an adapter: merge it into the weights, or use engine 'local'.")
    for name in ("device_map", "quantization_config"):
        if name in options:
            raise SteerlabError(f"{name} was given for engine 'tp', which places whole weights itself: leave it out.")
    parts = int(os.environ["WORLD_SIZE"])
    try:
        check_tp_request(AutoConfig.from_pretrained(source, revision=revision), parts)
    except UnshardableCheckpoint as error:
        raise SteerlabError(
            f"{source} cannot be split over {parts} processes ({' '.join(str(error).split())[:200]}): start as many as divide "
            "its heads, or use engine 'local'."
        ) from error
    return {"distributed_config": DistributedConfig(tp_plan="auto")}

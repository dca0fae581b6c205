"""nnsight's vLLM runtime on a machine without an accelerator, where it refuses to start by itself.

vLLM imports `CPUWorker` by its path in every worker process. It lets vLLM's own CPU worker set up the device, and puts nnsight's
runner in front of vLLM's CPU runner. Both are private classes, so the two packages are pinned exactly; with a GPU nothing of this
is used.
"""

from __future__ import annotations

from typing import Any

import torch
from nnsight.modeling.vllm import VLLM
from nnsight.modeling.vllm.model_runners.GPUModelRunner import NNsightGPUModelRunner
from nnsight.modeling.vllm.workers.GPUWorker import NNsightGPUWorker
from vllm.v1.worker import cpu_model_runner, cpu_worker  # pyright: ignore[reportMissingImports]


class CPUModelRunner(NNsightGPUModelRunner, cpu_model_runner.CPUModelRunner):
    """vLLM's CPU runner with nnsight's steps around its own."""


class CPUWorker(NNsightGPUWorker, cpu_worker.CPUWorker):
    """vLLM's CPU worker with that runner."""

    def init_device(self) -> None:
        """Set up the device as vLLM does, then change the runner's class, which adds behaviour and no state."""
        cpu_worker.CPUWorker.init_device(self)
        self.model_runner.__class__ = CPUModelRunner


class CPUEngine(VLLM):
    """nnsight's model over an engine whose workers are the above."""

    _WORKER_CLS = "steerlab.engines.vllm_cpu.CPUWorker"

    def __init__(self, *words: Any, **options: Any) -> None:
        # The client's tree of empty modules is built between two calls that need an accelerator.
        for name in ("empty_cache", "synchronize"):
            setattr(torch.accelerator, name, lambda *_, **__: None)
        super().__init__(*words, **options)

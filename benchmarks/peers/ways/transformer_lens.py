"""TransformerLens: `run_with_cache` on the residual stream, and its own `generate` inside `hooks`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways


def ways(subject: Subject) -> Ways:
    """A bridge on a twin; its hooks are the user's own functions, so they may treat every row differently."""
    twin = subject.twin()
    twin.config.architectures = [type(twin).__name__]
    with tempfile.TemporaryDirectory() as folder:
        subject.tokenizer.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        bridge: Any = TransformerBridge.boot_transformers("subject", hf_model=twin, tokenizer=tokenizer)
    bridge.eval()
    names = [f"blocks.{i}.hook_resid_post" for i in range(subject.size.layers)]

    @torch.no_grad()
    def capture(texts: Sequence[str], batch: int) -> Tensor:
        sums, tokens = torch.zeros(len(names), subject.size.d_model), 0
        for start in range(0, len(texts), batch):
            ids = subject.encode(texts[start : start + batch])
            _, cache = bridge.run_with_cache(ids["input_ids"], names_filter=lambda name: name in names)
            sums += torch.stack([cache[name].sum((0, 1)) for name in names])
            tokens += int(ids["attention_mask"].sum())
        return sums / tokens

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        at = torch.tensor(list(layers))[:, None]
        hooks = []
        for layer in sorted(set(layers)):
            delta = torch.where(at == layer, vectors, torch.zeros(()))[:, None]
            hooks.append((names[layer], lambda h, hook, delta=delta: h + delta))
        return _write(prompts, hooks, new)

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        return _write(prompts, [(names[layer], lambda h, hook: h + vector)], new)

    def _write(prompts: Sequence[str], hooks: list[Any], new: int) -> Rows:
        def generate(input_ids: Tensor, max_new_tokens: int, **_rest: Any) -> Tensor:
            with bridge.hooks(fwd_hooks=hooks):
                return bridge.generate(
                    input_ids, max_new_tokens=max_new_tokens, do_sample=False, stop_at_eos=False, return_type="tokens", verbose=False
                )  # fmt: skip

        return subject.write(prompts, new, generate)

    return Ways(capture, write, write_rows)

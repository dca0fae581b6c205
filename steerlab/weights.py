"""Telling two models of one name apart: the hub's commit, or a hash of the weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel


def known_revision(hf: Any) -> str:
    """The commit a model was loaded from, else the digest of its weights."""
    return str(getattr(hf.config, "_commit_hash", None) or weights_digest(hf))


def weights_digest(hf: PreTrainedModel) -> str:
    """A short hash of config and of a few rows of every weight: tells two local models of one name apart."""
    digest = hashlib.sha256()
    config = {
        k: v
        for k, v in hf.config.to_dict().items()
        if not k.startswith("_") and k not in ("architectures", "distributed_config", "dtype", "transformers_version")
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for key, weight in hf.named_parameters():
        held: Any = weight.detach()
        whole = (
            held.full_tensor() if hasattr(held, "full_tensor") else held
        )  # a process has a part under tensor parallel
        flat = whole.reshape(-1)
        some = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16).float()
        digest.update(key.encode())
        digest.update(some.numpy().tobytes())
    return "weights-" + digest.hexdigest()[:16]

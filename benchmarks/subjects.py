"""What the benchmarks measure on: Llama models with random weights, texts of known length, random vectors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.peers.subject import SPECIALS, word_tokenizer
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.vectors import SteeringVector


def random_llama(layers: int, d_model: int, vocab: int, context: int = 1024, peak: float = 8.0) -> TracedModel:
    """A Llama of `layers` blocks with random weights, MLP 8/3 as wide as the stream, heads of 64.

    Nothing ends a text, so that every row writes the full length. The classifier is `peak` times larger than its initial value: the
    logits then spread by 3 to 4 nats as a trained model's do, which matters to the cost of top-p.
    """
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        intermediate_size=(8 * d_model // 3 + 31) // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=max(1, d_model // 64),
        num_key_value_heads=max(1, d_model // 64),
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=None,  # type: ignore[arg-type]
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        hf = LlamaForCausalLM(config)
    with torch.no_grad():
        hf.lm_head.weight.mul_(peak)
    return wrap(hf, word_tokenizer(vocab), name=f"random Llama {layers} x {d_model}")


def plain_twin(model: TracedModel) -> PreTrainedModel:
    """transformers' model on the same weights in modules of its own, which nnsight has not touched."""
    twin = type(model.hf)(model.hf.config)
    twin.load_state_dict(model.hf.state_dict(), assign=True)
    twin.tie_weights()
    twin.generation_config = model.hf.generation_config
    return twin.eval()


def random_texts(n: int, low: int, high: int, vocab: int, seed: int = 0) -> list[str]:
    """`n` texts of `low` to `high` random words."""
    rng = random.Random(seed)
    words = range(len(SPECIALS), vocab)
    return [" ".join(f"w{w}" for w in rng.choices(words, k=rng.randint(low, high))) for _ in range(n)]


def random_vector(model: TracedModel, norms: Sequence[float] | None = None, seed: int = 1) -> SteeringVector:
    """A random direction at every layer; `norms`: the mean residual norm of each, where strengths are fractions of it."""
    raw = torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(seed))
    residual = None if norms is None else torch.tensor(list(norms))
    return SteeringVector.from_raw("random", raw, range(model.n_layers), residual_norm=residual)

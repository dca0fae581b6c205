"""Models from other formats as Hugging Face folders that `steerlab.load` takes: llama2.c checkpoints."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from einops import rearrange
from jaxtyping import Float
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from steerlab import disk
from steerlab.errors import SteerlabError

_HEADER = struct.Struct("<7i")
_ROPE_BASE = 10000.0
_BOS, _EOS = 1, 2
_BYTES = 3  # the 256 byte pieces follow <unk>, <s> and </s>
_SPACE = "\u2581"  # how sentencepiece writes a space inside a piece


def from_llama2c(checkpoint: Path, tokenizer: Path, out: Path) -> Path:
    """Convert a llama2.c v0 checkpoint and its tokenizer into a Hugging Face Llama folder at `out`; returns `out`.

    The folder holds config.json, generation_config.json, model.safetensors (float32), tokenizer.json and
    tokenizer_config.json. Logits and token ids are those of llama2.c, and BOS and EOS both end a text, as
    there. Rows of q and k are reordered: llama2.c rotates neighbouring pairs (Su et al., "RoFormer",
    arXiv:2104.09864), transformers rotates halves.

    Raises `SteerlabError` where a file is missing, truncated or of another format, where the two do not belong
    together, and where `out` cannot be written; config.json is written last, so a folder that has it is whole.
    """
    shape, weights = _read_checkpoint(Path(checkpoint))
    pieces, scores = _read_tokenizer(Path(tokenizer), shape.vocab)
    config, generation = _configs(shape)
    out = Path(out)
    with disk.told(out):
        disk.replace(out / "model.safetensors", safetensors.torch.save(weights, metadata={"format": "pt"}))
        disk.replace(out / "tokenizer.json", _tokenizer(pieces, scores).to_str().encode())
        described = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.positions,
        }
        disk.replace(out / "tokenizer_config.json", _json(described))
        disk.replace(out / "generation_config.json", _json(generation))
        disk.replace(out / "config.json", _json(config))
    return out


@dataclass(frozen=True)
class _Shape:
    """The header of a checkpoint: widths, counts, and whether the classifier is the embedding."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    positions: int
    tied: bool

    @property
    def head(self) -> int:
        return self.dim // self.heads

    def sound(self) -> bool:
        """Whether these can be the numbers of a Llama model at all."""
        sizes = (self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab, self.positions)
        return min(sizes) > 0 and self.dim % (2 * self.heads) == 0 and self.heads % self.kv_heads == 0

    def parts(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, in the order of the file."""
        n, d, h = self.layers, self.dim, self.hidden
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        yield "embed_tokens", (self.vocab, d)
        yield "input_layernorm", (n, d)
        yield "self_attn.q_proj", (n, queries, d)
        yield "self_attn.k_proj", (n, keys, d)
        yield "self_attn.v_proj", (n, keys, d)
        yield "self_attn.o_proj", (n, d, queries)
        yield "post_attention_layernorm", (n, d)
        yield "mlp.gate_proj", (n, h, d)
        yield "mlp.down_proj", (n, d, h)
        yield "mlp.up_proj", (n, h, d)
        yield "norm", (d,)
        yield "cosines", (self.positions, self.head // 2)
        yield "sines", (self.positions, self.head // 2)
        if not self.tied:
            yield "lm_head", (self.vocab, d)


def _read_checkpoint(path: Path) -> tuple[_Shape, dict[str, Tensor]]:
    data = _read(path)
    foreign = f"{path} is not a llama2.c v0 checkpoint"
    if len(data) < _HEADER.size:
        raise SteerlabError(
            f"{foreign} ({len(data)} bytes hold no header of 7 numbers): give the .bin file that llama2.c reads."
        )
    *sizes, vocab, positions = _HEADER.unpack_from(data)
    shape = _Shape(*sizes, vocab=abs(vocab), positions=positions, tied=vocab > 0)
    if not shape.sound():
        raise SteerlabError(
            f"{foreign} (its header reads {(*sizes, vocab, positions)}): give the .bin file that llama2.c reads."
        )
    parts = list(shape.parts())
    expected = _HEADER.size + 4 * sum(int(np.prod(size, dtype=object)) for _, size in parts)
    if len(data) != expected:
        raise SteerlabError(
            f"{foreign}, or not all of it ({len(data)} bytes, and its header asks for {expected}): fetch the file again."
        )
    found, at = {}, _HEADER.size
    for name, size in parts:
        count = int(np.prod(size))
        found[name] = np.frombuffer(data, dtype="<f4", count=count, offset=at).reshape(size)
        at += 4 * count
    if not all(np.isfinite(array).all() for array in found.values()):
        raise SteerlabError(
            f"{path} holds weights that are NaN or infinite, where finite ones were expected: fetch the file again."
        )
    _check_rope(path, shape, found.pop("cosines"), found.pop("sines"))
    return shape, _state(shape, {name: torch.from_numpy(array.copy()) for name, array in found.items()})


def _check_rope(path: Path, shape: _Shape, cosines: np.ndarray, sines: np.ndarray) -> None:
    """The stored tables are what transformers will compute; a checkpoint with another base would only seem to
    work.
    """
    angle = np.outer(np.arange(shape.positions), _ROPE_BASE ** (-np.arange(0, shape.head, 2) / shape.head))
    gap = max(float(np.abs(cosines - np.cos(angle)).max()), float(np.abs(sines - np.sin(angle)).max()))
    if gap > 0.01:
        raise SteerlabError(
            f"{path} holds rotary tables that are not those of base {_ROPE_BASE:.0f} (off by {gap:.2f}): "
            "give a checkpoint in llama2.c's own format and base."
        )


def _state(shape: _Shape, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names transformers gives them."""
    heads = {"self_attn.q_proj": shape.heads, "self_attn.k_proj": shape.kv_heads}
    state = {
        "model.embed_tokens.weight": found.pop("embed_tokens"),
        "model.norm.weight": found.pop("norm"),
    }
    if not shape.tied:
        state["lm_head.weight"] = found.pop("lm_head")
    for name, stacked in found.items():
        for layer, weight in enumerate(stacked):
            moved = _halves(weight, heads[name]) if name in heads else weight.clone()
            state[f"model.layers.{layer}.{name}.weight"] = moved
    return state


def _halves(weight: Float[Tensor, "rows d"], heads: int) -> Float[Tensor, "rows d"]:
    """Rows of q or k from neighbouring pairs (0 1)(2 3).. to halves: all firsts of a head, then all seconds."""
    return rearrange(weight, "(h p two) d -> (h two p) d", h=heads, two=2).contiguous()


def _configs(shape: _Shape) -> tuple[dict[str, object], dict[str, object]]:
    ends: dict[str, object] = {"bos_token_id": _BOS, "eos_token_id": [_BOS, _EOS]}
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": _ROPE_BASE},
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "dtype": "float32",
        **ends,
    }
    return config, ends


def _read_tokenizer(path: Path, vocab: int) -> tuple[list[str], list[float]]:
    data = _read(path)
    foreign = f"{path} is not a llama2.c tokenizer"
    pieces: list[str] = []
    scores: list[float] = []
    try:
        at = struct.calcsize("<i")
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            at += struct.calcsize("<fi")
            if not 0 <= length <= len(data) - at:
                raise ValueError(f"piece {len(pieces)} has length {length}")
            pieces.append(data[at : at + length].decode())
            scores.append(score)
            at += length
    except (struct.error, ValueError) as error:
        raise SteerlabError(
            f"{foreign}, or not all of it ({error}): give the tok*.bin that belongs to the checkpoint."
        ) from error
    if pieces[_BYTES : _BYTES + 256] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise SteerlabError(
            f"{foreign} (pieces {_BYTES} to {_BYTES + 255} are not the 256 bytes): give the tok*.bin that belongs to the checkpoint."
        )
    if len(pieces) != vocab:
        raise SteerlabError(
            f"{path} has {len(pieces)} pieces, but the checkpoint has {vocab}: give the tok*.bin that belongs to the checkpoint."
        )
    pieces = ["<unk>", "<s>", "</s>", *(piece.replace(" ", _SPACE) for piece in pieces[_BYTES:])]
    if len(set(pieces)) != len(pieces):
        raise SteerlabError(f"{foreign} (a piece occurs twice): give the tok*.bin that belongs to the checkpoint.")
    return pieces, scores


def _tokenizer(pieces: list[str], scores: list[float]) -> Tokenizer:
    """Byte-pair encoding with byte fallback, joining first what makes the piece with the best score, as
    llama2.c does.
    """
    ids = {piece: number for number, piece in enumerate(pieces)}
    ranked = sorted(range(_BYTES + 256, len(pieces)), key=lambda number: (-scores[number], number))
    merges = []
    for piece in (pieces[number] for number in ranked):
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(left, right) for left, right in halves if left in ids and right in ids]
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    made.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", _BOS)]
    )
    return made


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SteerlabError(f"{path} cannot be read ({error.strerror}): give the path of a llama2.c file.") from error


def _json(value: dict[str, object]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()

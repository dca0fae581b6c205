"""llama2.c as NumPy: its file layout, its rotation of neighbouring pairs, its greedy tokenizer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Checkpoint:
    """The header and the tensors of a v0 file, by llama2.c's names and in its order."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    positions: int
    tied: bool
    tensors: dict[str, np.ndarray]


def shapes(c: Checkpoint) -> dict[str, tuple[int, ...]]:
    d, h, n, head = c.dim, c.hidden, c.layers, c.dim // c.heads
    keys = c.kv_heads * head
    return {
        "token_embedding": (c.vocab, d),
        "rms_att": (n, d),
        "wq": (n, d, d),
        "wk": (n, keys, d),
        "wv": (n, keys, d),
        "wo": (n, d, d),
        "rms_ffn": (n, d),
        "w1": (n, h, d),
        "w2": (n, d, h),
        "w3": (n, h, d),
        "rms_final": (d,),
        "freq_cis_real": (c.positions, head // 2),
        "freq_cis_imag": (c.positions, head // 2),
        **({} if c.tied else {"wcls": (c.vocab, d)}),
    }


def random_checkpoint(seed: int = 0, *, tied: bool = True, vocab: int = 300) -> Checkpoint:
    """Two layers of width 24, 3 heads that share one key head, weights large enough that every part matters."""
    c = Checkpoint(24, 40, 2, 3, 1, vocab, 64, tied, {})
    rng = np.random.default_rng(seed)
    for name, shape in shapes(c).items():
        c.tensors[name] = (rng.normal(size=shape) * 0.3 + name.startswith("rms")).astype(np.float32)
    head = c.dim // c.heads
    angle = np.outer(np.arange(c.positions), 10000.0 ** (-np.arange(0, head, 2) / head))
    c.tensors["freq_cis_real"] = np.cos(angle).astype(np.float32)
    c.tensors["freq_cis_imag"] = np.sin(angle).astype(np.float32)
    return c


def write_checkpoint(c: Checkpoint, path: Path) -> Path:
    signed = c.vocab if c.tied else -c.vocab
    head = struct.pack("<7i", c.dim, c.hidden, c.layers, c.heads, c.kv_heads, signed, c.positions)
    path.write_bytes(head + b"".join(c.tensors[name].astype("<f4").tobytes() for name in shapes(c)))
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, positions = struct.unpack_from("<7i", data)
    c = Checkpoint(dim, hidden, layers, heads, kv_heads, abs(vocab), positions, vocab > 0, {})
    at = 28
    for name, shape in shapes(c).items():
        n = int(np.prod(shape))
        c.tensors[name] = np.frombuffer(data, "<f4", n, at).reshape(shape)
        at += 4 * n
    return c


def forward(c: Checkpoint, ids: list[int]) -> np.ndarray:
    """Logits (s v) in float64, one position after the other, every head by itself."""
    w = {name: tensor.astype(np.float64) for name, tensor in c.tensors.items()}
    head, group = c.dim // c.heads, c.heads // c.kv_heads
    keys: list[list[np.ndarray]] = [[] for _ in range(c.layers)]
    values: list[list[np.ndarray]] = [[] for _ in range(c.layers)]
    logits = []
    for position, token in enumerate(ids):
        x = w["token_embedding"][token]
        cos, sin = w["freq_cis_real"][position], w["freq_cis_imag"][position]
        for n in range(c.layers):
            normed = _rms(x, w["rms_att"][n])
            q = _rotate((w["wq"][n] @ normed).reshape(c.heads, head), cos, sin)
            keys[n].append(_rotate((w["wk"][n] @ normed).reshape(c.kv_heads, head), cos, sin))
            values[n].append((w["wv"][n] @ normed).reshape(c.kv_heads, head))
            mixed = []
            for i in range(c.heads):
                k = np.stack([past[i // group] for past in keys[n]])
                v = np.stack([past[i // group] for past in values[n]])
                scores = k @ q[i] / np.sqrt(head)
                weights = np.exp(scores - scores.max())
                mixed.append(weights / weights.sum() @ v)
            x = x + w["wo"][n] @ np.concatenate(mixed)
            normed = _rms(x, w["rms_ffn"][n])
            gate = w["w1"][n] @ normed
            x = x + w["w2"][n] @ (gate / (1 + np.exp(-gate)) * (w["w3"][n] @ normed))
        logits.append(w["token_embedding" if c.tied else "wcls"] @ _rms(x, w["rms_final"]))
    return np.stack(logits)


def _rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x) + 1e-5) * weight


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    first, second = x[:, 0::2], x[:, 1::2]
    out = np.empty_like(x)
    out[:, 0::2] = first * cos - second * sin
    out[:, 1::2] = first * sin + second * cos
    return out


def write_tokenizer(pieces: list[bytes], scores: list[float], path: Path) -> Path:
    body = b"".join(struct.pack("<fi", score, len(p)) + p for p, score in zip(pieces, scores, strict=True))
    path.write_bytes(struct.pack("<i", max(map(len, pieces))) + body)
    return path


def read_tokenizer(path: Path) -> tuple[list[bytes], list[float]]:
    data, at = path.read_bytes(), 4
    pieces, scores = [], []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        at += 8 + length
        pieces.append(data[at - length : at])
        scores.append(score)
    return pieces, scores


def encode(pieces: list[bytes], scores: list[float], text: str) -> list[int]:
    """BOS, one leading space, characters or their bytes, then the best-scored neighbouring pair until none is a piece."""
    number = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
    tokens = [number[b" "]] if text else []
    for letter in text:
        raw = letter.encode()
        tokens += [number[raw]] if raw in number else [byte + 3 for byte in raw]
    while True:
        best = None
        for at in range(len(tokens) - 1):
            joined = number.get(pieces[tokens[at]] + pieces[tokens[at + 1]])
            if joined is not None and (best is None or scores[joined] > scores[best[1]]):
                best = (at, joined)
        if best is None:
            return [1, *tokens]
        tokens[best[0] : best[0] + 2] = [best[1]]

"""What `steerlab.bundled.train` needs before it can train: the tokenizer and packed token batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from steerlab.bundled import corpus, packing
from steerlab.bundled.config import TrainConfig

CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>' + m['content'] + '<|eos|>' }}"
    "{% else %}{{ raise_exception('polyglot-mini knows the roles user and assistant only') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def prepare(root: Path | None, packed: Path, tokens: int, c: TrainConfig) -> None:
    """Write `tokenizer.json`, `batches.npy` (n 3 rows length, int16) and the held-out token ids to `packed`."""
    packed.mkdir(parents=True, exist_ok=True)
    texts = corpus.passages(root)
    sizes = {code: sum(len(p.text.encode()) for p in texts if p.language == code) for code in corpus.LANGUAGES}
    print(f"{len(texts)} passages, {sum(sizes.values()) / 1e6:.1f} MB: {sizes}", flush=True)
    tokenizer = corpus.train_tokenizer(texts, c.vocab)
    tokenizer.save(str(packed / "tokenizer.json"))
    stream = corpus.DocumentStream(texts, tokenizer, corpus.Mixture(seed=c.seed), c.length)
    print(
        "share of documents " + " ".join(f"{k} {v:.3f}" for k, v in zip(corpus.LANGUAGES, stream.share, strict=True)),
        flush=True,
    )
    write_batches(iter(stream), packed, tokens, c)
    write_held_out(tokenizer, packed, root)


def write_batches(stream: Iterator[packing.Document], packed: Path, tokens: int, c: TrainConfig) -> None:
    """Pack the stream's documents into about `tokens` tokens: `batches.npy` (n 3 rows length, int16)."""
    n = tokens // (c.rows * c.length)
    batches = np.lib.format.open_memmap(
        packed / "batches.npy", mode="w+", dtype=np.int16, shape=(n, 3, c.rows, c.length)
    )
    targets = filled = 0
    for i, batch in zip(range(n), packing.pack(stream, c.rows, c.length), strict=False):
        batches[i] = batch
        filled += int((batch[1] > 0).sum())
        targets += int((batch[2] > 0).sum())
    batches.flush()
    print(
        f"{n} batches, {filled / 1e6:.1f}M tokens ({filled / batches[:, 1].size:.3f} of the places), {targets / filled:.3f} predicted",
        flush=True,
    )


def write_held_out(tokenizer: Tokenizer, packed: Path, root: Path | None) -> None:
    """The token ids and sizes of the sentences bits per byte are measured on."""
    held = corpus.held_out(root)
    ids = {code: [[corpus.BOS, *tokenizer.encode(t).ids, corpus.EOS] for t in texts] for code, texts in held.items()}
    size = {code: sum(len(t.encode()) for t in texts) for code, texts in held.items()}
    (packed / "heldout.json").write_text(json.dumps({"ids": ids, "bytes": size}))


def write_tokenizer(packed: Path, out: Path) -> None:
    """Save the fast tokenizer with its special tokens, left padding and chat template. Plain text gets BOS in
    front, as Llama's does.
    """
    core = Tokenizer.from_file(str(packed / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"], padding_side="left", model_max_length=512,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)

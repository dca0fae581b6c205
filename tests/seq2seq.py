"""Tiny translation models made from configs: random weights that end their sentences, with and without language codes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import NllbTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from steerlab.translation import Translator, wrap_translator

CODES = ("amh_Ethi", "deu_Latn", "eng_Latn", "jav_Latn", "slv_Latn", "zho_Hans")
LETTERS = "abcdefghijklmnoprstuvz.,ሀለሐመ我有水手"
POSITIONS = 64
TEXTS = (
    "voda je mrzla",
    "pes laja",
    "danes je lep dan, pojdimo na sprehod",
    "a",
    "on bere staro knjigo",
    "hiša stoji na hribu nad reko",
    "sonce",
    "mačka spi na stolu",
    "otroci se igrajo na dvorišču pred hišo",
)


def nllb_tokenizer() -> PreTrainedTokenizerBase:
    """NLLB's tokenizer class over single letters, with six of its language codes."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=[*CODES], src_lang="eng_Latn")


def plain_tokenizer(tags: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    """A letter tokenizer with EOS and no language codes, as T5 has it; `tags` are tokens such as <2de>."""
    pieces = ["<pad>", "</s>", "<unk>", *tags, "▁", *LETTERS]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.add_special_tokens(["<pad>", "</s>", "<unk>", *tags])
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _ready(hf: Any, pull: float, forced_end: bool) -> PreTrainedModel:
    """Weights large enough that words matter; the end of a sentence is drawn `pull` times as hard as a letter."""
    end = hf.config.eos_token_id
    for weight in hf.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.4)
    with torch.no_grad():
        hf.get_output_embeddings().weight[end] *= pull
    if forced_end:
        hf.generation_config.forced_eos_token_id = end
    assert sum(w.numel() for w in hf.parameters()) < 1_000_000
    return hf.eval()


def _config(family: str, **fields: Any) -> Any:
    return getattr(transformers, f"{family}Config")(**fields)


def nllb_model(seed: int = 3, pull: float = 2.0, forced_end: bool = True) -> PreTrainedModel:
    """An NLLB-like model (M2M-100 with sinusoidal positions)."""
    torch.manual_seed(seed)
    config = _config(
        "M2M100",
        vocab_size=len(nllb_tokenizer()),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    return _ready(transformers.M2M100ForConditionalGeneration(config), pull, forced_end)


def t5_model(tags: int = 0, seed: int = 0, pull: float = 1.5) -> PreTrainedModel:
    """A T5 model without language codes."""
    torch.manual_seed(seed)
    config = _config(
        "T5",
        vocab_size=len(LETTERS) + 4 + tags,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return _ready(transformers.T5ForConditionalGeneration(config), pull, True)


@cache
def nllb(seed: int = 3, pull: float = 2.0, forced_end: bool = True) -> Translator:
    """A translator with language codes, one for the whole session."""
    return wrap_translator(nllb_model(seed, pull, forced_end), nllb_tokenizer(), name="tiny-nllb")


@cache
def plain(seed: int = 0) -> Translator:
    """A translator of one direction, without language codes."""
    return wrap_translator(t5_model(seed=seed), plain_tokenizer(), name=f"tiny-t5-{seed}")


@cache
def tagged() -> Translator:
    """A translator that is told the target language by a tag before the text, as MADLAD is."""
    tags = ("<2de>", "<2zh>", "<2sl>")
    return wrap_translator(t5_model(len(tags)), plain_tokenizer(tags), name="tiny-madlad")


def save_translator(folder: Path, **changes: Any) -> Path:
    """The NLLB-like model in a folder, as `from_pretrained` wants it."""
    logging.disable_progress_bar()
    nllb_model(**changes).save_pretrained(folder)
    nllb_tokenizer().save_pretrained(folder)
    return folder

"""Translate batches of texts with any sequence-to-sequence model, with language codes (NLLB, M2M-100, mBART, MADLAD) or without."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steerlab.batch import plan_batches
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.halving import Halving
from steerlab.loading import DTYPES
from steerlab.weights import known_revision

# How a model is told its languages: a source token and a forced first token (NLLB), a tag before the text (MADLAD), or not at all.
Style = Literal["forced", "tag", "none"]
TOKEN_BUDGET = 8192
_CODE = re.compile(r"[a-z]{2,3}(?:_[A-Z][A-Za-z]{1,3})?")
_TAG = re.compile(r"(?:<2([A-Za-z_]{2,8})>|>>([A-Za-z_]{2,8})<<)")


@dataclass(frozen=True)
class Translation:
    """A translated text, how many tokens the model wrote, and whether it came to an end within `max_new_tokens`."""

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True, eq=False)
class Translator:
    """A translation model with its tokenizer. `codes`: the model's own language codes, and the token that stands for each."""

    name: str
    revision: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    style: Style
    codes: Mapping[str, str]

    @property
    def limit(self) -> int | None:
        """Tokens the encoder and the decoder have positions for; None when the model names no limit."""
        config = self.hf.config
        known = [self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
        sizes = [int(n) for n in known if isinstance(n, int) and 0 < n < 1 << 30]
        return min(sizes) if sizes else None

    def code(self, language: str) -> str:
        """The model's own code for a language: one of its codes, or a code of ours (am -> amh_Ethi in NLLB, am in M2M-100).

        A model without codes has nothing to choose, and the name comes back. Raises `SteerlabError` naming close codes.
        """
        if self.style == "none" or language in self.codes:
            return language
        ours = next((e for e in LANGUAGES.values() if language in (e.code, e.sib200)), None)
        if ours is not None:
            names = [ours.sib200, ours.code, *sorted(c for c in self.codes if c.startswith(f"{ours.code}_"))]
            found = next((name for name in names if name in self.codes), None)
            if found is not None:
                return found
        near = [code for code in self.codes if code[:2] == language[:2]] or list(self.codes)
        close = get_close_matches(language, near, n=3, cutoff=0.0)
        raise SteerlabError(
            f"{self.name} has no language {language!r}: give one of its {len(self.codes)} codes, "
            f"{' or '.join(map(repr, close))} say."
        )

    def lengths(self, texts: Sequence[str], source: str) -> list[int]:
        """Tokens of each text as the encoder gets it, special ones included."""
        return [len(row) for row in self._rows(texts, source, source)]

    def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        *,
        batch_rows: int = 32,
        num_beams: int = 1,
        max_new_tokens: int = 256,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[str]:
        """The texts translated, in order; see `run`."""
        found = self.run(
            texts,
            source,
            target,
            batch_rows=batch_rows,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            token_budget=token_budget,
        )
        return [translation.text for translation in found]

    def run(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        *,
        batch_rows: int = 32,
        num_beams: int = 1,
        max_new_tokens: int = 256,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[Translation]:
        """Translate from `source` to `target` (any name `code` knows), greedily or by beam search, in order.

        Texts of similar length share a batch of at most `batch_rows` rows and `token_budget` padded tokens; padding is masked
        on the side the tokenizer pads on, so that, rounding aside, a translation does not depend on the other texts.

        Raises `SteerlabError` for a blank text, a text the model has no positions for (nothing is cut in silence), numbers
        below 1, and an unknown language.
        """
        for name, value in (("batch_rows", batch_rows), ("num_beams", num_beams), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise SteerlabError(f"{name} is {value}: give at least 1.")
        if self.limit is not None and max_new_tokens >= self.limit:
            raise SteerlabError(
                f"max_new_tokens is {max_new_tokens} and {self.name} has {self.limit} positions: give less than that."
            )
        blank = next((i for i, text in enumerate(texts) if not text.strip()), None)
        if blank is not None:
            raise SteerlabError(f"text {blank} of {len(texts)} is blank: leave empty texts out before translating.")
        rows = self._rows(texts, source, target)
        sizes = [len(row) for row in rows]
        if self.limit is not None and max(sizes, default=0) > self.limit:
            worst = sizes.index(max(sizes))
            raise SteerlabError(
                f"a text of {sizes[worst]} tokens ({texts[worst][:40]!r}...) does not fit the {self.limit} positions of "
                f"{self.name}: split it into sentences."
            )
        options: dict[str, Any] = {"do_sample": False, "num_beams": num_beams, "max_new_tokens": max_new_tokens}
        if self.style == "forced":
            token = self.codes[self.code(target)]
            options["forced_bos_token_id"] = self.tokenizer.convert_tokens_to_ids(token)
        found: dict[int, Translation] = {}
        memory = Halving("texts")
        for members in plan_batches(sizes, token_budget, batch_rows):
            parts = memory.run(members, lambda part: self._batch([rows[i] for i in part], options))
            found.update(zip(members, (one for part in parts for one in part), strict=True))
        return [found[i] for i in range(len(texts))]

    def _rows(self, texts: Sequence[str], source: str, target: str) -> list[list[int]]:
        """Token ids of each text with everything the encoder is told about languages."""
        if not texts:
            return []
        tokenizer: Any = self.tokenizer
        if self.style == "forced":
            tokenizer.src_lang = self.code(source)
        tag = f"{self.codes[self.code(target)]} " if self.style == "tag" else ""
        return tokenizer([tag + text for text in texts], verbose=False)["input_ids"]

    def _batch(self, rows: Sequence[list[int]], options: Mapping[str, Any]) -> list[Translation]:
        hf: Any = self.hf
        padded = self.tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt")
        inputs = {name: padded[name].to(hf.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            written = hf.generate(**inputs, **options)[
                :, 1:
            ].cpu()  # the decoder's start token is no text (and may be EOS)
        ends = hf.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends])
        stopped = torch.isin(written, ends)
        ended = stopped.any(1).tolist()
        counts = torch.where(stopped.any(1), stopped.int().argmax(1) + 1, written.shape[1]).tolist()
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Translation(*parts) for parts in zip((t.strip() for t in texts), counts, ended, strict=True)]


def load_translator(
    name: str, *, dtype: str = "float32", device: str | None = None, revision: str | None = None
) -> Translator:
    """A translator from a hub id or a local folder. The model's own code is never run; weights that are no safetensors are read
    as plain tensors (torch's weights-only reader).

    dtype: float32, bfloat16 or float16. device: "cpu", "cuda" ...; None takes the GPU if there is one.
    Raises `SteerlabError` for an unknown dtype or device, and for a model that is not there or does not translate text to text.
    """
    if dtype not in DTYPES:
        raise SteerlabError(f"dtype {dtype!r} is not known: give one of {', '.join(DTYPES)}.")
    source = str(Path(name).expanduser()) if name.startswith(("/", "./", "../", "~")) else name
    if source != name and not Path(source).is_dir():
        raise SteerlabError(f"there is no folder {name}: give the folder of a translation model, or a hub id.")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise SteerlabError(
            f"device {place!r} cannot be used on this machine: give 'cpu', 'cuda' or 'cuda:N'."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main")
        hf: Any = AutoModelForSeq2SeqLM.from_pretrained(
            source, revision=revision or "main", dtype=DTYPES[dtype], weights_only=True
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"the translation model {name!r} could not be loaded ({first}): give a hub id such as "
            "facebook/nllb-200-distilled-600M, or a local folder with config.json, tokenizer and weights."
        ) from error
    hf.to(place)
    return wrap_translator(hf, tokenizer, name=name, revision=revision)


def wrap_translator(
    hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "", revision: str | None = None
) -> Translator:
    """A translator around a model you already hold."""
    hf.eval()
    style, codes = _codes(tokenizer)
    known = revision or known_revision(hf)
    return Translator(name or str(hf.config.name_or_path), str(known), hf, tokenizer, style, codes)


def _codes(tokenizer: PreTrainedTokenizerBase) -> tuple[Style, dict[str, str]]:
    """How the tokenizer names languages, and its codes with their tokens."""
    made: Any = tokenizer
    if hasattr(made, "src_lang"):
        ids: Mapping[str, int] = getattr(made, "lang_code_to_id", {})  # M2M-100: "de" is the token __de__
        codes = {code: made.convert_ids_to_tokens(number) for code, number in ids.items()}
        codes = codes or {token: token for token in made.all_special_tokens if _CODE.fullmatch(token)}
        if codes:
            return "forced", codes
    tags = {match[1] or match[2]: match[0] for token in made.get_vocab() if (match := _TAG.fullmatch(token))}
    return ("tag", tags) if tags else ("none", {})

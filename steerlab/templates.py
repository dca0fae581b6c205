"""From a prompt to token ids: chat template or plain template, and exactly one BOS, decided here and nowhere
else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from steerlab.errors import SteerlabError
from steerlab.records import encode_text

PART = 512
INSTRUCTION = "### Instruction:\n{prompt}\n\n### Response:\n"


@dataclass(frozen=True)
class Template:
    """How an instruction is put to the model.

    kind "chat": the tokenizer's own chat template. kind "plain": `text` with `{prompt}` in it (the default is
    the form the low-resource study uses for Gemma). BOS policy, for both kinds and for bare text: what the
    tokenizer puts before plain text, once; a chat template that already wrote it is not given another.
    """

    kind: Literal["chat", "plain"] = "plain"
    text: str = INSTRUCTION

    def __post_init__(self) -> None:
        if self.kind == "plain" and "{prompt}" not in self.text:
            raise SteerlabError(f"the template {self.text!r} has no {{prompt}} in it: say where the prompt goes.")

    def token_rows(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], chat: bool) -> list[list[int]]:
        """Token ids of each text; with `chat`, of the instruction the template makes of it. Specials in chat
        text are parsed as such.
        """
        if not chat:
            return _ids(tokenizer, texts)
        if self.kind == "plain":
            return _ids(tokenizer, [self.text.replace("{prompt}", t) for t in texts])
        rows = [self.render(tokenizer, text) for text in texts]
        bos = leading_bos(tokenizer)
        encoded = _ids(tokenizer, rows, add_special_tokens=False)
        return [ids if bos is None or ids[:1] == [bos] else [bos, *ids] for ids in encoded]

    def render(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
        """The instruction as the model sees it, generation prompt included."""
        if self.kind == "plain":
            return self.text.replace("{prompt}", prompt)
        messages = [{"role": "user", "content": prompt}]
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a chat template is a program of whoever made the model
            raise SteerlabError(
                f"the tokenizer's chat template cannot be filled ({type(error).__name__}: {error}): use template='plain', or give a "
                "text with {prompt} in it."
            ) from error

    def digest(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """SHA-256 of what decides the rendering: for provenance."""
        source = self.text if self.kind == "plain" else str(tokenizer.chat_template)
        return hashlib.sha256(f"{self.kind}\n{source}".encode()).hexdigest()


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: bool) -> list[list[int]]:
    """Token ids of each text, a part of the texts at a time: what a tokenizer keeps beside the ids is ten times their size.

    Raises `SteerlabError` for half a character, which no tokenizer takes.
    """
    for text in texts:
        encode_text(text)
    parts = (list(texts[at : at + PART]) for at in range(0, len(texts), PART))
    return [list(row) for part in parts for row in tokenizer(part, **options)["input_ids"]]  # type: ignore[arg-type]


def leading_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The BOS id the tokenizer puts before plain text, or None if it puts none (Qwen, GPT-2)."""
    ids = tokenizer("a")["input_ids"]
    first = ids[0] if ids else None  # type: ignore[index]
    return int(first) if first is not None and first == tokenizer.bos_token_id else None


def choose_template(tokenizer: PreTrainedTokenizerBase, wanted: str = "auto") -> Template:
    """ "auto": the chat template if there is one, else the plain instruction form. "chat" insists; any text
    with {prompt} is itself.

    Raises `SteerlabError` when "chat" is asked for and the tokenizer has no chat template.
    """
    has_chat = bool(tokenizer.chat_template)  # one template, or several by name, of which transformers takes "default"
    if wanted == "chat" and not has_chat:
        raise SteerlabError(
            "the tokenizer has no chat template: use template='plain', or give a text with {prompt} in it, or set tokenizer.chat_template."
        )
    if wanted == "chat" or (wanted == "auto" and has_chat):
        return Template("chat")
    if wanted in ("auto", "plain"):
        return Template("plain")
    return Template("plain", wanted)

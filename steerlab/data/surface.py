"""One surface form for both sides of a contrast, so that human against back-translated is not typography."""

from __future__ import annotations

import re
import unicodedata

_SINGLE = dict.fromkeys(map(ord, "‘’‚‛ʼ`´′"), "'")
_DASH = dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")
_TABLE = _SINGLE | _DASH | {ord("…"): "..."}
_DOUBLE = re.compile(r"[\"„“”‟«»‹›″״＂]|''")
_QUOTED = re.compile(r"(?<!\w)'([^']*)'(?!\w)")  # not the apostrophe of Maltese ta' or English don't
_BEFORE = re.compile(r"\s+([,.;:!?%)\]}።፣፤])")
_AFTER = re.compile(r"([(\[{])\s+")
_REPEAT = re.compile(r"([.!?,;:-])\1+")
_START = " -•*·.,;:!?"
_END = " .,;:!?-።፡፣፤፧׃"


def _once(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_TABLE)
    text = _QUOTED.sub(r"\1", _DOUBLE.sub(" ", text))
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = " ".join(text.split())
    text = _AFTER.sub(r"\1", _BEFORE.sub(r"\1", text))
    text = _REPEAT.sub(r"\1", text).lstrip(_START).rstrip(_END)
    return text[:1].lower() + text[1:]


def normalise_surface(text: str) -> str:
    """Undo what a keyboard or a translator's typesetter decides; words, their order and inner punctuation stay.

    Quotation marks and invisible format characters go; dashes, apostrophes, ellipses, repeated punctuation and spacing (also
    before punctuation) take one form; punctuation at both ends goes and the first letter becomes lower case. Idempotent. A text
    of punctuation alone becomes empty.
    """
    while (shorter := _once(text)) != text:
        text = shorter
    return text

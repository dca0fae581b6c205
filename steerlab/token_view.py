"""What a token map holds, and how it is shown: in the terminal, in a notebook and as a page of its own.

Texts and names come from anywhere, so everything is escaped, control characters are shown and not sent, and a combining
mark that starts a token gets a circle to stand on.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group
from rich.style import Style
from rich.text import Text

from steerlab import disk

# Blue for how far the edit moved the stream, orange for what is read: two of Okabe and Ito's colours.
_STEERED, _READ = (0, 114, 178), (230, 159, 0)
_PALEST, _DARKEST = 0.12, 0.75  # opacity of the smallest and of the largest edit of a map
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Token map</title></head>
<body style="max-width:60em;margin:2em auto;padding:0 1em">{body}</body></html>
"""


@dataclass(frozen=True)
class Mark:
    """What one intervention (by its number in the row) did to one token at one layer.

    `strength`: activation units for add, else a fraction or radians; `share`: the length asked for (of `match` the
    target) over the mean residual norm, NaN where it is no length or the norm unknown. `cosine`: between the stream and the
    direction, before. `open`: False where a gate kept the token as it is. `size`: how far the token was moved, over the
    norm of its stream there.
    """

    intervention: int
    layer: int
    strength: float
    share: float
    cosine: float
    open: bool
    size: float


@dataclass(frozen=True)
class Token:
    """One token: its id and text, its position counted from the end of the prompt (0 is the first token of the answer),
    the vectors it would be read for, what was done to it, and the largest change of its stream at any site, all
    interventions together, over the norm there.
    """

    id: int
    piece: str
    position: int
    read: tuple[str, ...]
    marks: tuple[Mark, ...]
    size: float

    @property
    def steered(self) -> bool:
        """Whether an intervention acted on it."""
        return any(mark.open for mark in self.marks)

    @property
    def gated(self) -> bool:
        """Whether gates kept it as it is, although positions mean it."""
        return bool(self.marks) and not self.steered


@dataclass(frozen=True)
class MappedText:
    """The tokens of one text, and for each of its interventions its name, operator, layers and positions in words."""

    tokens: tuple[Token, ...]
    interventions: tuple[str, ...]


@dataclass(frozen=True)
class TokenMap:
    """Which tokens a plan steers how strongly, and which would be read for its vectors. Shows itself in a notebook and by
    `rich.print`; `save` writes a page of its own, `table` gives the numbers.
    """

    texts: tuple[MappedText, ...]
    model: str = ""

    def table(self) -> pd.DataFrame:
        """One row per text, token, intervention and layer (one with intervention -1 for a token nothing was meant for)."""
        rows: list[dict[str, Any]] = []
        for number, text in enumerate(self.texts):
            for place, token in enumerate(text.tokens):
                facts = {
                    "text": number, "token": place, "id": token.id, "piece": token.piece, "position": token.position,
                    "read": " ".join(token.read), "moved": token.size,
                }  # fmt: skip
                nothing = {"intervention": -1, "layer": -1, "operator": "", "open": False}
                rows += [facts | nothing] if not token.marks else []
                for mark in token.marks:
                    own = {"intervention": mark.intervention, "layer": mark.layer, "open": mark.open}
                    own |= {"operator": text.interventions[mark.intervention], "strength": mark.strength}
                    rows.append(facts | own | {"share": mark.share, "cosine": mark.cosine, "size": mark.size})
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write a standalone HTML page. Raises `SteerlabError` where it cannot be written."""
        path = Path(path)
        with disk.told(path):
            disk.replace(path, _PAGE.format(body=self._repr_html_()).encode("utf-8"))
        return path

    def _repr_html_(self) -> str:
        most = largest(self)
        return "".join(_text_html(text, most) for text in self.texts) + _legend_html(most)

    def __rich__(self) -> Group:
        most = largest(self)
        return Group(*(part for text in self.texts for part in _text_rich(text, most)), Text(_legend(most), "dim"))


def largest(mapped: TokenMap) -> float:
    """The largest change of a token's stream in the whole map."""
    return max((token.size for text in mapped.texts for token in text.tokens), default=0.0)


def visible(piece: str) -> str:
    """The piece with nothing in it that a terminal or page would act on: controls (NUL, escapes, direction marks) as in
    Python, a leading combining mark on a circle, half a surrogate pair as its number.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)
    return f"◌{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown


def account(text: MappedText) -> list[str]:
    """One sentence per intervention: what it did to how many tokens."""
    said = []
    for number, name in enumerate(text.interventions):
        own = [mark for token in text.tokens for mark in token.marks if mark.intervention == number]
        meant = sum(any(mark.intervention == number for mark in token.marks) for token in text.tokens)
        acted = sum(any(m.open for m in token.marks if m.intervention == number) for token in text.tokens)
        sizes = [mark.size for mark in own if mark.open]
        moved = f", moved by {_span(sizes)} of the stream" if sizes else ""
        shut = f", the gate kept {meant - acted}" if acted < meant else ""
        said.append(f"{visible(name)}: {acted} of {len(text.tokens)} tokens steered{moved}{shut}")
    for name in dict.fromkeys(name for token in text.tokens for name in token.read):
        count = sum(name in token.read for token in text.tokens)
        said.append(f"{visible(name)}: {count} of {len(text.tokens)} tokens are read for such a vector")
    return said


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _halves(text: MappedText) -> Iterator[tuple[str, list[Token]]]:
    for name, answer in (("prompt", False), ("answer", True)):
        own = [token for token in text.tokens if (token.position >= 0) == answer]
        if own:
            yield name, own


def _legend(most: float) -> str:
    steered = f"blue: steered, the darkest moved its stream by {most:.2f} of its norm" if most > 0 else "nothing moved"
    return f"{steered}; underlined: read for the vector; in brackets: the gate kept it"


def _opacity(size: float, most: float) -> float:
    return _PALEST + (_DARKEST - _PALEST) * size / most if most > 0 and size > 0 else 0.0


def _text_rich(text: MappedText, most: float) -> Iterator[Text]:
    for name, tokens in _halves(text):
        line = Text(f"{name}  ", "dim")
        for token in tokens:
            alpha = _opacity(token.size, most)
            mixed = ",".join(str(round(255 - alpha * (255 - part))) for part in _STEERED)
            paint = Style.parse(f"black on rgb({mixed})") if alpha else Style()
            piece = f"[{visible(token.piece)}]" if token.gated else visible(token.piece)
            line.append(piece, Style.combine([paint, Style(underline=bool(token.read))]))
            line.append(" ")
        yield line
    yield from (Text(sentence) for sentence in account(text))


def _text_html(text: MappedText, most: float) -> str:
    parts = []
    for name, tokens in _halves(text):
        spans = "".join(_token_html(token, text.interventions, most) for token in tokens)
        # dir=auto: a Hebrew text runs from the right, whatever the page does.
        parts.append(
            f'<div style="color:#666;font-size:80%">{name}</div><div dir="auto" style="line-height:2.1">{spans}</div>'
        )
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in account(text))
    return f'<div style="font-family:sans-serif;margin-bottom:1em">{"".join(parts)}<ul>{said}</ul></div>'


def _token_html(token: Token, interventions: Sequence[str], most: float) -> str:
    look = "display:inline-block;unicode-bidi:isolate;padding:0 .15em;margin:0 .05em;border-radius:.2em;line-height:1.5"
    alpha = _opacity(token.size, most)
    if alpha:
        look += f";background:rgba({_STEERED[0]},{_STEERED[1]},{_STEERED[2]},{alpha:.2f});color:#000"
    if token.read:
        look += f";border-bottom:3px solid rgb({_READ[0]},{_READ[1]},{_READ[2]})"
    if token.gated:
        look += ";outline:1px dashed #888"
    said = escape(describe(token, interventions), quote=True)
    return f'<span style="{look}" title="{said}">{escape(visible(token.piece))}</span>'


def describe(token: Token, interventions: Sequence[str]) -> str:
    """All that is known of one token, in lines."""
    lines = [f"{visible(token.piece)} (id {token.id}), position {token.position}"]
    lines += [f"read for {visible(name)}" for name in token.read]
    for mark in token.marks:
        share = "" if math.isnan(mark.share) else f" ({mark.share:.2f} of the residual norm)"
        did = f"moved by {mark.size:.2f} of the stream" if mark.open else "kept by the gate"
        lines.append(
            f"{visible(interventions[mark.intervention])}, layer {mark.layer}: strength {mark.strength:.3g}{share}, "
            f"{did}, cosine before {mark.cosine:.2f}"
        )
    return "\n".join(lines)


def _legend_html(most: float) -> str:
    words = _legend(most).replace("in brackets", "dashed")
    return f'<div style="font-family:sans-serif;color:#666;font-size:80%">{escape(words)}</div>'

"""Texts, JSON values and bytes that break programs, as hypothesis strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# One sentence in each of the twelve languages, and some in scripts that those are or were written in, and in others.
SENTENCES = (
    "ሕፃናቱ ከዝናቡ በፊት ወደ ቤት ሄዱ።",
    "Přišel večer, ale děti ještě nespaly.",
    "Børnene gik hjem, før regnen kom.",
    "Der Zug fährt heute um 8.15 Uhr ab.",
    'The "train" doesn\'t leave at 8:15 a.m. today, does it?',
    "הַיְּלָדִים הָלְכוּ הַבַּיְתָה, אמר צה״ל.",
    "Anak-anak pulang sebelum hujan.",
    "ꦲꦏ꧀ꦱꦫꦗꦮ aku mangan sega.",
    "It-tfal marru d-dar qabel ix-xita, x'tagħmel.",
    "Deti išli domov pred dažďom.",
    "Otroci so šli domov pred dežjem.",
    "ᮃᮊ᮪ᮞᮛ ᮞᮥᮔ᮪ᮓ abdi tuang sangu.",
    "ذهب الأطفال إلى البيت قبل المطر؟",
    "बच्चे बारिश से पहले घर गए।",
    "孩子们在下雨前回家了。こどもは帰った。",
    "เด็กๆ กลับบ้านก่อนฝนตก",
    "아이들은 비가 오기 전에 집에 갔다",
)
BLANKS = ("", " ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\u3000")
HIDDEN = ("\x00", "\x1b[31m", "\x7f", "\u202e", "\u2066", "\u200d", "\u200b", "\ufeff", "\u00ad", "\ufffd", "\uffff")
COMBINED = (
    "e\u0301",
    "e" + "\u0301" * 60,
    "\u0301",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇸🇰",
    "👍🏽",
    "\U0010ffff",
    "نِّ",
    "\u200e\u200f",
)
LETTERS = ("Ⓐ", "Ⓐa.", "ǅ", "İ", "ı", "ß", "ẞ", "ﬁ", "½", "²", "٣", "Ⅷ", "🅰", "ʼ", "𝔄", "ŉ", "ΐ", "Σς", "x. Ⓑ")
SIGNS = (
    '"',
    "'",
    "`",
    "*",
    "**",
    "***",
    "******",
    "#",
    "###",
    "<",
    ">",
    "&",
    "|",
    "\\",
    "/",
    "../",
    "{",
    "}",
    "{label}",
)
SIGNS += (
    "{0}",
    "{label!r:>9}",
    "%s",
    "$HOME",
    "[",
    "]",
    "[/]",
    "<<t>>",
    "- x",
    "1.",
    "...",
    "?!",
    ",",
    ";",
    ":",
    "=",
    "<|bos|>",
)
MARKUP = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "]]>",
    "-->",
)
HALVES = ("\ud800", "\udc80", "\udfff", "\ud83d", "\udce1")
PIECES = (*SENTENCES, *BLANKS, *HIDDEN, *COMBINED, *LETTERS, *SIGNS, *MARKUP, "a", "A", "word", "0", "-1")


def _joined(pieces: SearchStrategy[str]) -> SearchStrategy[str]:
    several = st.lists(st.one_of(pieces, st.characters(), pieces), max_size=8).map("".join)
    repeated = st.builds(lambda piece, n: piece * n, pieces, st.sampled_from([2, 3, 17, 300, 3000]))
    return st.one_of(several, pieces, several, several, repeated, st.text(max_size=30))


WHOLE = _joined(st.sampled_from(PIECES))  # can be written as UTF-8
TEXTS = st.one_of(  # may hold half a character
    WHOLE, WHOLE, WHOLE, _joined(st.one_of(st.sampled_from(PIECES), st.sampled_from(HALVES)))
)
SHORT = st.one_of(st.sampled_from((*PIECES, *HALVES)).map(lambda piece: piece[:40]), st.text(max_size=8))
LISTS = st.lists(TEXTS, max_size=6)
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, -1, 2**31, -(2**63), 2**64, 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, SHORT)
JSON: SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(SHORT, inner, max_size=4)), max_leaves=8
)
# Texts of JSON that a parser may accept and a program not expect, or that break the parser itself.
BROKEN_JSON = st.sampled_from(
    ["", "null", "[]", "{}", "1", '""', "[" * 5000, '{"a":' * 3000, "1" * 5000, '{"a": ' + "9" * 5000 + "}", "NaN", "{",
     '{"a": 1e999}', '"\\ud800"', '{"\\ud800": 1}', "\ufeff{}", "{}\n{}", "\x00"]
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(["..", ".", "../escape", "../../escape", "/escape", "a/../../escape", "a\x00b", "", " ", "~", "~root", "-x"]),
    st.sampled_from(["a" * 300, "con", "a\\b", "a:b", ".hidden", "a\nb", "name", "language-jv", "é", "\ud800", "a/b"]),
    SHORT,
)  # fmt: skip


@st.composite
def replaced(draw: st.DrawFn, value: Any, depth: int = 4) -> Any:
    """A JSON value in which some places hold something else, are gone, or are there twice."""
    if depth == 0 or draw(st.integers(0, 6)) == 0:
        return draw(st.one_of(JSON, NAMES, NUMBERS))
    if isinstance(value, dict) and value:
        names = list(value)
        chosen = draw(st.sampled_from(names))
        found = dict(value)
        what = draw(st.sampled_from(["change", "change", "change", "lose", "add", "rename"]))
        if what == "change":
            found[chosen] = draw(replaced(value[chosen], depth - 1))
        elif what == "add":
            found[draw(NAMES)] = draw(JSON)
        else:
            held = found.pop(chosen)
            if what == "rename":
                found[draw(NAMES)] = held
        return found
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(["change", "change", "lose", "twice"]))
        middle = {"lose": [], "twice": [value[at], value[at]]}.get(what)
        return [*value[:at], *([draw(replaced(value[at], depth - 1))] if middle is None else middle), *value[at + 1 :]]
    return draw(st.one_of(JSON, NAMES, NUMBERS))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some changed, cut out, put in or cut off."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 5))):
        at = (
            draw(st.integers(0, max(len(found) - 1, 0)))
            if draw(st.booleans())
            else draw(st.integers(0, min(len(found), 200)))
        )
        what = draw(st.sampled_from(["set", "set", "insert", "delete", "cut", "big"]))
        if what == "set":
            found[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif what == "delete":
            del found[at : at + draw(st.integers(1, 20))]
        elif what == "big":
            found[at : at + 8] = draw(
                st.sampled_from([b"\xff" * 8, b"\x00" * 8, b"\xff" * 7 + b"\x7f", b"\xff\xff\xff\x7f"])
            )
        else:
            del found[at:]
    return bytes(found)

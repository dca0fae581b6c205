r"""Words, capital words and sentences, counted as IFEval counts them, without NLTK and its downloads.

Words are runs of `\w`, exactly NLTK's `RegexpTokenizer(r"\w+")`. Capital words and sentences follow the procedures of NLTK's
`word_tokenize` and Punkt (Kiss and Strunk 2006) as IFEval uses them, written anew; where they can differ is said at each function.
"""

from __future__ import annotations

import re
from itertools import pairwise

_WORD = re.compile(r"\w+")
_ENDS = ".?!"
_AFTER = ")\";}]*:@'({[!?"  # what Punkt lets follow a sentence's end without a space
_CLOSING = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_CHUNK = re.compile(r"\S+")
_DOTS = re.compile(r"\.{2,}$")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_INNER_END = re.compile(rf"[?!]|(?<=[^.])\.(?=[{re.escape(_AFTER)}])")
_TOKEN = re.compile(rf"'?[^{re.escape(_AFTER)}]+$")  # the last of the tokens a stretch without spaces falls into
ABBREVIATIONS = frozenset(
    """adm al apr assn aug ave blvd bros capt cf co col corp ct dec dept dr e.g etc feb ft gen gov hon i.e inc jan jr jul jun
    lt ltd maj messrs mr mrs ms mt nov oct p.m a.m p.s p.p.s ph.d pp prof rep rev sen sep sept sgt sr st u.k u.n u.s u.s.a viz
    vol vs d.c m.d b.a m.a b.c a.d""".split()  # noqa: SIM905  a list of literals would fill a page
)
STARTERS = frozenset(
    """i a an the this that these those there here he she it they we you his her its their our my and but or so if when while after
    before although as at because by for from however in on since then thus to with what who why how where yes no not also""".split()  # noqa: SIM905
)
_APART = re.compile(r"[\s()\[\]{}<>\"«»“”‘’„`?!*;@#$%&\u2012-\u2015]+|\.{2,}|--|''|[:,](?!\d)")
_CLITIC = re.compile(r"(?<=[^'])('s|'m|'d|'S|'M|'D|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)$")
_CONTRACTED = re.compile(
    r"(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n)|(wan)(na)", re.IGNORECASE
)
_TIS = re.compile(r"('t)(is|was)", re.IGNORECASE)


def count_words(text: str) -> int:
    r"""Runs of `\w` (letters, digits, underscore): "don't" has two, "well-known" two. A combining mark ends a run, so pointed
    Hebrew and Devanagari count high, as they do in IFEval; `steerlab.evaluation.words.words` keeps such words whole.
    """
    return len(_WORD.findall(text))


def capital_words(text: str) -> list[str]:
    """The tokens in which every cased character is a capital and there is one: "NASA", "I", "A1", "X-RAY"; "IT'S" gives two.

    Tokens are NLTK's: apart at brackets, quotes, ? ! * ; @ # $ % & and dashes (not hyphens), at : and , unless a digit follows, and
    before clitics ('S, N'T), so "R&D" has two. Sentence splitting, on which NLTK's final full stop hangs, changes no count.
    """
    found = []
    for token in (piece for piece in _APART.split(_quotes_plain(text)) if piece):
        found += [part for part in _parts(token) if part.isupper()]
    return found


def _quotes_plain(text: str) -> str:
    """A typographic apostrophe stands apart in NLTK, so it/’/s are three tokens; a space does the same here."""
    return text.replace("’", " ").replace("‘", " ")


def _parts(token: str) -> list[str]:
    clitic = _CLITIC.search(token)
    head, tail = (token[: clitic.start()], [clitic.group()]) if clitic else (token, [])
    bare = head.rstrip(".")
    whole = _CONTRACTED.fullmatch(bare) or _TIS.fullmatch(bare)
    return [part for part in whole.groups() if part] + tail if whole else [head, *tail]


def split_sentences(text: str) -> list[str]:
    """Sentences by Punkt's procedure: a ? or ! before a space ends one; a full stop does, unless it closes an abbreviation (then
    only before a frequent sentence starter), an initial ("J. Smith"), or a number before a small letter; "..." does before a
    starter; closing quotes and brackets stay with their sentence. A list number such as "1." is a sentence, as it is in NLTK.

    NLTK's English model brings what it learned from newspapers; here stand short lists of abbreviations and of starters.
    Counts can therefore differ, by one for each such place: (1) after an abbreviation that one list has and the other has not, or
    before a starter likewise; (2) after an abbreviation, an initial, a number or an ellipsis, where NLTK asks how the next word
    was seen written; (3) at learned pairs such as "St. Louis". After all other words, and after ? and !, both agree.
    """
    chunks = list(_CHUNK.finditer(text))
    starts = [0]
    for number, chunk in enumerate(chunks):
        following = chunks[number + 1] if number + 1 < len(chunks) else None
        at = _last_end(chunk.group(), following is not None)
        if at is None:
            continue
        inside = at + 1 < len(chunk.group())
        after = chunk.group()[at + 1] if inside or following is None else following.group()
        if _ends(chunk.group()[: at + 1], after):
            starts.append(chunk.start() + at + 1 if inside or following is None else following.start())
    return _realigned(text, starts)


def count_sentences(text: str) -> int:
    """How many sentences `split_sentences` finds; 0 for blank text."""
    return len(split_sentences(text))


def count_sentences_anywhere(text: str) -> int:
    """Like `count_sentences`, with the full stops of other scripts (። 。 ！ ？ ؟ ।) ending sentences too."""
    return count_sentences(re.sub(r"[።。！？؟।]", "! ", text))


def _last_end(chunk: str, more: bool) -> int | None:
    """Where in a stretch without spaces a sentence may end: at its last . ? or ! before a space or before punctuation."""
    for at in range(len(chunk) - 1, -1, -1):
        last = at == len(chunk) - 1
        if chunk[at] in _ENDS and (more if last else chunk[at + 1] in _AFTER):
            return at
    return None


def _ends(word: str, after: str) -> bool:
    """Does the sentence end behind `word`, which closes with . ? or !, given what comes next?"""
    if word[-1] in "?!" or _INNER_END.search(word[:-1]):
        return True
    word_after = _WORD.search(after.casefold())  # a capital need not be a letter: \u24b6, in a circle, is a symbol
    starter = after[0].isupper() and word_after is not None and word_after.group() in STARTERS
    if _DOTS.search(word):
        return starter
    own = _TOKEN.search(word)
    token = own.group().lstrip("`&#-,") if own else word
    if _INITIAL.match(token):
        return token.casefold() == "i." and starter
    if _NUMBER.match(token[:-1]):
        return not (after[0].islower() or after[0] in ";:,.!?")
    short = token[:-1].casefold()
    if short in ABBREVIATIONS or short.rsplit("-", 1)[-1] in ABBREVIATIONS:
        return starter
    return True


def _realigned(text: str, starts: list[int]) -> list[str]:
    """Cut at the starts, then give closing quotes and brackets at a sentence's beginning to the one before."""
    cuts = [*starts, len(text.rstrip())]
    pieces: list[str] = []
    for start, stop in pairwise(cuts):
        piece = text[start:stop]
        closing = _CLOSING.match(piece) if pieces else None
        if closing:
            pieces[-1] += closing.group().rstrip()
            piece = piece[closing.end() :]
        if piece.strip():
            pieces.append(piece.strip())
    return pieces

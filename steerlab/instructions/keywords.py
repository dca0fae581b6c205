"""Words to use and words to avoid: one vector per word, added to bring it in and *subtracted* to keep it out.

A vector of "do not use w" hardly keeps w out, since the mention itself says w (Stolfo et al. 2025, section 5): the vector of "use w",
taken away, does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.queries import Query
from steerlab.following.trials import Cell
from steerlab.instructions.application import Application, Placing
from steerlab.instructions.pairs import Pairs, build_pairs, pair_name
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector

INCLUDE = "words:include"
# Instructions about words -> the argument that holds them, and whether they are to be used.
KEYWORDS: Mapping[str, tuple[str, bool]] = {
    INCLUDE: ("words", True),
    "words:exclude": ("words", False),
    "simple:include_word": ("word", True),
    "keywords:existence": ("keywords", True),
    "keywords:forbidden_words": ("forbidden_words", False),
}


def keywords(row: InstructedPrompt) -> list[tuple[str, bool]]:
    """The words a prompt asks about, in order, and whether it wants them."""
    found = []
    for name, kwargs in zip(row.instructions, row.kwargs, strict=True):
        if name in KEYWORDS:
            argument, wanted = KEYWORDS[name]
            value = kwargs[argument]
            found += [(word.strip(), wanted) for word in ([value] if isinstance(value, str) else value)]
    return found


def keyword_pairs(
    words: Sequence[str], queries: Sequence[Query | str], *, phrasings: int = 5, seed: int = 0
) -> list[Pairs]:
    """Pairs for a vector of every word, each word once: the queries with and without "use the word", in several wordings."""
    return [
        build_pairs(queries, INCLUDE, {"words": [word]}, phrasings=phrasings, seed=seed)
        for word in dict.fromkeys(words)
    ]


def keyword_placing(vectors: Mapping[str, SteeringVector], application: Application | None = None) -> Placing:
    """What is done for a prompt at a cell: the vectors of its words (`keyword_pairs` names them), added or taken away.

    `application`: how (its kind, add or subtract, is set by each word); a fixed push in activation units unless given. Raises
    `SteerlabError`, when it is asked for a prompt, for a word without a vector and a prompt without words.
    """
    own = application or Application("add")
    made: dict[tuple[str, bool, Cell], Intervention] = {}

    def place(word: str, wanted: bool, cell: Cell) -> Intervention:
        if (word, wanted, cell) not in made:
            name = pair_name(INCLUDE, {"words": [word]})
            if name not in vectors:
                raise SteerlabError(f"there is no vector for the word {word!r}: fit one with keyword_pairs.")
            way = Application("add" if wanted else "subtract", own.unit, own.cap, own.gate, own.positions)
            (made[word, wanted, cell],) = way.at(vectors[name], cell)
        return made[word, wanted, cell]

    def act(row: InstructedPrompt, cell: Cell | None) -> tuple[Intervention, ...]:
        asked = keywords(row)
        if not asked:
            raise SteerlabError(f"prompt {row.id!r} names no words: give prompts with {', '.join(KEYWORDS)}.")
        if cell is None or cell.strength == 0:
            return ()
        return tuple(place(word, wanted, cell) for word, wanted in asked)

    return act

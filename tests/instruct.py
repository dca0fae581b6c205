"""Small sets of paired prompts, for the tests of instruction steering."""

from __future__ import annotations

from collections.abc import Sequence

from steerlab.data.ifeval import InstructedPrompt
from steerlab.following.prompts import simple_prompts
from steerlab.following.queries import Query, own_queries, split_queries
from steerlab.instructions import Pairs, pairs_of

NAMES = ("simple:lowercase", "simple:quotes", "simple:uppercase")
FAMILIES = ("gemma2", "llama", "phi3")


def queries(n: int, split: str = "train") -> tuple[Query, ...]:
    """The first wordings of `n` subjects of a split."""
    return tuple(q for q in split_queries(own_queries())[split] if q.id.endswith("-0"))[:n]  # type: ignore[index]


def prompts(n: int = 6, names: Sequence[str | tuple[str, ...]] = NAMES, split: str = "train") -> list[InstructedPrompt]:
    """Every instruction behind `n` base queries."""
    return simple_prompts(queries(n, split), names, split=split)


def pairs(n: int = 6) -> list[Pairs]:
    """Their pairs, one set per instruction."""
    return pairs_of(prompts(n))

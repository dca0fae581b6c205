"""Positions mean the same in one forward and in cached steps, and their text form reads back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.types import ALL, GENERATED, LAST_PROMPT, NAMED_POSITIONS, PROMPT, WRITING, Positions, Site
from tests.reference.steering import context


def _mask(positions: Positions, lengths: list[int], steps: int = 2, width: int = 6) -> list[list[int]]:
    relative, ids, real = context(lengths, steps, width)
    return [row.nonzero()[:, 0].tolist() for row in positions.mask(relative, ids, real)]


def test_named_positions_on_a_left_padded_batch() -> None:
    # columns 0-3 hold the prompts, 4-5 what was generated; the second prompt is two tokens long
    assert _mask(ALL, [4, 2]) == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]
    assert _mask(PROMPT, [4, 2]) == [[0, 1, 2, 3], [2, 3]]
    assert _mask(LAST_PROMPT, [4, 2]) == [[3], [3]]
    assert _mask(GENERATED, [4, 2]) == [[4, 5], [4, 5]]
    assert _mask(WRITING, [4, 2]) == [[3, 4, 5], [3, 4, 5]]
    assert _mask(Positions(-3, 0), [4, 2]) == [[1, 2, 3], [2, 3]]


def test_prompt_and_generated_share_the_tokens_among_themselves() -> None:
    for lengths in ([4, 2], [1, 3]):
        prompt, generated, everything = (_mask(p, lengths) for p in (PROMPT, GENERATED, ALL))
        assert [sorted(a + b) for a, b in zip(prompt, generated, strict=True)] == everything


def test_single_steps_give_the_columns_of_one_forward() -> None:
    relative, ids, real = context([4, 2, 1], 2, 6)
    for positions in (
        *NAMED_POSITIONS.values(),
        Positions(-2, 1),
        Positions(skip_ids=(3, 7)),
        Positions(only_ids=(0, 4)),
    ):
        whole = positions.mask(relative, ids, real)
        steps = [positions.mask(relative[:, [s]], ids[:, [s]], real[:, [s]]) for s in range(6)]
        assert torch.equal(torch.cat(steps, dim=1), whole)


def _one(relative: list[int], ids: list[int], real: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor([relative]), torch.tensor([ids]), torch.tensor([real])


def test_token_ids_are_kept_or_left_alone_and_padding_is_neither() -> None:
    args = _one([-3, -2, -1, 0], [0, 1, 5, 0], [False, True, True, True])
    assert Positions(skip_ids=(1,)).mask(*args).tolist() == [[False, False, True, True]]
    assert Positions(only_ids=(0, 5)).mask(*args).tolist() == [[False, False, True, True]]
    assert Positions(only_ids=(0, 5), skip_ids=(5,), stop=1).mask(*args).tolist() == [[False, False, False, True]]
    assert ALL.mask(*args).tolist() == [[False, True, True, True]]


def test_a_mask_is_a_copy_of_what_is_real() -> None:
    relative, ids, real = _one([-1, 0], [3, 4], [True, True])
    ALL.mask(relative, ids, real).zero_()
    assert real.all()


def test_everywhere_is_true_for_all_alone() -> None:
    assert ALL.everywhere
    others = [PROMPT, GENERATED, WRITING, LAST_PROMPT, Positions(skip_ids=(1,)), Positions(only_ids=(1,))]
    assert not any(p.everywhere for p in others)


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        *NAMED_POSITIONS.items(),
        ("last:1", LAST_PROMPT),
        ("last:3", Positions(-3, 0)),
        ("-5:0", Positions(-5, 0)),
        (":2", Positions(None, 2)),
        ("1:", Positions(1, None)),
        (":", ALL),
    ],
)
def test_positions_are_read_from_text(text: str, positions: Positions) -> None:
    assert Positions.parse(text) == positions
    assert Positions.parse(str(positions)) == positions


@pytest.mark.parametrize("text", ["", "everything", "last:0", "last:-1", "last:x", "3:3", "4:1", "a:b", "1:2:3", "5"])
def test_other_text_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(SteerlabError, match="give one of all, prompt, last_prompt, generated, writing"):
        Positions.parse(text)


def test_positions_with_token_ids_say_so() -> None:
    assert str(Positions(-2, 3, only_ids=(4,), skip_ids=(1, 2))) == "-2:3 only [4] skip [1, 2]"


def test_a_site_is_the_output_of_a_block_unless_said_otherwise() -> None:
    assert Site(3) == Site(3, "resid_post") == (3, "resid_post")
    assert Site(3) != Site(3, "resid_pre")

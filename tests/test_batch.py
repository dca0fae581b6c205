"""Left padding, what positions mean, and batches planned from lengths alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlab.batch import Batch, left_pad, plan_batches

LENGTHS = st.lists(st.integers(0, 40), max_size=40)


def test_rows_end_together_and_positions_count_real_tokens_from_the_prompts_end() -> None:
    batch = left_pad([[7, 8, 9], [5]], pad_id=0, prompt_lengths=[2, 1])
    assert batch.input_ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert batch.real.tolist() == [[True, True, True], [False, False, True]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.relative.tolist()[0] == [-2, -1, 0]
    assert batch.relative[1, 2] == -1
    assert len(batch) == 2


def test_without_prompt_lengths_the_whole_row_is_prompt() -> None:
    batch = left_pad([[7, 8, 9], [5]], pad_id=0)
    assert batch.prompt_lengths.tolist() == [3, 1]
    assert batch.relative[:, -1].tolist() == [-1, -1]


def test_a_real_token_with_the_pad_id_stays_real() -> None:
    """pad = eos: a comparison of ids would drop the token."""
    batch = left_pad([[2, 9, 2], [9]], pad_id=2)
    assert batch.real.tolist() == [[True, True, True], [False, False, True]]
    assert (batch.input_ids != 2).tolist() != batch.real.tolist()
    assert batch.position_ids[0].tolist() == [0, 1, 2]


def test_an_empty_row_is_padding_throughout() -> None:
    assert left_pad([[], [4]], pad_id=0).real.tolist() == [[False], [True]]


def test_a_batch_moves_as_a_new_object() -> None:
    batch = left_pad([[1]], pad_id=0)
    moved = batch.to("meta")
    assert moved.input_ids.device.type == moved.prompt_lengths.device.type == "meta"
    assert batch.input_ids.device.type == "cpu"
    assert isinstance(moved, Batch)


@given(LENGTHS, st.integers(1, 120), st.none() | st.integers(1, 5))
def test_batches_hold_every_example_once_within_the_budget(lengths: list[int], budget: int, most: int | None) -> None:
    batches = plan_batches(lengths, budget, most)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert most is None or len(batch) <= most
    for first, second in pairwise(batches):  # no batch ends early without a reason
        longer = (len(first) + 1) * max(lengths[second[0]], 1) > budget
        assert longer or (most is not None and len(first) == most)


def test_examples_of_one_length_keep_their_order() -> None:
    assert plan_batches([3, 1, 3, 1, 3], 6) == [[1, 3], [0, 2], [4]]


def test_an_example_longer_than_the_budget_goes_alone() -> None:
    assert plan_batches([100, 2, 2], 10) == [[1, 2], [0]]


@pytest.mark.parametrize("lengths", [[], [5]])
def test_few_examples(lengths: list[int]) -> None:
    assert plan_batches(lengths, 10) == [[i] for i in range(len(lengths))]


def test_position_ids_of_a_padded_row_are_those_of_the_row_alone() -> None:
    rows = [[4, 5], [6, 7, 8, 9], [3]]
    batch = left_pad(rows, pad_id=0)
    for i, row in enumerate(rows):
        alone = left_pad([row], pad_id=0)
        assert torch.equal(batch.position_ids[i, -len(row) :], alone.position_ids[0])
        assert torch.equal(batch.relative[i, -len(row) :], alone.relative[0])

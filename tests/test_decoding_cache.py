"""The decode loop's cache: what transformers' own holds, without its copies."""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from steerlab.streams import RoomyLayer, roomy_cache
from tests.tiny import tiny


def test_a_roomy_layer_holds_what_transformers_own_holds_and_copies_nothing() -> None:
    ours, theirs, source = RoomyLayer(5), DynamicLayer(), torch.Generator().manual_seed(0)
    places = []
    for width in (4, 1, 1, 1):
        keys, values = (torch.randn(6, 2, width, 8, generator=source) for _ in range(2))
        got, want = ours.update(keys, values), theirs.update(keys, values)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()
        places.append(got[0].data_ptr())
    assert len(set(places)) == 1
    keep = torch.tensor([0, 4])
    ours.batch_select_indices(keep)
    theirs.batch_select_indices(keep)
    more = torch.randn(2, 2, 1, 8, generator=source)
    assert all(torch.equal(a, b) for a, b in zip(ours.update(more, more), theirs.update(more, more), strict=True))


def test_a_cache_keeps_transformers_layers_for_what_is_no_plain_attention() -> None:
    layers = {
        family: {type(layer) for layer in roomy_cache(tiny(family).hf.config, 3).layers}
        for family in ("llama", "gemma2")
    }
    assert layers == {"llama": {RoomyLayer}, "gemma2": {RoomyLayer, DynamicSlidingWindowLayer}}

"""Shards partition the work, claims never collide, and what one process leaves another takes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from steerlab import sharding
from steerlab.disk import take_lock
from steerlab.errors import SteerlabError
from steerlab.sharding import Parts, Shard

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "3"}


def test_a_shard_is_said_as_i_of_n_or_found_in_the_environment() -> None:
    assert Shard.parse("2/4") == Shard(1, 4) and Shard.parse("1/1").whole
    assert Shard.parse("auto", LAUNCHED) == Shard(1, 3, steal=True)
    for bad in ("0/2", "3/2", "x", "1/", "-1/2", ""):
        with pytest.raises(SteerlabError, match="is not i/n"):
            Shard.parse(bad, {})
    for environment in ({}, {"RANK": "0"}, {"RANK": "3", "WORLD_SIZE": "3"}):
        with pytest.raises(SteerlabError, match="start with torchrun"):
            Shard.parse("auto", environment)


def test_shards_partition_and_thieves_begin_with_their_own() -> None:
    items = tuple(range(11))
    parts = [Shard(i, 3).order(items) for i in range(3)]
    assert sorted(item for part in parts for item in part) == list(items)
    for i in range(3):
        order = Shard(i, 3, steal=True).order(items)
        assert sorted(order) == list(items) and order[: len(parts[i])] == parts[i]


def test_one_process_of_those_that_share_a_folder_leads() -> None:
    assert Shard().leads and Shard(0, 2, steal=True).leads
    assert not any(shard.leads for shard in (Shard(1, 2, steal=True), Shard(0, 2), Shard(1, 2)))


def test_every_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    shards = [Shard(i, 4, steal=True) for i in range(4)]
    assert [shard.device(None) for shard in shards] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert shards[1].device("cpu") == "cpu" and Shard().device(None) is None
    assert Shard(1, 2).device(None) is None  # 2/2 is alone on its machine
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert shards[3].device(None) == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert shards[1].device(None) is None


def test_two_processes_claim_different_parts_and_all_get_written(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", 5)
    claims = [parts.claim(Shard(i, 2, steal=True)) for i in range(2)]
    first, second = next(claims[0]), next(claims[1])
    assert (first, second) == (0, 1)
    parts.write(first, [{"text": "née\u2028"}])
    third = next(claims[0])
    parts.write(second, [])
    rest = []
    for claim in claims[::-1]:
        parts.write(third, [{"n": third}])
        for number in claim:
            rest.append(number)
            parts.write(number, [{"n": number}])
    assert sorted([first, second, third, *rest]) == list(range(5)) and parts.written() == 5
    assert parts.read(0) == [{"text": "née\u2028"}] and parts.read(1) == [] and Parts(tmp_path, 1).read(0) is None


def test_a_shard_claims_its_own_parts_only(tmp_path: Path) -> None:
    parts = Parts(tmp_path, 5)
    seen = []
    for number in parts.claim(Shard(1, 2)):
        seen.append(number)
        parts.write(number, [])
    assert seen == [1, 3] and list(parts.claim(Shard(1, 2))) == []


def test_what_a_dead_process_held_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path, 2)
    held = take_lock(tmp_path / "0.lock")
    waits = []

    def die(seconds: float) -> None:
        waits.append(seconds)
        os.close(held)

    monkeypatch.setattr(sharding.time, "sleep", die)
    seen = []
    for number in parts.claim(Shard(0, 1)):
        seen.append(number)
        parts.write(number, [])
    assert seen == [1, 0] and len(waits) == 1


def test_parts_from_elsewhere_are_taken_over_unless_they_differ(tmp_path: Path) -> None:
    here, there = Parts(tmp_path / "here", 3), Parts(tmp_path / "there", 3)
    here.write(0, [{"a": 1}])
    there.write(0, [{"a": 1}])
    there.write(2, [{"a": 3}])
    assert here.adopt(there.folder) == 1 and here.read(2) == [{"a": 3}] and here.written() == 2
    there.write(0, [{"a": 2}])
    with pytest.raises(SteerlabError, match="the machines compute differently"):
        here.adopt(there.folder)
    here.remove()
    assert here.written() == 0

"""Guided cells: negatives come from what earlier waves accepted, every batch size and every interruption ends with the same bytes,
and unguided cells are what they were.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from steerlab.cell_pools import Pools
from steerlab.cells import Cell, Guidance, Slot, waves
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.guidance import Guide, Schedule
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.negatives import Draw, Negative, Pool, join
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from steerlab.synthesis import DRAFTS, NEGATIVES, SAMPLES, Written, check, synthesize
from steerlab.tasks import Task
from tests.small_run import content
from tests.tiny import hf_model, tiny, tokenizer, vector

SETTINGS = Settings(max_new_tokens=8, temperature=1.0, top_p=1.0, top_k=10, stop=("\n",))
STEER = (Intervention(vector(1), (0, 2), strength=3.0),)
SHORT = Task("short", ("good", "bad"), "{label}{in_language}", "{label}{in_language}: {examples}")
REAL = {"good": ("a fine day", "what a view", "splendid"), "bad": ("rain again", "too late")}
LABELLED = Guidance(Guide(0.5, 0.8, "balanced"), Draw(4), REAL, refresh=2)
SHARED = Guidance(Guide(0.0, 0.6), Draw(3, "recent"), refresh=3)
CELLS = (
    Cell("plain", "jv", SHORT),
    Cell("vector", "jv", SHORT, STEER),
    Cell("guided", "jv", SHORT, guidance=LABELLED),
    Cell("both", "jv", SHORT, STEER, guidance=Guidance(Guide(0.2, 0.6), Draw(4), REAL, refresh=2, steered="all")),
    Cell("shared", "jv", SHORT, guidance=SHARED),
)
BASE: list[TracedModel] = []


def base() -> TracedModel:
    """Another model over the same tokens."""
    if not BASE:
        BASE.append(wrap(hf_model("llama", seed=5), tokenizer(), name="base"))
    return BASE[0]


def write(path: Path, cells: Sequence[Cell] = CELLS, **options: Any) -> Written:
    """One run from first to last, or on from where it was."""
    given = {"per_label": 4, "settings": SETTINGS, "batch_rows": 6, "max_tries": 3, "base": base(), **options}
    with RunFolder.open(path, {"cells": [cell.to_json() for cell in cells]}) as run:
        written = synthesize(tiny("llama"), cells, run, progress=False, **given)
        run.finish()
    return written


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guided") / "whole"
    write(folder)
    return folder


def test_waves_of_a_pool_hold_as_many_slots_as_it_refreshes_after() -> None:
    slots = [Slot(c, label, i) for c in (0, 2, 4) for label in SHORT.labels for i in range(5)]
    found = waves(CELLS, slots)

    def at(wave: int, cell: int) -> list[tuple[str, int]]:
        return [(slot.label, slot.index) for slot in found[wave] if slot.cell == cell]

    assert len(at(0, 0)) == 10 and all(not at(wave, 0) for wave in range(1, len(found)))
    assert at(0, 2) == [("good", 0), ("good", 1), ("bad", 0), ("bad", 1)]  # two for each label's own pool
    assert [len(at(wave, 2)) for wave in range(len(found))] == [4, 4, 2, 0]
    assert at(0, 4) == [("good", 0), ("good", 1), ("bad", 0)]  # three for the one pool, both labels in turn
    assert [len(at(wave, 4)) for wave in range(len(found))] == [3, 3, 3, 1]
    assert sum(map(len, found)) == len(slots) == len({slot for wave in found for slot in wave})
    assert waves(CELLS, []) == []


def test_rows_name_the_negatives_and_the_weights(whole: Path) -> None:
    rows = {
        name: [r for r in _rows(whole / SAMPLES) if r["condition"] == name]
        for name in ("plain", "vector", "guided", "both", "shared")
    }
    for name in ("plain", "vector"):
        assert rows[name] and all("guidance" not in row and "wave" not in row for row in rows[name])
    assert {
        (r["guidance"]["gamma"], r["guidance"]["eta"], r["guidance"]["form"], r["guidance"]["alpha"])
        for r in rows["guided"]
    } == {(0.5, 0.8, "balanced", 0.1)}
    assert all(r["interventions"] for r in rows["both"]) and not any(r["interventions"] for r in rows["guided"])
    starts = {row["id"]: row for row in _rows(whole / NEGATIVES) if row["pool"] == LABELLED.digest()}
    assert [(id, row["text"]) for id, row in starts.items()] == [
        (f"real/{label}/{i}", text) for label in REAL for i, text in enumerate(REAL[label])
    ]
    accepted = {f"{r['label']}/{r['index']}" for r in rows["guided"]}
    for row in rows["guided"]:
        ids = row["guidance"]["negatives"]
        assert len(ids) == len(set(ids)) == min(4, len(ids)) and set(ids) <= set(starts) | accepted
        assert all(id.removeprefix("real/").startswith(row["label"]) for id in ids)  # its own label's pool
    assert len([row for row in _rows(whole / NEGATIVES) if row["pool"] == LABELLED.digest()]) == 5


def test_negatives_are_real_texts_and_what_earlier_waves_accepted(whole: Path) -> None:
    """Walked by hand: the drafts in order, the pool as it was before each wave, and the draw from it."""
    samples = [r for r in _rows(whole / SAMPLES) if r["condition"] == "shared"]
    drafts = [r for r in _rows(whole / DRAFTS) if r["condition"] == "shared"]
    assert {(r["attempt"], r.get("wave", 0)) for r in drafts} >= {(0, 0), (0, 1), (0, 2)}
    taken = {(r["label"], r["index"], r["attempt"]): r["text"] for r in samples}
    pool: list[tuple[str, str]] = []
    for place in sorted({(r["attempt"], r.get("wave", 0)) for r in drafts}):
        own = [r for r in drafts if (r["attempt"], r.get("wave", 0)) == place]
        for row in own:
            want = [f"{label}/{i}" for (label, i) in reversed(pool[-3:])]
            assert row["guidance"]["negatives"] == want, place
        # In the order of the slots, which is that of the labels and then the numbers.
        own.sort(key=lambda r: (SHORT.labels.index(r["label"]), r["index"]) if place[0] == 0 else r["slot"])
        pool += [(r["label"], r["index"]) for r in own if (r["label"], r["index"], r["attempt"]) in taken]
    assert len(pool) == len(samples) > 5


def test_the_negatives_reach_the_stream(whole: Path) -> None:
    """The same run with another eta, or other negatives, writes other texts from the first wave that has any on."""
    texts = {name: {(r["label"], r["index"]): r["text"] for r in _rows(whole / SAMPLES) if r["condition"] == name and r["attempt"] == 0}
             for name in ("plain", "guided", "shared")}  # fmt: skip
    first = [("good", 0), ("good", 1), ("bad", 0)]  # an empty pool, gamma 0: nothing guides the first wave
    both = [place for place in first if place in texts["plain"] and place in texts["shared"]]
    assert both and all(texts["plain"][place] == texts["shared"][place] for place in both)
    assert any(texts["plain"].get(place) != text for place, text in texts["shared"].items())
    assert all(texts["plain"].get(place) != text for place, text in list(texts["guided"].items())[:2])


@pytest.mark.parametrize("size", [1, 64])
def test_the_batch_size_changes_nothing(whole: Path, tmp_path: Path, size: int) -> None:
    write(tmp_path / "run", batch_rows=size)
    assert (tmp_path / "run" / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()


def test_a_cell_is_written_alike_alone_and_among_others(whole: Path, tmp_path: Path) -> None:
    for cell in (CELLS[0], CELLS[2], CELLS[4]):
        alone = write(tmp_path / cell.condition, (cell,)).samples
        among = [r for r in _rows(whole / SAMPLES) if r["condition"] == cell.condition]
        assert sorted(alone, key=str) == sorted(among, key=str)


class Killed(BaseException):
    """What a kill looks like from inside."""


def _interrupted(path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> bool:
    """Run until batch number `at` of this process dies in the middle. False when it ended before."""
    seen, real = 0, TracedModel.decode

    def dying(self: TracedModel, batch: Any, pick: Any, *rest: Any, **more: Any) -> Any:
        nonlocal seen
        seen += 1

        def fatal(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
            if step == 1:
                raise Killed
            return pick(rows, history, logits, step)

        return real(self, batch, pick if seen <= at else fatal, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TracedModel, "decode", dying)
        try:
            write(path)
        except Killed:
            return True
    return False


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    while _interrupted(tmp_path / "run", monkeypatch, 1):
        kills += 1
    assert kills > 5
    assert content(tmp_path / "run") == content(whole)
    with monkeypatch.context() as patch:
        patch.setattr(TracedModel, "decode", None)  # a finished run generates nothing
        write(tmp_path / "run")
    assert content(tmp_path / "run") == content(whole)


def test_no_weight_writes_what_no_guidance_writes(tmp_path: Path) -> None:
    off = Cell("plain", "jv", SHORT, guidance=Guidance(Guide(0, 0), real=REAL, refresh=64))
    plain, same = (write(tmp_path / name, (cell,)).samples for name, cell in (("a", CELLS[0]), ("b", off)))
    assert [r["text"] for r in plain] == [r["text"] for r in same]
    assert {tuple(r["guidance"]["negatives"]) for r in same} == {()}  # type: ignore[index]


def test_classifier_free_guidance_needs_no_other_model(tmp_path: Path) -> None:
    free = Cell("free", "jv", SHORT, guidance=Guidance(Guide(1.5, 0), base_prompt=""))
    texts = [r["text"] for r in write(tmp_path / "free", (free,), base=None).samples]
    assert texts != [r["text"] for r in write(tmp_path / "plain", (CELLS[0],), base=None).samples]


def _guidance(**changes: Any) -> Cell:
    return Cell("g", "jv", SHORT, guidance=Guidance(**{"guide": Guide(0, 0.6), "real": REAL, **changes}))


def test_negatives_keep_within_the_context_and_the_record_says_which() -> None:
    long = tuple(f"{'x' * 60}{i}" for i in range(9))
    model, slot, key = tiny("llama"), Slot(0, "good", 0), ("k",)
    pools = {
        tokens: Pools(model, [_guidance(real={"good": long}, tokens=tokens)], 3, room=56) for tokens in (None, 130, 5)
    }
    order = [
        one.id for one in Pool([Negative(f"real/good/{i}", t, True) for i, t in enumerate(long)]).draw(Draw(), 3, key)
    ]
    for tokens, kept in ((None, 3), (130, 2), (5, 0)):  # 1 BOS, 61 bytes each and a space between; 256 - 56 positions
        guided, told = pools[tokens].guided(slot, key)
        assert guided is not None and told["negatives"] == order[:kept]
        assert guided.negative == " ".join(long[int(id.rsplit("/")[-1])] for id in order[:kept])
        assert len(model.token_rows([guided.negative or "a"])[0]) <= 200
    assert join([], 1, len) == ("", [])


def test_hidden_states_choose_negatives_too() -> None:
    model = tiny("llama")
    pools = Pools(model, [_guidance(embed="hidden", draw=Draw(2, "nearest"))], 0, 8)
    _, told = pools.guided(Slot(0, "good", 0), ("k",))
    pools.accept(Slot(0, "good", 1), "splendid indeed")
    _, after = pools.guided(Slot(0, "good", 0), ("k",))
    assert len(told["negatives"]) == len(after["negatives"]) == 2  # type: ignore[arg-type]
    assert after["negatives"][0] == "good/1" and after != told  # type: ignore[index]


def test_pools_start_from_real_from_synthetic_or_empty() -> None:
    starts = {
        "real": {"real": ("a", "b"), "synthetic": ()},
        "earlier": {"real": (), "synthetic": ("c",)},
        "none": {"real": ()},
    }
    found = {
        name: Pools(tiny("llama"), [_guidance(**given)], 0, 8).guided(Slot(0, "bad", 0), ("k",))[1]["negatives"]
        for name, given in starts.items()
    }
    assert {name: set(map(str, ids)) for name, ids in found.items()} == {  # type: ignore[call-overload]
        "real": {"real/0", "real/1"},
        "earlier": {"earlier/0"},
        "none": set(),
    }  # type: ignore[arg-type]


def test_the_config_tells_guidance_apart() -> None:
    plain = Cell("g", "jv", SHORT).to_json()
    assert "guidance" not in plain
    ones = [
        _guidance(), _guidance(guide=Guide(0.1, 0.6)), _guidance(draw=Draw(3)), _guidance(real={"good": ("a",)}), _guidance(real=("a",)),
        _guidance(synthetic={"good": ("a",)}), _guidance(refresh=8), _guidance(tokens=9), _guidance(base_prompt=""),
        _guidance(steered="all"), _guidance(embed="hidden"), _guidance(guide=Guide(0, 0.6, eta_when=Schedule("decaying"))),
    ]  # fmt: skip
    told = [json.dumps(cell.to_json(), sort_keys=True) for cell in ones]
    assert len(set(told)) == len(told)
    assert (
        json.dumps(_guidance(real={label: list(texts) for label, texts in REAL.items()}).to_json(), sort_keys=True)
        == told[0]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"refresh": 0}, "refresh 0 and tokens None were given: give at least 1"),
        ({"tokens": 0}, "tokens 0 were given"),
        ({"steered": "some"}, "steered 'some'"),
        ({"embed": "words"}, "embed 'words'"),
        ({"real": REAL, "synthetic": ("a",)}, "or both are mappings by label"),
        ({"real": "a text"}, "are sequences of texts"),
    ],
)
def test_guidance_that_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        Guidance(**given)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (_guidance(guide=Guide(0.2, 0)), "gamma is 0.2 and there is no base"),
        (_guidance(real={"ugly": ("a",)}), "has real negatives of the label 'ugly': its labels are good, bad"),
        (_guidance(guide=Guide(1, 0), base_prompt="z" * 250), "need .* positions"),
    ],
)
def test_guidance_that_cannot_be_given_is_refused_before_anything_is_written(cell: Cell, message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        check(tiny("llama"), [cell], 1, SETTINGS, 4, 1)

"""Dose-response: every arm beside unsteered and random directions of its length, nothing written twice, dose 0 the unsteered model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steerlab.ablation import Arm, sweep
from steerlab.ablation.dose import Design, DoseResponse, distinct_arms, dose_response
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from tests.tiny import tiny, vector

PROMPTS = ("Tell me of the river.", "Say it again.")
SETTINGS = Settings(max_new_tokens=8, stop=(), seed=3)
VECTORS = {"jv": vector(0), "mt": vector(1)}


def test_every_cell_has_the_vector_and_its_random_directions() -> None:
    design = Design(VECTORS, (0, 2), {"add": (0.5, 1.0), "rotate": (0.4,), "ablate": (1,)}, directions=3)
    places = design.places()
    assert len(places) == 2 * (1 + 2 * 4 * (1 + 3))
    for place in places:
        assert (place.arm == "unsteered") == (place.interventions == ())
        for one in place.interventions:
            assert one.at == (place.cell.layer,) and one.operator == place.cell.operator
            length = one.strength * (place.cell.layer + 1 if one.operator == "add" else 1)
            assert (
                one.numbers(place.cell.layer)[0] == length
            )  # the vectors record layer + 1 as the norm, random ones too
            same = torch.equal(one.vector.direction, VECTORS[place.cell.vector].direction)
            assert same == (place.arm == "vector")
    rows = {(p.cell, p.arm, p.direction) for p in places}
    assert len(rows) == len(places)


def test_what_is_the_same_is_written_once() -> None:
    """Unsteered for all vectors, strength 0 of any, and random directions of one length; the vectors' own arms never."""
    design = Design(VECTORS, (0, 2), (0.0, 0.5), directions=2)
    arms, which = distinct_arms(design.places())
    assert len(arms) == 1 + 2 * 2 + 2 * 2
    assert [len(arm.interventions) for arm in arms].count(0) == 1
    assert len(which) == len(design.places()) and set(which) == set(range(len(arms)))
    other = Design({"jv": vector(0), "raw": vector(1)}, (0,), (0.5,), unit="raw", directions=1)
    assert len(distinct_arms(other.places())[0]) == 1 + 2 + 1
    assert len(Design(VECTORS, (2, 2), (0.5, 0.5)).places()) == len(Design(VECTORS, (2,), (0.5,)).places())


@pytest.fixture(scope="module")
def response() -> DoseResponse:
    design = Design(VECTORS, (0, 2), {"add": (0.0, 3.0), "rotate": (0.7,)}, directions=2)
    return dose_response(
        tiny("llama"), design, PROMPTS, 3, SETTINGS, targets={"jv": "jv"}, texts=("the river", "a town"), labels=("a", "b"),
        judge=lambda own: ["a"] * len(own), batch_rows=16,
    )  # fmt: skip


def _value(response: DoseResponse, **where: Any) -> Any:
    own: Any = response.table
    for name, value in where.items():
        own = own[own[name] == value]
    assert len(own) == 1
    return own.iloc[0]


def test_texts_are_those_of_a_plain_sweep(response: DoseResponse) -> None:
    place = next(
        p for p in response.design.places() if p.cell[1:] == ("add", 2, 3.0) and p.arm == "random" and p.direction == 1
    )
    want = sweep(tiny("llama"), [Arm("x", place.interventions)], PROMPTS, 3, SETTINGS)["text"].tolist()
    own = response.texts.query(
        "vector == 'jv' and operator == 'add' and layer == 2 and strength == 3 and arm == 'random'"
    )
    assert own[own["direction"] == 1]["text"].tolist() == want
    plain = response.texts.query("vector == 'mt' and arm == 'unsteered'")
    assert len(plain) == 6 and set(plain["text"]).isdisjoint(want)


def test_a_dose_of_nothing_changes_nothing(response: DoseResponse) -> None:
    for measure in ("log_perplexity", "distinct_2", "tokens", "agreement"):
        for against in ("unsteered", "random"):
            row = _value(
                response,
                vector="jv",
                operator="add",
                layer=2,
                strength=0.0,
                measure=measure,
                arm="vector",
                against=against,
            )
            assert row["value"] == 0
    still = _value(
        response, vector="jv", operator="add", layer=2, strength=0.0, measure="kl", arm="vector", against="nothing"
    )
    moved = _value(
        response, vector="jv", operator="add", layer=2, strength=3.0, measure="kl", arm="vector", against="nothing"
    )
    assert still["value"] < 1e-6 < moved["value"]


def test_the_table_is_tidy_and_has_maps(response: DoseResponse) -> None:
    keys = ["vector", "operator", "layer", "strength", "measure", "arm", "against"]
    assert not response.table.duplicated(keys).any()
    found = response.map("log_perplexity", "jv")
    assert found.shape == (2, 2) and list(found.columns) == [0.0, 3.0] and list(found.index) == [0, 2]
    plain = _value(response, vector="jv", measure="log_perplexity", arm="unsteered")["value"]
    assert found.loc[0, 0.0] == plain != found.loc[0, 3.0]
    assert response.map("kl", operator="rotate").shape == (2, 1)
    assert "in_target" not in set(response.table.query("vector == 'mt'")["measure"])  # no target was given for it
    with pytest.raises(SteerlabError, match="measures are"):
        response.map("in_target", "mt")


def test_prompts_can_be_taken_apart(response: DoseResponse) -> None:
    half = response.subset([1])
    assert set(half.texts["prompt"]) == {1} and half.map("tokens").shape == response.map("tokens").shape
    assert half.map("kl").equals(response.map("kl"))
    with pytest.raises(SteerlabError, match="give some of 0 to 1"):
        response.subset([7])


def test_a_notebook_shows_maps_beside_the_unsteered_model(response: DoseResponse) -> None:
    page = response._repr_html_()
    assert page.count("<h4>") == 2 and "rotate; unsteered" in page and "KL of the next token" in page
    assert "nan" not in page.lower()


def test_designs_without_sense_are_refused() -> None:
    for wrong in ({"vectors": {}}, {"layers": ()}, {"strengths": ()}, {"directions": -1}):
        with pytest.raises(SteerlabError, match="give at least one vector, layer and strength"):
            Design(**{"vectors": VECTORS, "layers": (0,), "strengths": (0.5,), **wrong})  # pyright: ignore
    with pytest.raises(SteerlabError, match="no direction at layer 9"):
        Design(VECTORS, (9,), (0.5,)).places()
    design = Design(VECTORS, (0,), (0.5,))
    with pytest.raises(SteerlabError, match="no prompts were given"):
        dose_response(tiny("llama"), design, ())
    with pytest.raises(SteerlabError, match=r"targets were given for \['su'\]"):
        dose_response(tiny("llama"), design, PROMPTS, 1, SETTINGS, targets={"su": "su"})

"""A vector shows itself in a notebook: every layer with its norms, where it came from, and nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from steerlab.choice import Choice
from steerlab.provenance import Provenance
from steerlab.vectors import SteeringVector
from tests.tiny import vector

EVIL = '<script>alert("1")</script>&'


class _Balanced(HTMLParser):
    """Every tag that is opened is closed, in order; the texts between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _read(one: SteeringVector) -> _Balanced:
    page = _Balanced()
    page.feed(one._repr_html_())
    assert page.open == []
    return page


def test_every_layer_stands_with_its_norms() -> None:
    one = vector(0).select((0, 2, 3))
    texts = _read(one).texts
    assert texts[0] == "v0" and texts[2] == "(resid_post, width 32)"
    counted = _read(replace(one, counts=(120.0, 80.5))).texts[2]
    assert counted == "(resid_post, width 32, fitted on a weight of 120 against 80.5)"
    cells = [text for text in texts if re.fullmatch(r"[\d.]+|–", text)]
    wanted = [
        text
        for layer, raw, norm in zip(one.layers, one.raw_norm.tolist(), one.residual_norm.tolist(), strict=True)
        for text in (str(layer), f"{raw:.4g}", f"{norm:.4g}", f"{raw / norm:.3f}")
    ]
    assert cells == wanted
    widths = [float(w) for w in re.findall(r"width:([\d.]+)em", one._repr_html_())]
    ratio = (one.raw_norm / one.residual_norm).clamp(max=2)
    torch.testing.assert_close(torch.tensor(widths), 8 * ratio, atol=0.06, rtol=0)


def test_what_is_not_known_is_a_dash_and_what_is_not_recorded_is_said() -> None:
    one = replace(vector(0), residual_norm=torch.full((4,), float("nan")))
    page = _read(one)
    assert page.texts.count("–") == 8 and ">nan<" not in one._repr_html_()
    assert "no provenance recorded" in page.texts and "details" not in page.tags


def test_provenance_and_choice_are_told() -> None:
    facts = Provenance(
        model="polyglot-mini",
        method="language_vectors",
        data=(("ntrex jv", "ab" * 32),),
        seed=0,
        versions=(("torch", "2.13.0"),),
    )
    one = replace(vector(0), provenance=facts, choice=Choice((1, 2), 0.5))
    texts = _read(one).texts
    assert "language_vectors polyglot-mini" in texts and "abababababab…" in texts and "2.13.0" in texts and "0" in texts
    assert "best used: add 0.5 (residual) at layer 1, 2, all tokens" in texts


@pytest.mark.parametrize("field", ["name", "model", "method", "data", "versions", "revision"])
def test_nothing_is_let_through_unescaped(field: str) -> None:
    evil: Any = ((EVIL, EVIL),) if field in ("data", "versions") else EVIL
    one = (
        replace(vector(0), name=EVIL) if field == "name" else replace(vector(0), provenance=Provenance(**{field: evil}))
    )
    page = _read(one)
    assert "script" not in page.tags and EVIL in "".join(page.texts) and "<script" not in one._repr_html_()


def test_the_view_is_no_field() -> None:
    assert "_repr_html_" not in {field.name for field in fields(SteeringVector)}

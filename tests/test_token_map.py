"""Token maps say what the forward pass does, in any batch, and show any text without letting it act."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console

from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.provenance import Provenance
from steerlab.steering import Gate, Intervention, Plan
from steerlab.token_map import Token, TokenMap, map_batch, token_map
from steerlab.token_view import visible
from steerlab.types import ALL, GENERATED, LAST_PROMPT, PROMPT, WRITING, Positions, Site
from tests.tiny import CORE, tiny, vector

TEXTS = ["the river is wide", "no", "a longer text of the same kind"]
NASTY = "<script>alert('x')</script> & [bold]b[/bold] שלום \u0301a \u202eevil 😀 \x00 \x1b[31m \u200d"


def _tokens(mapped: TokenMap) -> list[Token]:
    return [token for text in mapped.texts for token in text.tokens]


@pytest.mark.parametrize("family", CORE)
def test_the_size_is_how_far_the_pass_moved_the_stream(family: str) -> None:
    model, push = tiny(family), Intervention(vector(0), (1, 3), strength=2.5)
    mapped = token_map(model, TEXTS, [push])
    batch = model.encode(TEXTS)
    compiled = model.compile(Plan.uniform([push], 3)).groups  # one Shift at each layer
    first = model.forward(batch, read=[Site(1)])[Site(1)]
    third = model.forward(batch, read=[Site(3)], edit={Site(1): lambda h: h + 2.5 * vector(0).at(1)})[Site(3)]
    assert set(compiled) == {Site(1), Site(3)}
    for row, text in enumerate(mapped.texts):
        at = batch.real[row].nonzero()[:, 0].tolist()
        assert [t.id for t in text.tokens] == batch.input_ids[row, at].tolist()
        for s, token in zip(at, text.tokens, strict=True):
            early, late = token.marks
            assert (early.layer, late.layer, early.strength, late.share) == (1, 3, 2.5, 2.5 / 4)
            assert early.size == pytest.approx(2.5 / float(first[row, s].norm()), rel=1e-4)
            assert late.size == pytest.approx(2.5 / float(third[row, s].norm()), rel=1e-4)
            assert token.size == pytest.approx(max(early.size, late.size), rel=1e-4) and token.steered


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ablation_moves_a_token_by_its_cosine(dtype: torch.dtype) -> None:
    model = tiny("llama", dtype)
    mapped = token_map(model, TEXTS, [Intervention(vector(1), 2, operator="ablate")])
    near = 1e-5 if dtype == torch.float32 else 1e-2
    assert len(_tokens(mapped)) == sum(len(row) for row in model.token_rows(TEXTS))
    for token in _tokens(mapped):
        (mark,) = token.marks
        assert mark.size == pytest.approx(abs(mark.cosine), abs=near) and math.isnan(mark.share)


def test_a_left_padded_row_is_mapped_as_alone() -> None:
    model = tiny("llama")
    rows = (
        (Intervention(vector(0), 1, strength=1.0), Intervention(vector(1), 2, operator="rotate", strength=0.3)),
        (),
        (Intervention(vector(2), (0, 1), operator="match", target=0.5, unit="residual"),),
    )
    together = token_map(model, TEXTS, Plan(rows)).texts
    for text, own, row in zip(TEXTS, together, rows, strict=True):
        alone = token_map(model, [text], list(row)).texts[0]
        assert [t.piece for t in alone.tokens] == [t.piece for t in own.tokens]
        assert alone.interventions == own.interventions
        for a, b in zip(alone.tokens, own.tokens, strict=True):
            assert [(m.intervention, m.layer) for m in a.marks] == [(m.intervention, m.layer) for m in b.marks]
            assert [m.share for m in a.marks] == pytest.approx([m.share for m in b.marks], nan_ok=True)
            assert [m.size for m in a.marks] == pytest.approx([m.size for m in b.marks], abs=1e-4)
    assert all(not token.marks and token.size == 0 for token in together[1].tokens)
    assert {m.share for token in together[2].tokens for m in token.marks} == {0.5}


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (ALL, lambda p: True),
        (PROMPT, lambda p: p < 0),
        (LAST_PROMPT, lambda p: p == -1),
        (GENERATED, lambda p: p >= 0),
        (WRITING, lambda p: p >= -1),
    ],
)
def test_positions_are_counted_from_the_end_of_the_rendered_prompt(positions: Positions, expected: object) -> None:
    assert callable(expected)
    model = tiny("llama")
    prompts, answers = ["say", "say it again"], ["yes it is", "no"]
    push = Intervention(vector(0), 1, strength=3.0, positions=positions)
    mapped = token_map(model, prompts, [push], answers, chat=True)
    for text, answer in zip(mapped.texts, answers, strict=True):
        places = [token.position for token in text.tokens]
        assert places == list(range(places[0], len(answer)))  # one token per byte
        assert text.tokens[-len(answer) - 1].piece == "<|assistant|>"
        for token in text.tokens:
            assert token.steered == expected(token.position) == (token.size > 0)


def test_a_closed_gate_keeps_the_token_and_says_so() -> None:
    model, v = tiny("llama"), vector(0)
    open_, shut = (
        token_map(model, TEXTS, [Intervention(v, 2, strength=4.0, gate=gate)]) for gate in (Gate(-1.0), Gate(1.0))
    )
    assert all(token.steered and not token.gated for token in _tokens(open_))
    assert all(token.gated and not token.steered and token.size == 0 for token in _tokens(shut))
    cosines = sorted(mark.cosine for token in _tokens(open_) for mark in token.marks)
    middle = (cosines[len(cosines) // 2] + cosines[len(cosines) // 2 - 1]) / 2
    some = token_map(model, TEXTS, [Intervention(v, 2, strength=4.0, gate=Gate(middle, above=False))])
    for token in _tokens(some):
        (mark,) = token.marks
        assert mark.open == (mark.cosine < middle) == (mark.size > 0)
    assert {token.gated for token in _tokens(some)} == {True, False}
    assert "the gate kept" in "".join(_said(some))


def test_interventions_at_one_site_act_one_after_another() -> None:
    v = vector(0)
    out, back = Intervention(v, 1, operator="ablate"), Intervention(v, 1, strength=3.0)
    for token in _tokens(token_map(tiny("qwen2"), TEXTS, [out, back])):
        gone, pushed = token.marks
        assert abs(gone.cosine) > 1e-4 and abs(pushed.cosine) < 1e-5
        assert gone.size > 0 and pushed.size > 0
    for token in _tokens(token_map(tiny("qwen2"), TEXTS, [back, replace(back, strength=-3.0)])):
        assert min(mark.size for mark in token.marks) > 0 and token.size == 0  # they cancel


def test_no_intervention_and_strength_zero_mark_nothing() -> None:
    for plan in ([], [Intervention(vector(0), 1, strength=0.0)]):
        assert not any(token.marks for token in _tokens(token_map(tiny("llama"), TEXTS, plan)))


def test_read_tokens_are_those_of_capture() -> None:
    model, v = tiny("llama"), vector(0)
    assert all(not token.read for token in _tokens(token_map(model, TEXTS, [Intervention(v, 1)])))
    recorded = replace(v, provenance=Provenance(positions="last:2"))
    for text in token_map(model, TEXTS, [Intervention(recorded, 1)]).texts:
        assert [token.read for token in text.tokens[-2:]] == [("v0",), ("v0",)]
        assert not any(token.read for token in text.tokens[:-2])
    for text in token_map(model, TEXTS, read="all").texts:
        assert [bool(token.read) for token in text.tokens] == [False] + [True] * (len(text.tokens) - 1)  # BOS
    strange = replace(v, provenance=Provenance(positions=": only [5]"))
    with pytest.raises(SteerlabError, match="say where with read"):
        token_map(model, TEXTS, [Intervention(strange, 1)])


def test_generated_tokens_are_mapped_as_they_are() -> None:
    model, push = tiny("llama"), Intervention(vector(0), 1, strength=3.0, positions=GENERATED)
    written = generate(model, [Request("say", ("k",), (push,))], Settings(max_new_tokens=6, stop=()))[0]
    head = model.token_rows(["say"], chat=True)[0]
    batch = left_pad([[*head, *written.tokens]], model.pad_id, [len(head)])
    (text,) = map_batch(model, Plan(((push,),)), batch).texts
    assert tuple(t.id for t in text.tokens if t.position >= 0) == written.tokens
    assert [t.position for t in text.tokens if t.steered] == list(range(len(written.tokens)))


def test_wrong_rows_and_layers_are_refused() -> None:
    with pytest.raises(SteerlabError, match="2 rows, but there are 3 texts"):
        token_map(tiny("llama"), TEXTS, Plan.none(2))
    with pytest.raises(SteerlabError, match="layers 0 to 3"):
        token_map(tiny("llama"), TEXTS, [Intervention(vector(0, layers=9), 8)])
    with pytest.raises(SteerlabError, match="width 8"):
        token_map(tiny("llama"), TEXTS, [Intervention(vector(0, width=8), 1)])


def _said(mapped: TokenMap) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=300, color_system=None).print(mapped)
    return file.getvalue().splitlines(keepends=True)


class _Page(HTMLParser):
    """The tags of a page, and the text of its spans."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.spans: list[str] = []
        self.titles: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "span":
            self.spans.append("")
            self.titles.append(str(dict(attrs)["title"]))

    def handle_data(self, data: str) -> None:
        if self.spans and self.tags[-1] == "span":
            self.spans[-1] += data


@pytest.fixture
def nasty() -> TokenMap:
    named = replace(vector(0), name="\"><b onclick='x'>\x1b[31m&amp;", provenance=Provenance(positions="all"))
    return token_map(tiny("llama"), [NASTY], [Intervention(named, 1, strength=2.0, gate=Gate(0.0))])


def test_a_page_holds_every_token_and_no_tag_of_the_text(nasty: TokenMap, tmp_path: Path) -> None:
    page = nasty.save(tmp_path / "deep" / "map.html").read_bytes().decode("utf-8")
    assert page.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in page
    seen = _Page(page)
    assert set(seen.tags) <= {"html", "head", "meta", "title", "body", "div", "span", "ul", "li"}
    assert seen.spans == [visible(token.piece) for token in _tokens(nasty)]
    assert all("\"><b onclick='x'>" in title for title, t in zip(seen.titles, _tokens(nasty), strict=True) if t.marks)
    assert not any((ord(c) < 32 and c != "\n") or c in "\u202e\u200d" for c in page)
    assert nasty._repr_html_() in page


def test_the_terminal_gets_no_control_and_no_markup(nasty: TokenMap) -> None:
    said = "".join(_said(nasty))
    assert "\x1b" not in said and "\x00" not in said and "\u202e" not in said
    pieces = [f"[{visible(t.piece)}]" if t.gated else visible(t.piece) for t in _tokens(nasty)]
    assert "".join(pieces) in said.replace(" ", "").replace("\n", "")
    plain = token_map(tiny("llama"), ["[bold]b[/bold]"])
    assert "[ b o l d ] b [ / b o l d ]" in "".join(_said(plain))


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("\u0301a", "◌\u0301a"),
        ("a\u0301", "a\u0301"),
        ("\x00", "\\x00"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("😀", "😀"),
        ("ש", "ש"),
        ("", ""),
    ],
)
def test_pieces_are_visible_and_harmless(piece: str, shown: str) -> None:
    assert visible(piece) == shown


def test_the_table_has_a_row_for_every_token_intervention_and_layer() -> None:
    table = token_map(
        tiny("llama"), TEXTS, [Intervention(vector(0), (1, 2), strength=1.0, positions=LAST_PROMPT)]
    ).table()
    steered = table[table["open"]]
    assert steered["layer"].tolist() == [1, 2] * 3 and steered["position"].tolist() == [-1] * 6
    assert len(table) == sum(len(row) for row in tiny("llama").token_rows(TEXTS)) + 3
    assert set(table[~table["open"]]["moved"].tolist()) == {0.0}


def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SteerlabError):
        token_map(tiny("llama"), ["a"]).save(tmp_path / "file" / "map.html")

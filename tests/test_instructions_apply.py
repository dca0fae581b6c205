"""Matching puts every position where it says and nothing else elsewhere, cached as uncached; strength 0 is bitwise unsteered."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from steerlab.batch import left_pad
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.generation import Request, Settings, generate
from steerlab.instructions import CHAT, QA, Application, ask, fit_instructions, projections, target
from steerlab.model import TracedModel
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.instruct import FAMILIES, pairs, prompts
from tests.tiny import tiny, vector

SETTINGS = Settings(max_new_tokens=10, greedy=True, stop=())
CELL = Cell(1)


def fitted(family: str) -> dict[str, SteeringVector]:
    return fit_instructions(tiny(family), pairs(4))


def uncached(
    model: TracedModel, row: list[int], interventions: tuple[Intervention, ...], steps: int
) -> tuple[int, ...]:
    """Greedy decoding that reads the whole text anew for every token, edits at every position, as the authors do."""
    plan = model.compile(Plan.uniform(interventions, 1))
    tokens = list(row)
    for _ in range(steps):
        batch = left_pad([tokens], model.pad_id, [len(row)])
        context = TokenContext(batch.relative, batch.input_ids, batch.real)
        edit = {site: lambda h, site=site, context=context: plan.edit(site, h, context) for site in plan.sites}
        logits = model.forward(batch, edit=edit, logits=True).logits
        assert logits is not None
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] == 2:
            break
    return tuple(tokens[len(row) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_after_matching_every_position_projects_to_the_mean_and_the_rest_is_unchanged(family: str) -> None:
    model, own = tiny(family), next(iter(fitted(family).values()))
    batch = model.encode(["a short text", "and a text of some more words"], chat=True)
    plan = model.compile(Plan.uniform(Application().at(own, CELL), 2))
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    before = model.forward(batch, read=[Site(1)])[Site(1)]
    after = model.forward(batch, read=[Site(1)], edit={Site(1): lambda h: plan.edit(Site(1), h, context)})[Site(1)]
    v, goal = own.at(1), projections(own).instructed[1]
    along = (after @ v)[batch.real]
    torch.testing.assert_close(along, torch.full_like(along, goal), rtol=1e-4, atol=1e-4)
    rest = [h - (h @ v)[..., None] * v for h in (before, after)]
    torch.testing.assert_close(rest[0][batch.real], rest[1][batch.real], rtol=1e-4, atol=1e-4)
    assert ((before @ v)[batch.real] - goal).abs().min() > 1e-3
    torch.testing.assert_close(plan.edit(Site(1), after, context)[batch.real], after[batch.real], rtol=1e-4, atol=1e-4)
    assert torch.equal(after[~batch.real], before[~batch.real])


@pytest.mark.parametrize("kind", ["match", "match_up", "add", "subtract"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_and_batched_equals_uncached_alone(family: str, kind: str) -> None:
    model, vectors = tiny(family), fitted(family)
    application = Application(kind)  # type: ignore[arg-type]
    rows = prompts(2)
    cells = [Cell(layer, 2.0 if application.matches else 6.0) for layer in (0, 2, 3)]
    asked = [
        ask(row, CHAT, i % 2 == 0, application.at(vectors[row.cells[0]], cells[i % 3])) for i, row in enumerate(rows)
    ]
    together = generate(model, asked, SETTINGS, batch_rows=len(asked))
    for request, sample in zip(asked, together, strict=True):
        (row,) = model.token_rows([request.prompt], chat=True)
        assert uncached(model, row, request.interventions, 10) == sample.tokens
    unsteered = generate(model, [replace(request, interventions=()) for request in asked], SETTINGS)
    assert any(a.tokens != b.tokens for a, b in zip(together, unsteered, strict=True))


def test_strength_zero_and_no_cell_are_bitwise_unsteered() -> None:
    own = next(iter(fitted("llama").values()))
    for kind in ("match", "match_up", "add", "subtract"):
        application = Application(kind)  # type: ignore[arg-type]
        assert application.at(own, None) == application.at(own, Cell(1, 0.0)) == ()


def test_a_strength_says_how_far_towards_the_instructed_mean() -> None:
    own = next(iter(fitted("llama").values()))
    two = projections(own)
    assert target(own, 2) == pytest.approx(two.instructed[2])
    assert target(own, 2, 0.0) == pytest.approx(two.bare[2])
    assert target(own, 2, 2.0) - target(own, 2) == pytest.approx(float(own.raw_norm[2]), rel=1e-4)
    (push,) = Application("match_up", cap=0.2, gate=Gate(0.1)).at(own, Cell(2, 0.5))
    assert (push.operator, push.target, push.cap, push.gate) == ("match_up", target(own, 2, 0.5), 0.2, Gate(0.1))


def test_subtracting_is_adding_the_other_way() -> None:
    own = next(iter(fitted("llama").values()))
    (away,), (push,) = (Application(kind, "residual").at(own, Cell(1, 0.3)) for kind in ("subtract", "add"))
    assert away == replace(push, strength=-0.3) and push.unit == "residual"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SteerlabError, match="has no projections"):
        Application().at(vector(0), CELL)
    made = inspect.unwrap(Application.__init__)
    with pytest.raises(SteerlabError, match="application 'pull' is not known"):
        made(object.__new__(Application), "pull")
    with pytest.raises(SteerlabError, match="unit 'residual'"):
        made(object.__new__(Application), "match", "residual")
    with pytest.raises(SteerlabError, match="no direction at layer 9"):
        Application().at(next(iter(fitted("llama").values())), Cell(9))


def test_a_request_shows_the_instruction_or_the_base_query_and_shares_its_noise() -> None:
    (row, *_) = prompts(1)
    shown, bare, guided = ask(row, QA, True), ask(row, QA, False), ask(row, QA, True, scale=1.5)
    assert shown.prompt == f"Q: {row.prompt}\nA:" and bare.prompt == f"Q: {row.base}\nA:" and not shown.chat
    assert shown.key == bare.key == guided.key
    assert guided.guided is not None and guided.guided.base_prompt == bare.prompt
    assert guided.guided.guide.gamma == pytest.approx(0.5) and guided.guided.guide.eta == 0
    assert Request(row.prompt, shown.key).chat == ask(row, CHAT, True).chat

"""The algebra of vectors, what they refuse, and files that come back bit for bit or not at all."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector
from tests.made import LAYERS, PROVENANCE, D
from tests.made import made_vector as _vector
from tests.made import raw as _raw
from tests.made import whole as _whole


def test_a_vector_is_unit_direction_times_raw_norm() -> None:
    vector = _vector()
    torch.testing.assert_close(vector.direction.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(_whole(vector), _raw())
    assert torch.equal(vector.at(2), vector.direction[1])
    assert (vector.d_model, vector.norm_at(5)) == (D, 40.0)
    assert vector.direction.dtype == torch.float32


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_row_without_a_direction_is_an_error_naming_its_layer(bad: float) -> None:
    raw = _raw()
    raw[1] = bad
    with pytest.raises(SteerlabError, match="at layer 2"):
        SteeringVector.from_raw("v", raw, LAYERS)


def test_what_is_not_unit_or_does_not_fit_is_refused() -> None:
    vector = _vector()
    with pytest.raises(SteerlabError, match="no finite unit direction with a positive raw norm at layer 5"):
        replace(vector, direction=vector.direction * torch.tensor([1.0, 1.0, 1.1])[:, None])
    with pytest.raises(SteerlabError, match="positive raw norm at layer 0"):
        replace(vector, raw_norm=torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(SteerlabError, match="one row per layer"):
        replace(vector, layers=(0, 2))
    with pytest.raises(SteerlabError, match="occur once"):
        replace(vector, layers=(0, 2, 2))
    with pytest.raises(SteerlabError, match="0 or more"):
        replace(vector, layers=(-1, 2, 5))


def test_a_layer_without_a_direction_lists_those_there_are() -> None:
    with pytest.raises(SteerlabError, match="no direction at layer 1: it has layers 0, 2, 5"):
        _vector().at(1)
    many = SteeringVector.from_raw("v", _raw(n=5), (0, 1, 2, 4, 5))
    with pytest.raises(SteerlabError, match="it has layers 0-2, 4-5"):
        many.raw(3)


def test_the_residual_norm_is_missing_and_not_zero_when_it_was_not_measured() -> None:
    vector = SteeringVector.from_raw("v", _raw(), LAYERS)
    assert vector.residual_norm.isnan().all()
    with pytest.raises(SteerlabError, match="does not record the residual norm at layer 2"):
        vector.norm_at(2)


def test_sums_and_differences_act_on_the_raw_rows() -> None:
    a, b = _vector(1), _vector(2)
    torch.testing.assert_close(_whole(a + b), _raw(1) + _raw(2))
    torch.testing.assert_close(_whole(a - b), _raw(1) - _raw(2))
    torch.testing.assert_close(_whole(a + b - b), _raw(1))
    torch.testing.assert_close(_whole(a - b), _whole(-(b - a)))
    torch.testing.assert_close((a + b).residual_norm, torch.tensor([11.5, 21.5, 41.5]))
    assert (a + b).counts == (203.0, 100.0)
    assert (a - b).counts == (151.0, 152.0)
    assert (a - b).name == "(v1 - v2)"


def test_factors_scale_the_raw_norm_and_turn_the_direction() -> None:
    a = _vector()
    torch.testing.assert_close(_whole(a * 2.5), 2.5 * _raw())
    torch.testing.assert_close(_whole(-0.5 * a), -0.5 * _raw())
    assert torch.equal((2 * a).direction, a.direction)
    assert torch.equal((-a).direction, -a.direction)
    assert (-a).counts == (50.0, 100.0)
    assert torch.equal((-1.0 * (-a)).direction, a.direction)
    for factor in (0.0, float("nan"), float("inf")):
        with pytest.raises(SteerlabError, match="must be finite and not 0"):
            _ = a * factor


def test_unit_makes_vectors_of_different_norm_weigh_the_same() -> None:
    a, b = _vector(1) * 100, _vector(2)
    mixed = a.unit() + b.unit()
    cos_a, cos_b = (mixed.direction * a.direction).sum(-1), (mixed.direction * b.direction).sum(-1)
    torch.testing.assert_close(cos_a, cos_b)
    assert a.unit().raw_norm.tolist() == [1.0, 1.0, 1.0]


def test_project_out_leaves_the_orthogonal_part_and_nothing_else() -> None:
    a, b = _vector(1), _vector(2)
    left = a.project_out(b)
    assert (left.direction * b.direction).sum(-1).abs().max() < 1e-6
    gone = _whole(a) - _whole(left)
    torch.testing.assert_close(gone, (gone * b.direction).sum(-1, keepdim=True) * b.direction, atol=1e-5, rtol=0)
    torch.testing.assert_close(_whole(left.project_out(b)), _whole(left))
    with pytest.raises(SteerlabError, match="'v1' is parallel to '-3\\*v1' at layer 0"):
        a.project_out(-3 * a)


def test_a_difference_that_vanishes_is_an_error() -> None:
    with pytest.raises(SteerlabError, match="no difference between its sides at layer 0"):
        _ = _vector() - _vector()


def test_vectors_of_different_spaces_do_not_mix() -> None:
    a = _vector()
    with pytest.raises(SteerlabError, match="different spaces"):
        _ = a + _vector(1, stream="mlp_out")
    with pytest.raises(SteerlabError, match="different spaces"):
        a.project_out(SteeringVector.from_raw("w", torch.ones(3, D + 1), LAYERS))
    with pytest.raises(SteerlabError, match="have layers 0, 2, 5 and 0, 2"):
        _ = a + _vector(1).select([0, 2])
    with pytest.raises(SteerlabError, match="different models"):
        _ = a + _vector(1, provenance=replace(PROVENANCE, model="other"))
    with pytest.raises(SteerlabError, match="different models"):
        _ = a - _vector(1, provenance=replace(PROVENANCE, revision="other"))


def test_a_combination_keeps_what_both_agree_on_and_lists_the_data_of_both() -> None:
    other = replace(PROVENANCE, seed=4, data=(("nusax", "11"),), weighting="text")
    mixed = (_vector(1) + _vector(2, provenance=other)).provenance
    assert (mixed.model, mixed.revision, mixed.method) == ("polyglot", "abc", "(v1 + v2)")
    assert mixed.data == (("ntrex", "00ff"), ("nusax", "11"))
    assert (mixed.seed, mixed.weighting, mixed.dtype) == (None, "", "float32")


def test_selecting_layers_keeps_rows_with_their_layers() -> None:
    vector = _vector().select([5, 0])
    assert vector.layers == (5, 0)
    assert torch.equal(vector.at(0), _vector().at(0))
    assert vector.norm_at(5) == 40.0
    torch.testing.assert_close(
        _whole((_vector(1) + _vector(2)).select([5, 0])),
        _whole(_vector(1).select([5, 0]) + _vector(2).select([0, 5])),
    )


def test_no_operation_changes_the_vector_it_starts_from() -> None:
    vector, copy = _vector(), _vector()
    assert vector.to("cpu").equals(copy)
    other = _vector(1)
    for result in (
        vector * -2,
        -vector,
        vector.unit(),
        vector.select([2]),
        vector + other,
        vector.project_out(other),
    ):
        assert not result.equals(copy)
        assert vector.equals(copy)
        assert other.equals(_vector(1))
    raw = _raw()
    SteeringVector.from_raw("v", raw, LAYERS)
    assert torch.equal(raw, _raw())
    with pytest.raises(FrozenInstanceError):
        vector.name = "other"  # type: ignore[misc]


def test_check_accepts_the_model_it_was_fitted_on() -> None:
    _vector().check("polyglot", "abc", D, 6)


@pytest.mark.parametrize(
    ("model", "revision", "d_model", "n_layers", "reason", "override"),
    [
        ("other", "abc", D, 6, "fitted on model 'polyglot', but 'other'", "model"),
        ("polyglot", "xyz", D, 6, "fitted on revision 'abc', but 'xyz'", "revision"),
        ("polyglot", "abc", 9, 6, "has width 8, but polyglot has width 9", None),
        ("polyglot", "abc", D, 5, "direction at layer 5, but polyglot has layers 0 to 4", None),
    ],
)
def test_check_refuses_another_model_with_a_reason(
    model: str, revision: str, d_model: int, n_layers: int, reason: str, override: str | None
) -> None:
    with pytest.raises(SteerlabError, match=reason):
        _vector().check(model, revision, d_model, n_layers)
    if override:
        _vector().check(model, revision, d_model, n_layers, allow=(override,))
    else:
        with pytest.raises(SteerlabError, match=reason):
            _vector().check(model, revision, d_model, n_layers, allow=("model", "revision"))


def test_check_refuses_to_override_anything_else_and_vectors_that_do_not_know_their_model() -> None:
    with pytest.raises(SteerlabError, match="only 'model' and 'revision' can be overridden"):
        _vector().check("polyglot", "abc", D, 6, allow=("width",))
    with pytest.raises(SteerlabError, match="fitted on model 'not recorded'"):
        SteeringVector.from_raw("v", _raw(), LAYERS).check("polyglot", "abc", D, 6)

"""Loss, KL and projections of edited texts are those of plain forward passes, whatever the batch."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch

from steerlab.ablation.edited import edited_means, edited_texts, steered, summary
from steerlab.errors import SteerlabError
from steerlab.steering import Intervention
from steerlab.types import Site
from tests.tiny import CORE, tiny, vector

TEXTS = ["the river is wide", "no", "a longer text of the same kind", "and one more"]
PUSH = Intervention(vector(0), 1, strength=3.0)


@pytest.mark.parametrize("family", CORE)
def test_the_numbers_of_a_text_are_those_of_a_plain_pass_over_it_alone(family: str) -> None:
    model = tiny(family)
    read = {"p": (Site(2), vector(3).at(2))}
    table: Any = edited_texts(model, TEXTS, {"push": steered(model, [PUSH])}, readouts=read)
    assert table["condition"].tolist() == ["unedited"] * 4 + ["push"] * 4 and table["text"].tolist() == [0, 1, 2, 3] * 2
    for i, text in enumerate(TEXTS):
        batch = model.encode([text])
        edits = {Site(1): lambda h: h + 3.0 * vector(0).at(1)}
        runs = [model.forward(batch, read=[Site(2)], edit=e, logits=True) for e in ({}, edits)]
        first, second = (torch.log_softmax(r.logits[0, :-1].double(), -1) for r in runs if r.logits is not None)
        target = batch.input_ids[0, 1:, None]
        for name, own, run in (("unedited", first, runs[0]), ("push", second, runs[1])):
            row = table[(table["condition"] == name) & (table["text"] == i)].iloc[0]
            assert row["tokens"] == len(target) == len(text)
            assert row["loss"] == pytest.approx(-float(own.gather(1, target).mean()), rel=1e-4)
            kl = float((first.exp() * (first - own)).sum(-1).mean())
            assert row["kl"] == pytest.approx(kl, abs=1e-4) and (kl > 0.01) == (name == "push")
            along = run[Site(2)][0, 1:].double() @ vector(3).at(2).double()  # BOS is left out
            assert row["p"] == pytest.approx(float(along.mean()), rel=1e-3, abs=1e-4)
    change = table["loss_change"].tolist()
    assert change[:4] == [0.0] * 4
    assert change[4:] == pytest.approx([b - a for a, b in zip(table["loss"][:4], table["loss"][4:], strict=True)])


def test_the_batch_does_not_matter() -> None:
    model = tiny("llama")
    conditions = {"push": steered(model, [PUSH]), "nothing": steered(model, [])}
    together: Any = edited_texts(model, TEXTS, conditions)
    alone = edited_texts(model, TEXTS, conditions, token_budget=1)
    for column in ("loss", "kl", "loss_change"):
        assert together[column].tolist() == pytest.approx(alone[column].tolist(), abs=1e-4)
    nothing = together[together["condition"] == "nothing"]
    assert nothing["kl"].max() == 0 and nothing["loss_change"].abs().max() == 0


def test_means_of_texts_are_means_over_their_tokens_under_the_edit() -> None:
    model = tiny("gemma2")
    found = edited_means(model, TEXTS, [Site(1), Site(3)], [PUSH])
    for i, text in enumerate(TEXTS):
        h = model.forward(model.encode([text]), read=[Site(3)], edit={Site(1): lambda h: h + 3.0 * vector(0).at(1)})[
            Site(3)
        ]
        torch.testing.assert_close(found[i, 1], h[0, 1:].mean(0), atol=1e-4, rtol=1e-4)
    plain = edited_means(model, TEXTS, [Site(1)])
    torch.testing.assert_close(found[:, 0] - plain[:, 0], 3.0 * vector(0).at(1).expand(4, -1), atol=1e-4, rtol=1e-4)


def test_texts_without_a_token_to_predict_and_a_taken_name_are_refused() -> None:
    with pytest.raises(SteerlabError, match="nothing to predict"):
        edited_texts(tiny("llama"), ["fine", ""], {})
    with pytest.raises(SteerlabError, match="rename it"):
        edited_texts(tiny("llama"), TEXTS, {"unedited": steered(tiny("llama"), [])})


def test_a_summary_is_a_mean_with_an_interval_over_texts() -> None:
    table: Any = pd.DataFrame({"arm": ["a"] * 6, "text": [0, 0, 1, 1, 2, 2], "kl": [1.0, 1, 2, 2, 3, 3]})
    (row,) = summary(table, ["arm"], ["kl"]).to_dict("records")
    assert (row["arm"], row["measure"], row["value"], row["n"]) == ("a", "kl", 2.0, 6)
    assert 1.0 <= row["low"] < 2.0 < row["high"] <= 3.0
    one = summary(table[table["text"] == 0], ["arm"], ["kl"]).iloc[0]
    assert one["low"] != one["low"] and one["reason"] == "one group"

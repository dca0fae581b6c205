"""Nested results and rows give one tidy table; Markdown shows every interval and every reason."""

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.evaluation.table import COLUMNS, estimates, markdown, metrics_table

F1, SHARE = Estimate(0.5, 0.4, 0.6, 100), Estimate(0.9, 0.8, 0.95, 50, "a note")
GONE, POINT = Estimate.missing("no train split"), Estimate.point(0.25, 4, "fewer than 5 texts")
NESTED = {"sl": {"topic": {"plain": {"f1": F1, "share": SHARE}, "steered": {"f1": GONE, "share": POINT}}}}
ROWS = [
    {"language": "sl", "task": "topic", "condition": condition, "metric": metric, "estimate": estimate}
    for condition, metrics in NESTED["sl"]["topic"].items()
    for metric, estimate in metrics.items()
]


def test_rows_and_nested_results_give_the_same_tidy_table() -> None:
    table = metrics_table(NESTED)
    pd.testing.assert_frame_equal(table, metrics_table(ROWS))
    assert tuple(table.columns) == COLUMNS and len(table) == 4
    assert table.loc[0].tolist() == ["sl", "topic", "plain", "f1", 0.5, 0.4, 0.6, 100, ""]
    assert math.isnan(table.loc[2, "value"]) and table.loc[2, "reason"] == "no train split"
    assert table["n"].dtype == int


def test_the_table_gives_its_estimates_back_also_after_csv() -> None:
    table = metrics_table(NESTED)
    text = io.StringIO()
    table.to_csv(text, index=False)
    text.seek(0)
    for kept in (table, pd.read_csv(text)):
        found = estimates(kept)
        assert found["sl", "topic", "plain", "f1"] == F1
        assert found["sl", "topic", "plain", "share"] == SHARE
        assert found["sl", "topic", "steered", "f1"].to_json() == GONE.to_json()
    with pytest.raises(SteerlabError, match="without the columns"):
        estimates(table.drop(columns="n"))


def test_markdown_shows_intervals_dashes_and_footnotes() -> None:
    assert markdown(metrics_table(NESTED)) == (
        "| language | task | condition | f1 | share |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| sl | topic | plain | 0.50 [0.40, 0.60] | 0.90 [0.80, 0.95] (1) |\n"
        "| sl | topic | steered | – (2) | 0.25 (3) |\n"
        "\n"
        "(1) a note  \n"
        "(2) no train split  \n"
        "(3) fewer than 5 texts  \n"
    )


def test_markdown_takes_a_format_and_a_choice_of_metrics() -> None:
    text = markdown(metrics_table(NESTED), ".1%", ["share"])
    assert "90.0% [80.0%, 95.0%]" in text and "f1" not in text
    with pytest.raises(SteerlabError, match="choose among f1, share"):
        markdown(metrics_table(NESTED), metrics=["f2"])


def test_a_metric_a_condition_lacks_leaves_its_cell_empty() -> None:
    text = markdown(metrics_table(ROWS[:3]))
    assert text.splitlines()[3] == "| sl | topic | steered | – (2) |  |"
    assert markdown(metrics_table([])).splitlines()[0] == "| language | task | condition |"


def test_a_bar_or_line_break_in_a_name_does_not_break_the_table() -> None:
    text = markdown(metrics_table({"sl": {"topic": {"a|b\nc": {"f1": F1}}}}))
    assert "a\\|b c" in text and len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (
            {"sl": {"topic": {"plain": 0.5}}},
            "float was given at sl / topic / plain: expected a mapping by metric",
        ),
        ({"sl": {"topic": {"plain": {"f1": 0.5}}}}, "expected an Estimate"),
        ({"sl": F1}, "expected a mapping by task"),
        ([{"language": "sl", "estimate": F1}], "it needs language, task"),
        ([ROWS[0], ROWS[0]], "two estimates"),
    ],
)
def test_results_of_another_shape_are_refused(results: Any, words: str) -> None:
    with pytest.raises(SteerlabError, match=words):
        metrics_table(results)

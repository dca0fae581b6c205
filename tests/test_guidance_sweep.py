"""The grid of gamma and eta: cells are what single runs write, measures are of the right texts, and maps stand the right way up."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab import figures
from steerlab.cells import Cell, Guidance
from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import perplexity
from steerlab.evaluation.ngrams import ngram_share, set_diversity
from steerlab.evaluation.repetition import repetition_rate
from steerlab.generation import Settings
from steerlab.guidance import Guide
from steerlab.guidance_sweep import COLUMNS, NAMES, Grid, draw, finding, gamma_eta, measures, sweep_guidance
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.negatives import Draw
from steerlab.store import RunFolder
from steerlab.synthesis import SAMPLES, synthesize
from steerlab.tasks import Task
from tests.small_run import content
from tests.tiny import hf_model, tiny, tokenizer

SETTINGS = Settings(max_new_tokens=8, temperature=1.0, top_p=1.0, top_k=10)
SHORT = Task("short", ("good", "bad"), "{label}{in_language}", "{label}{in_language}: {examples}")
REAL = {
    "good": ("one fine day in the hills", "what a view over the sea"),
    "bad": ("rain again and again", "far too late"),
}
LIKE = Cell("like", "jv", SHORT, guidance=Guidance(Guide(), Draw(2), REAL, refresh=2))
GRID = Grid((0.0, 0.5), (0.0, 0.8, 1.5), ("published", "balanced"))


@pytest.fixture(scope="module")
def base() -> TracedModel:
    return wrap(hf_model("llama", seed=5), tokenizer(), name="base")


def _sweep(path: Path, base: TracedModel) -> pd.DataFrame:
    with RunFolder.open(path, {}) as run:
        found = sweep_guidance(
            tiny("llama"), LIKE, run, GRID, per_label=3, settings=SETTINGS, base=base, progress=False
        )
        run.finish()
    return found


@pytest.fixture(scope="module")
def swept(base: TracedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("sweep") / "run"
    return folder, _sweep(folder, base)


def test_every_cell_is_measured_once(swept: tuple[Path, pd.DataFrame]) -> None:
    table: Any = swept[1]
    assert tuple(table.columns) == COLUMNS
    places = list(dict.fromkeys(zip(table["form"], table["gamma"], table["eta"], strict=True)))
    assert places == list(itertools.product(("published", "balanced"), (0.0, 0.5), (0.0, 0.8, 1.5)))
    assert len(table) == len(places) * len(NAMES) and set(table["metric"]) == set(NAMES)
    known = table[table["value"].notna()]
    shares = known[known["metric"].isin(["ngrams_3", "diversity_2_4", "repetition", "filled"])]
    assert shares["value"].between(0, 1).all()
    assert all(table[table["value"].isna()]["reason"])


def test_a_cell_of_the_grid_is_what_it_is_alone(
    swept: tuple[Path, pd.DataFrame], base: TracedModel, tmp_path: Path
) -> None:
    folder, table = swept
    mine: Any
    cell = GRID.cells(LIKE)["balanced", 0.5, 0.8]
    assert cell.condition == "balanced gamma=0.5 eta=0.8" and cell.guidance is not None
    assert (cell.guidance.guide, cell.guidance.draw) == (Guide(0.5, 0.8, "balanced"), Draw(2))
    assert cell.guidance.guide.alpha == 0.1 and GRID.cells(LIKE)["published", 0.5, 0.8].guidance.guide.alpha == 0  # type: ignore[union-attr]
    with RunFolder.open(tmp_path, {}) as run:
        alone = synthesize(tiny("llama"), [cell], run, per_label=3, settings=SETTINGS, base=base, progress=False)
    texts, labels = alone.texts(cell)
    own = [r for r in _rows(folder) if r["condition"] == cell.condition]
    among = [r["text"] for r in sorted(own, key=lambda r: (SHORT.labels.index(r["label"]), r["index"]))]
    assert texts == among
    mine = table[(table["form"] == "balanced") & (table["gamma"] == 0.5) & (table["eta"] == 0.8)].set_index("metric")[
        "value"
    ]
    report = measures(tiny("llama"), base, cell, texts, labels, 3)
    assert {k: v for k, v in mine.items() if not math.isnan(v)} == {k: v.value for k, v in report.items() if v.known}
    prompts = [cell.prompt(label) for label in labels]
    for name, model in (("expert", tiny("llama")), ("base", base)):
        want = np.log(perplexity(model, texts, prompts)).mean()
        assert mine[f"log_perplexity_{name}"] == pytest.approx(want, rel=1e-6)
    assert mine["log_perplexity_expert"] != mine["log_perplexity_base"]
    assert mine["filled"] == len(texts) / 6


def _rows(folder: Path) -> list[dict[str, Any]]:
    with RunFolder.open(folder, {}) as run:
        return run.read(SAMPLES)


@pytest.mark.slow
def test_the_same_sweep_again_writes_the_same_bytes(
    swept: tuple[Path, pd.DataFrame], base: TracedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = swept
    again = _sweep(folder, base)
    pd.testing.assert_frame_equal(again, table)
    monkeypatch.setattr(TracedModel, "decode", None)
    before = content(folder)
    _sweep(folder, base)  # nothing is written anew
    assert content(folder) == before


def test_measures_are_of_the_whole_set() -> None:
    texts, labels = ["a b c d", "a b c e", "x y x y x y x y"], ["good", "good", "bad"]
    report = measures(tiny("llama"), None, Cell("g", "jv", SHORT, guidance=Guidance(Guide(0, 1))), texts, labels, 2)
    ids = np.array([0, 1, 2, 3, 0, 1, 2, 4, 5, 6, 5, 6, 5, 6, 5, 6])
    assert report["ngrams_3"].value == pytest.approx(ngram_share(ids, 3))
    assert report["diversity_2_4"].value == pytest.approx(set_diversity(ids))
    assert report["repetition"].value == pytest.approx(np.mean([repetition_rate(text) for text in texts]))
    assert report["words_per_text"].value == pytest.approx(16 / 3)
    assert report["filled"].value == pytest.approx(3 / 4)
    for name, why in (("ngrams_3_ratio", "no real examples"), ("log_perplexity_base", "there is no base")):
        assert not report[name].known and why in report[name].reason
    empty = measures(tiny("llama"), None, LIKE, [], [], 2)
    assert empty["filled"].value == 0 and not any(one.known for name, one in empty.items() if name != "filled")


def _asymmetric() -> pd.DataFrame:
    """gamma 0, 0.2, 0.4 by eta 0, 0.5, in an order that is no order; the value tells its place: 10 gamma + eta."""
    places = [(0.4, 0.5), (0.0, 0.0), (0.2, 0.5), (0.0, 0.5), (0.4, 0.0), (0.2, 0.0)]
    return pd.DataFrame(
        [("published", g, e, "log_perplexity_base", 10 * g + e, 0.0, 9.0, 5, "") for g, e in places],
        columns=list(COLUMNS),
    )


def test_a_map_has_gamma_in_rows_and_eta_in_columns_from_the_lower_left() -> None:
    matrix = gamma_eta(_asymmetric(), "log_perplexity_base", "published")
    assert list(matrix.index) == [0.4, 0.2, 0.0] and list(matrix.columns) == [0.0, 0.5]
    assert matrix.loc[0.4, 0.5] == 4.5 and matrix.loc[0.2, 0.0] == 2.0


def test_the_drawing_stands_the_right_way_up() -> None:
    """Read off the figure itself: where a number stands, and what the ticks beside and below it say."""
    figure = draw(_asymmetric(), ("log_perplexity_base",), title="a title")
    figure.canvas.draw()
    panel = figure.axes[0]
    assert panel.get_xlabel().startswith("eta") and panel.get_ylabel().startswith("gamma")
    columns = {tick.get_position()[0]: float(tick.get_text()) for tick in panel.get_xticklabels()}
    rows = {tick.get_position()[1]: float(tick.get_text()) for tick in panel.get_yticklabels()}
    assert (len(columns), len(rows)) == (2, 3)
    shown = {}
    for text in panel.texts:
        x, y = text.get_position()
        gamma, eta = rows[y], columns[x]
        assert float(text.get_text()) == pytest.approx(10 * gamma + eta)
        shown[gamma, eta] = panel.transData.transform((x, y))
    assert len(shown) == 6
    origin = shown[0.0, 0.0]
    assert all(x >= origin[0] - 1e-6 and y >= origin[1] - 1e-6 for x, y in shown.values())  # lower left, in pixels
    assert shown[0.4, 0.0][1] > shown[0.2, 0.0][1] > origin[1] and shown[0.0, 0.5][0] > origin[0]
    colours = panel.images[0].get_array()
    assert float(colours[0, 1]) == 4.5 and float(colours[2, 0]) == 0.0
    figures.plt.close(figure)


def test_the_title_is_computed_from_the_table(swept: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    _, table = swept
    told = finding(table)
    first = gamma_eta(table, "log_perplexity_expert", "published").loc[0.0, 0.0]
    assert told.startswith(f"Surprise of the expert from eta 0 to 1.5: published {first:.1f} to ")
    paths = figures.write_images(draw(table, title=told), tmp_path, "map")
    assert all(path.stat().st_size > 5000 for path in paths)


def test_a_grid_that_means_nothing_is_refused() -> None:
    with pytest.raises(SteerlabError, match=r"the gammas are \[0.1, 0.1\]: give at least one, each once"):
        Grid((0.1, 0.1))
    with pytest.raises(SteerlabError, match="the etas are"):
        Grid(etas=())
    with pytest.raises(SteerlabError, match="has no 'mauve' of the balanced form"):
        gamma_eta(_asymmetric(), "mauve", "balanced")

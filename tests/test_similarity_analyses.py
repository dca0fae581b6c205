"""The similarity analyses find what is planted, say what is missing, and draw the same figure again from their own table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from analyses import _language_quality
from analyses import _similarity as shared
from analyses._harness import Result
from steerlab import data, figures
from steerlab.data.families import LINEAGES
from steerlab.data.means import mean_vectors
from steerlab.reliability import TextMeans
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.tiny import tiny

llama: Any = importlib.import_module("analyses.07_similarity_llama8b")
polyglot: Any = importlib.import_module("analyses.06_similarity_polyglot")
CODES = ("cs", "sk", "ru", "da", "no", "de", "nl", "hi", "ur", "ko")
NULLS = shared.Nulls(permutations=60, rotations=20, subsets=8)
ROOT = Path(__file__).resolve().parents[1]


def _vectors(tmp_path: Path, groups: bool = True) -> dict[str, SteeringVector]:
    rng = np.random.default_rng(0)
    centre = {genus: rng.standard_normal(64) for genus in dict.fromkeys(LINEAGES[c].genus for c in CODES)}
    rows = {c: rng.standard_normal((3, 64)) + (2 * centre[LINEAGES[c].genus] if groups else 0) for c in CODES}
    file = tmp_path / "means.safetensors"
    save_file({code: torch.from_numpy(own).float() for code, own in rows.items()}, file, metadata={"model": "planted"})
    return mean_vectors(file)


def test_planted_families_are_in_every_measure_with_null_and_reason(tmp_path: Path) -> None:
    pairs, table = llama.measure(llama.Config(layer=1, nulls=NULLS), _vectors(tmp_path))
    assert len(pairs) == 45 and list(pairs.columns) == ["a", "b", "0", "1", "2"]
    genus = shared.of(table, "tree agreement", "genus")
    assert (genus["value"] > 0.9).all() and (genus["p"] < 0.05).all() and (genus["null_high"] < 0.7).all()
    near = shared.of(table, "nearest is kin", "genus")
    assert (near["value"] == 1).all() and (near["n"] == 9).all()  # Korean has no kin
    assert shared.nearest_kin(pairs, 1) == (9, 9)
    kin = shared.of(table, "mean cosine", shared.KIN[0])
    assert (kin["value"] > kin["null_high"]).all() and (kin["low"] < kin["value"]).all()
    nearest: Any = shared.of(table, "nearest cosine")
    assert (nearest["p"] < 0.1).all()
    assert table["ceiling"].isna().to_numpy().all() and min(map(len, table["reason"])) > 20  # missing, and why
    turned = shared.of(table, "turning")
    assert turned["value"].between(0, 1).all() and list(turned["layer"]) == [1, 2]
    _, without = llama.measure(llama.Config(layer=1, nulls=NULLS), _vectors(tmp_path, groups=False))
    assert (shared.of(without, "tree agreement", "genus")["p"] > 0.05).any()
    assert (shared.of(without, "nearest cosine")["p"] > 0.05).any()


def test_the_matrix_of_a_layer_is_the_one_the_table_came_from(tmp_path: Path) -> None:
    vectors = _vectors(tmp_path)
    pairs, _ = llama.measure(llama.Config(nulls=NULLS), vectors)
    square = shared.square(pairs, 2)
    a, b = vectors["sk"].at(2), vectors["ur"].at(2)
    assert square.loc["sk", "ur"] == square.loc["ur", "sk"] == pytest.approx(float(a @ b), abs=1e-6)
    assert (np.diag(square) == 1).all() and list(square.index) == list(vectors)


def test_both_figures_are_drawn_from_tables_and_facts_alone(tmp_path: Path) -> None:
    pairs, table = llama.measure(llama.Config(layer=1, nulls=NULLS), _vectors(tmp_path))
    made = llama.draw(Result({llama.MATRIX: pairs, llama.LAYERS: table}, {"layer": 1}))
    assert set(made) == {llama.MATRIX, llama.LAYERS}
    assert "layer 1: of the 9 languages with a relative among the 10,\n9 have" in made[llama.MATRIX].get_suptitle()
    figures.plt.close("all")


def test_compute_reads_the_published_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _vectors(tmp_path)
    monkeypatch.setattr(llama, "clas_path", lambda: tmp_path / "means.safetensors")
    found = llama.compute(llama.Config(layer=2, nulls=NULLS))
    assert list(found.tables) == [llama.MATRIX, llama.LAYERS] and found.facts == {"layer": 2, "model": "planted"}
    assert "planted" in found.model_revision and all(len(digest) == 64 for digest in found.data.values())


def test_a_clustered_figure_marks_every_row_and_null_bands_bound_the_null() -> None:
    names = ["cs", "sk", "hi", "ko"]
    matrix = pd.DataFrame(np.eye(4) * 0.5 + 0.5, index=names, columns=names)
    matrix.loc["cs", "sk"] = matrix.loc["sk", "cs"] = 0.9
    matrix.loc["hi", "ko"] = matrix.loc["ko", "hi"] = 0.7
    tree = shared.clustering.tree(torch.tensor(matrix.to_numpy()))
    groups = {"cs": "Slavic", "sk": "Slavic", "hi": "Indic", "ko": "Korean"}
    figure, panel = figures.clustered(matrix, tree, groups, low=0.0, high=1.0, label="cosine")
    order = [text.get_text() for text in panel.get_xticklabels()]
    assert abs(order.index("cs") - order.index("sk")) == 1 == abs(order.index("hi") - order.index("ko"))
    cells = np.asarray(panel.images[0].get_array())
    np.testing.assert_allclose(cells, matrix.loc[order, order].to_numpy())
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"Slavic", "alone in its group"}
    strip = figure.axes[1]
    assert [text.get_text() for text in strip.get_yticklabels()] == order
    other, (axes,) = figures.new()
    table = pd.DataFrame({"layer": [1, 0], "null": [0.0, 0.1], "null_low": [-0.2, -0.1], "null_high": [0.2, 0.3]})
    figures.null_band(axes, table, x="layer", label="chance")
    points: Any = axes.collections[0].get_paths()[0].vertices
    assert {(0.0, -0.1), (0.0, 0.3), (1.0, -0.2), (1.0, 0.2)} <= {(float(x), round(float(y), 6)) for x, y in points}
    for made in (figure, other):
        figures.plt.close(made)


LETTERS = {
    "cs": "aeiouy",
    "sk": "aeiouk",
    "da": "mnrstl",
    "de": "mnrstd",
    "id": "bgjwzp",
    "en": "mnrsth",
    "sl": "aeiouz",
}


def _sentences(code: str, n: int) -> list[str]:
    rng = np.random.default_rng(sum(map(ord, code)))
    return ["".join(rng.choice(list(LETTERS[code] + " "), size=24)).strip() + "." for _ in range(n)]


def test_the_bundled_analysis_finds_languages_in_a_tiny_model_and_not_in_shuffled_texts() -> None:
    texts = {"ntrex": {code: _sentences(code, 24) for code in ("cs", "sk", "sl", "da", "de", "en")}}
    texts["nusax"] = {code: _sentences(code, 20) for code in ("en", "id")}
    pairs: dict[str, tuple[list[int], list[str], list[str]]] = {}
    for code in LETTERS:
        own = texts["nusax" if code == "id" else "ntrex"][code]
        made = data.degraded_pairs(own, rate=0.5, seed=0)
        rows = [int(pair.id.rpartition("-")[2]) for pair in made]
        pairs[code] = polyglot._clean(rows, made.human, made.degraded)
    pairs[polyglot.BACK] = ([], pairs["sl"][1], pairs["sl"][2])
    assert polyglot.BACK.startswith("sl ")
    config = polyglot.Config(splits=3, shuffles=4, nulls=NULLS)
    matrix, table = polyglot.measure(config, tiny("llama"), texts, pairs)
    layers = tiny("llama").n_layers
    assert len(matrix) == 21 and len(matrix.columns) == 2 + layers
    sure = shared.of(table, "reliability", "language")
    assert (sure["value"] > 0.9).all() and (sure["null"] < 0.5).all()
    kin = shared.of(table, "mean cosine", shared.KIN[0])
    assert (kin["value"] > 0).all() and (kin["ceiling"] > 0.9).all()
    mixed = shared.of(table, "mean cosine, texts shuffled", shared.KIN[0])
    assert (mixed["high"] - mixed["low"] > 0).all() and (mixed["null"] == -1 / 6).all()
    quality = shared.of(table, "language and quality")
    assert set(quality["series"]) == {"mean", polyglot.BACK, *LETTERS, "halves, same texts", "halves, disjoint texts"}
    mean = shared.of(quality, "language and quality", "mean").set_index("layer")["value"]
    single = quality[quality["series"].isin(LETTERS)].groupby("layer")["value"].mean()
    np.testing.assert_allclose(mean, single)
    back, own = (shared.of(quality, "language and quality", s)["value"].to_numpy() for s in (polyglot.BACK, "sl"))
    np.testing.assert_allclose(back, own)  # the same pairs under the other name
    angles = shared.of(table, "subspaces", "smallest angle (degrees)")
    assert angles["value"].between(0, 90).all()
    assert "model agreement" not in set(table["measure"])
    polyglot.draw_layers(table)
    polyglot.draw_matrix(matrix, 1)
    figures.plt.close("all")


def test_noise_shared_by_two_vectors_shows_on_the_same_texts_and_not_on_disjoint_ones() -> None:
    rng = np.random.default_rng(1)

    def made(n: int) -> TextMeans:
        return TextMeans((Site(0),), rng.standard_normal((n, 1, 64)).astype(np.float32), np.ones(n))

    human = {code: made(40) for code in ("cs", "sk", "da", "de")}
    worse = {code: made(40) for code in human}
    sides = {
        code: (human[code], worse[code]) for code in human
    }  # the human side is what the language vector is made of
    rows = _language_quality.disjoint_rows({"x": human}, sides, {code: list(range(40)) for code in human}, (0,))
    value = {row["series"]: row["value"] for row in rows}
    assert value["halves, same texts"] > 0.4 and abs(value["halves, disjoint texts"]) < 0.15


def test_models_are_compared_by_their_matrices(tmp_path: Path) -> None:
    vectors = _vectors(tmp_path)
    cosines = shared.similarity.cosine_matrix(list(vectors.values()))
    config = polyglot.Config(llama_layer=1, nulls=NULLS)
    rows = polyglot._model_rows(config, list(vectors), cosines, (0, 1, 2), vectors)
    assert rows[1]["value"] == pytest.approx(1) and rows[0]["value"] > 0.3 and rows[1]["p"] < 0.05
    assert polyglot._model_rows(config, list(vectors), cosines, (0, 1, 2), None) == []


@pytest.mark.parametrize("name", [llama.MATRIX, llama.LAYERS])
def test_the_committed_tables_of_the_8b_model_hold_the_known_neighbours(name: str) -> None:
    table = pd.read_csv(ROOT / "figures" / f"{name}.csv")
    record = json.loads((ROOT / "figures" / "similarity_llama8b.json").read_text(encoding="utf-8"))
    assert record["config"]["layer"] == 10 and record["facts"]["model"].endswith("Llama-3.1-8B-Instruct")
    known = {("sk", "cs"): 0.84, ("da", "no"): 0.95, ("ur", "hi"): 0.79, ("de", "nl"): 0.74}
    if name == llama.LAYERS:
        own = shared.of(table, "cosine")
        got = {
            tuple(s.split("-")): v
            for s, layer, v in zip(own["series"], own["layer"], own["value"], strict=True)
            if layer == 10
        }
    else:
        square = shared.square(table, 10)
        got = {pair: float(square.loc[pair]) for pair in known}
        assert all(square.loc[a].drop(a).idxmax() == b for a, b in known)
    assert {pair: round(value, 2) for pair, value in got.items()} == known

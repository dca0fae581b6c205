"""Lineages cover the languages of the studies and of the 8B means; published means become the vectors they should."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steerlab.data.families import LINEAGES, grouping
from steerlab.data.languages import LANGUAGES
from steerlab.data.means import CLAS_FILE, clas_path, mean_vectors, read_means
from steerlab.errors import SteerlabError
from steerlab.similarity import cosine_matrix


def test_every_language_of_the_studies_has_a_lineage_that_fits_its_record() -> None:
    for code, entry in LANGUAGES.items():
        assert LINEAGES[code].name == entry.name and LINEAGES[code].script == entry.script
        assert entry.family in (LINEAGES[code].genus, LINEAGES[code].family)
    assert all(key == entry.code for key, entry in LINEAGES.items())


def test_a_genus_lies_within_one_family() -> None:
    inside = {(entry.genus, entry.family) for entry in LINEAGES.values()}
    assert max(Counter(genus for genus, _ in inside).values()) == 1
    assert grouping(["sk", "ru", "ur"], "genus") == ["Slavic", "Slavic", "Indic"]
    assert grouping(["sk", "ru", "ur"], "script") == ["Latin", "Cyrillic", "Arabic"]
    assert grouping(["mt", "am", "id"], "family") == ["Afro-Asiatic", "Afro-Asiatic", "Austronesian"]
    with pytest.raises(SteerlabError, match="'xx', 'yy' is not known"):
        grouping(["sk", "xx", "yy"], "genus")


def _save(path: Path, **means: torch.Tensor) -> Path:
    save_file(means, path, metadata={"model": "somebody/model"})
    return path


def test_means_become_each_mean_minus_the_mean_of_the_others(tmp_path: Path) -> None:
    means = {code: torch.randn(3, 8, generator=torch.Generator().manual_seed(i)) for i, code in enumerate("abc")}
    found = mean_vectors(_save(tmp_path / "m.safetensors", **means))
    assert list(found) == ["a", "b", "c"] and found["a"].layers == (0, 1, 2)
    want = means["a"] - (means["b"] + means["c"]) / 2
    for layer in range(3):
        torch.testing.assert_close(found["a"].raw(layer), want[layer], atol=1e-6, rtol=1e-5)
    assert found["a"].provenance.model == "somebody/model" and len(found["a"].provenance.data[0][1]) == 64
    assert found["a"].counts == (0.0, 0.0) and bool(found["a"].residual_norm.isnan().all())  # not recorded
    found["a"].save(tmp_path / "a.safetensors")


def test_files_that_hold_no_means_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="there is no such file"):
        read_means(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SteerlabError, match="not readable as safetensors"):
        read_means(tmp_path / "text")
    with pytest.raises(SteerlabError, match="one tensor of layers x width"):
        read_means(_save(tmp_path / "uneven", a=torch.ones(3, 8), b=torch.ones(2, 8)))
    with pytest.raises(SteerlabError, match="the means of b"):
        read_means(_save(tmp_path / "nan", a=torch.ones(3, 8), b=torch.full((3, 8), float("nan"))))
    with pytest.raises(SteerlabError, match="no local data folder|not a folder"):
        clas_path(tmp_path / "nowhere")


def test_neighbours_in_the_real_8b_model_are_the_known_ones(shared: Path) -> None:
    path = shared / CLAS_FILE
    if not path.is_file():
        pytest.skip(f"needs {path}")
    vectors = mean_vectors(path)
    assert len(vectors) == 36 and set(vectors) <= set(LINEAGES)
    names = list(vectors)
    cosines = cosine_matrix([vector.select((10,)) for vector in vectors.values()])[0].fill_diagonal_(-2)
    for code, nearest, value in (("sk", "cs", 0.84), ("da", "no", 0.95), ("ur", "hi", 0.79), ("de", "nl", 0.74)):
        row = cosines[names.index(code)]
        assert names[int(row.argmax())] == nearest
        assert float(row.max()) == pytest.approx(value, abs=0.005)

"""Every figure comes from one command: computed once, recorded in full, and drawn again from its tables without a model."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analyses.__main__ as every
import steerlab.loading
from analyses import _harness
from steerlab.data.reading import ENV
from steerlab.errors import SteerlabError
from tests.walls import ROOT

FIGURES = ROOT / "figures"
DEMO = "demo"  # drawn by `steerlab demo`, kept with its own record
RECORDS = [p for p in sorted(FIGURES.glob("*.json")) if p.stem != DEMO]
SCRIPT = '''"""How large is a number? A made-up script.

    python -m analyses.{stem}    # at once
"""
from dataclasses import dataclass

import pandas as pd

from analyses._harness import NotThere, Result, main
from steerlab import figures
from steerlab.errors import SteerlabError


@dataclass(frozen=True)
class Config:
    size: int = 2
    label: str = "NA"
    many: tuple = (1, 2)


def compute(config):
    print("computing")
    {fate}
    table = pd.DataFrame({{"x": range(config.size), "value": 1 / 3, "name": config.label}})
    return Result({{"made_up": table}}, {{"size": config.size}}, "weights-1", {{"texts": "0" * 64}})


def draw(result):
    figure, (axes,) = figures.new()
    axes.plot(result.tables["made_up"]["x"], result.tables["made_up"]["value"])
    axes.set_title(f"{{result.facts['size']}} {{result.tables['made_up']['name'][0]}}")
    return {{"made_up": figure}}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
'''


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts: two that work, one that dies, one that refuses, one whose input is not there."""
    monkeypatch.setattr(_harness, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(every, "scripts", lambda folder=None: sorted((tmp_path / "scripts").glob("[0-9]*.py")))
    monkeypatch.setattr(_harness, "package_sha256", lambda: "same")
    (tmp_path / "scripts").mkdir()
    fates = {
        "01_made_up": "pass",
        "02_dies": "1 / 0",
        "03_refuses": "raise SteerlabError('no such text: give one.')",
        "04_waits": "raise NotThere('the study has not ended.')",
    }
    for stem, fate in fates.items():
        (tmp_path / "scripts" / f"{stem}.py").write_text(SCRIPT.format(stem=stem, fate=fate), encoding="utf-8")
    return tmp_path / "scripts"


def _called(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["analyses", *map(str, words)])
    return every.main()


# ---- the harness -----------------------------------------------------------------------------------------------------


def test_a_script_leaves_table_record_and_figure(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _called(monkeypatch, "--only", "made_up", "--out", tmp_path / "out") == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [f"made_up.{end}" for end in ("csv", "json", "pdf", "png")]
    assert (out / "made_up.csv").read_text() == "x,value,name\n0,0.333333,NA\n1,0.333333,NA\n"
    record = json.loads((out / "made_up.json").read_text())
    assert record["command"] == "python -m analyses.01_made_up" and record["seconds"] >= 0
    assert record["config"] == {"size": 2, "label": "NA", "many": [1, 2]}
    assert (record["model_revision"], record["data"], record["tables"]) == (
        "weights-1",
        {"texts": "0" * 64},
        ["made_up"],
    )
    assert re.fullmatch(r"[0-9a-f]{40}\+?", record["commit"])
    read = _harness.committed("01_made_up", out)
    assert read.facts == {"size": 2} and list(read.tables["made_up"]["name"]) == ["NA", "NA"]  # a text, not a gap


def test_what_was_computed_is_kept_by_content(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = scripts / "01_made_up.py", ["--out", str(tmp_path / "out")]

    def computed(*words: str) -> bool:
        assert every.run(path, [*words, *out]).state == "done"
        return "computing" in capsys.readouterr().out

    assert computed() and not computed()
    before = (tmp_path / "out" / "made_up.json").read_bytes()
    assert computed("--again") and computed("--size", "3") and not computed("--size", "3")
    assert len(pd.read_csv(tmp_path / "out" / "made_up.csv")) == 3
    assert (
        not computed()
        and json.loads((tmp_path / "out" / "made_up.json").read_text())["config"] == json.loads(before)["config"]
    )
    path.write_text(path.read_text().replace("1 / 3", "1 / 4"), encoding="utf-8")
    assert computed()
    monkeypatch.setattr(_harness, "package_sha256", lambda: "other")
    assert computed()


def test_redrawing_computes_nothing_and_changes_no_table(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    missing = every.run(scripts / "01_made_up.py", ["--redraw", "--out", str(out)])
    assert missing.state == "not there yet" and "python -m analyses --only made_up" in missing.why
    every.run(scripts / "01_made_up.py", ["--out", str(out)])
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for path in out.glob("*.p*"):
        path.unlink()
    capsys.readouterr()
    assert every.run(scripts / "01_made_up.py", ["--redraw", "--out", str(out)]).state == "done"
    assert "computing" not in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


# ---- all scripts in one process --------------------------------------------------------------------------------------


def test_one_that_fails_does_not_stop_the_others(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENV, str(tmp_path))
    shutil.move(scripts / "01_made_up.py", scripts / "05_made_up.py")
    assert _called(monkeypatch, "--out", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    said = "\n".join(line for line in out.splitlines() if line.endswith(" s"))
    assert re.search(r"02_dies +failed", said) and re.search(r"03_refuses +failed", said)
    assert re.search(r"04_waits +not there yet", said) and re.search(r"05_made_up +done", said)
    assert "1 of 4 done" in out and "ZeroDivisionError" in err and "refuses: no such text: give one." in err
    assert _called(monkeypatch, "--only", "04", "--only", "05_made_up", "--out", tmp_path / "out") == 0
    assert sys.argv[0] == "analyses"  # left as it was


def test_scripts_are_chosen_by_name_or_number_and_listed(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [[p.stem for p in every.chosen(words)] for words in (["waits", "02"], ["04_waits", "waits"], [])]
    assert names == [["02_dies", "04_waits"], ["04_waits"], ["01_made_up", "02_dies", "03_refuses", "04_waits"]]
    with pytest.raises(SteerlabError, match="'wait' is no analysis script: give one of made_up, dies"):
        every.chosen(["wait"])
    assert _called(monkeypatch, "--only", "made_up", "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert _called(monkeypatch, "--list", "--out", tmp_path / "out") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert re.search(r"01_made_up +[0-9a-f]{7}, 0 s +How large is a number\? A made-up script\.$", first)
    assert "no tables yet" in second


def test_computing_everything_asks_for_the_data_first(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ENV, raising=False)
    assert _called(monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and ENV in err and "--redraw" in err
    assert _called(monkeypatch, "--data", scripts / "none") == 2
    assert "is not a folder" in capsys.readouterr().err


# ---- what is committed -----------------------------------------------------------------------------------------------


def test_every_script_has_the_shape_of_a_script() -> None:
    for path in every.scripts():
        source = path.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(source)) or ""
        assert "?" in doc.split("\n\n")[0], f"{path.name}: the docstring opens with the question"
        assert f"python -m analyses.{path.stem}" in doc and re.search(r"second|minute|hour", doc), path.name
        module = importlib.import_module(f"analyses.{path.stem}")
        assert module.Config.__dataclass_params__.frozen and module.compute.__doc__ and module.draw.__doc__
        assert re.search(r"^    main\(__doc__, __file__, Config\(\), compute, draw", source, re.MULTILINE), path.name
    assert len(every.scripts()) >= 8 and len({p.stem[:2] for p in every.scripts()}) == len(every.scripts())


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_every_record_says_where_its_tables_came_from(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    (script,) = [p for p in every.scripts() if _harness.plain_name(p.name) == path.stem]
    assert record["command"].startswith(f"python -m analyses.{script.stem}")
    module: Any = importlib.import_module(f"analyses.{script.stem}")
    assert set(record["config"]) == set(module.Config.__dataclass_fields__)
    assert re.fullmatch(r"[0-9a-f]{40}\+?", record["commit"])
    assert bool(record["model_revision"]) or "steerlab.loading" not in script.read_text(encoding="utf-8")
    assert record["data"] and all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in record["data"].values())
    assert record["seconds"] is None or record["seconds"] > 0
    assert record["tables"] and all((FIGURES / f"{name}.csv").is_file() for name in record["tables"])


def test_every_figure_has_its_files_and_one_record() -> None:
    tables = Counter(name for path in RECORDS for name in json.loads(path.read_text(encoding="utf-8"))["tables"])
    assert max(tables.values()) == 1
    drawn = {p.stem for p in FIGURES.glob("*.png")}
    assert drawn - {DEMO} <= set(tables) and drawn == {p.stem for p in FIGURES.glob("*.pdf")}
    there = {p.relative_to(FIGURES).with_suffix("").as_posix() for p in FIGURES.rglob("*.csv")}
    assert there == set(tables) | {DEMO}
    assert (FIGURES / f"{DEMO}.json").is_file()
    known = {_harness.plain_name(p.name) for p in every.scripts()}
    assert known - {p.stem for p in RECORDS} <= {"low_resource"}, "scripts without committed tables"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "results").glob("*.md")), ids=lambda p: p.stem)
def test_a_results_page_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert images and [link for link in images if not (page.parent / link).is_file()] == []
    stems = {p.stem for p in every.scripts()}
    assert set(re.findall(r"python -m analyses\.(\w+)", text)) <= stems
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


@pytest.mark.slow
def test_every_figure_is_drawn_again_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("redrawing loads no model")

    monkeypatch.setattr(steerlab.loading, "load", refuse)
    monkeypatch.delenv(ENV, raising=False)
    out = tmp_path / "figures"
    shutil.copytree(FIGURES, out, ignore=shutil.ignore_patterns("*.png", "*.pdf"))
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")}
    found = every.run_all(every.scripts(), ["--redraw", "--out", str(out)])
    assert [one for one in found if one.state == "failed"] == []
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*") if p.suffix in (".csv", ".json")} == before
    for ending in ("png", "pdf"):
        assert {p.name for p in out.glob(f"*.{ending}")} == {p.name for p in FIGURES.glob(f"*.{ending}")} - {
            f"demo.{ending}"
        }

"""What synthetic texts are worth beside human ones: the arm is chosen on one seed and measured on others, curves are means over pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steerlab.commands import study as command
from steerlab.evaluation.human import HumanTexts, human_texts
from steerlab.records import pretty, sealed
from steerlab.studies import judging, worth
from tests.command import save_model
from tests.test_studies_claims import cells
from tests.test_studies_run import TINY


def test_the_best_arm_is_that_of_the_first_seed_and_never_random() -> None:
    table = cells({("quality", "early", 0.5): 0.02, ("random", "early", 0.5): 0.5, ("language", "late", 1.0): 0.0})
    assert set(worth.best_arms(table).values()) == {"quality/early/0.5"}
    table.loc[(table["seed"] == 1) & (table["kind"] == "language"), "macro_f1"] = 9.0
    assert set(worth.best_arms(table).values()) == {"quality/early/0.5"}
    table.loc[(table["seed"] == 0) & (table["kind"] == "language"), "macro_f1"] = 9.0
    assert set(worth.best_arms(table).values()) == {"language/late/1"}


def test_what_was_measured_is_measured_again_where_its_file_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "worth.json"
    assert judging.read_sealed(file) is None
    kept = {"rows": [{"n": 2, "value": 0.25}]}
    file.write_bytes(pretty(sealed(kept)))
    assert judging.read_sealed(file) == kept
    for changed in (file.read_text().replace("0.25", "0.26"), pretty(kept).decode(), "[" * 100_000, "[1]", "{"):
        file.write_text(changed)
        assert judging.read_sealed(file) is None, changed[:40]


def test_curves_are_means_over_pairs_at_texts_per_label() -> None:
    rows: list[dict[str, Any]] = []
    for language, task, labels, height in (("jv", "topic", 7, 0.2), ("su", "sentiment", 2, 0.4)):
        for what in ("unsteered", "steered"):
            for measure in ("human only", "synthetic + human"):
                for per_label in (0, 2, 5):
                    value = (
                        height
                        + 0.01 * per_label
                        + (0.1 if measure != "human only" else 0)
                        + (0.05 if what == "steered" else 0)
                    )
                    rows.append(
                        {
                            "model": "m",
                            "language": language,
                            "task": task,
                            "what": what,
                            "measure": measure,
                            "k": per_label * labels,
                            "value": value,
                        }
                    )
    found = worth.mixed(pd.DataFrame(rows))
    at = {(r["series"], r["per_label"]): r["value"] for r in found.to_dict("records")}
    assert at["human texts alone", 5] == pytest.approx(0.35)
    assert at["unsteered + human", 0] == pytest.approx(0.4) and at["steered + human", 2] == pytest.approx(0.47)
    assert set(found["n"]) == {2}


@pytest.mark.slow
def test_a_study_with_human_training_texts_says_what_its_texts_are_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled sample set with six of its texts as a train split, on a tiny model; asked again, the numbers come from the folder."""

    def with_train(name: str, code: str, *args: Any, **options: Any) -> HumanTexts:
        whole = human_texts(name, code, *args, **options)
        texts = [f"{text} {i}" for i, text in enumerate(whole.test_texts)]
        return HumanTexts("made up", "none", tuple(texts), whole.test_labels, whole.test_texts, whole.test_labels)

    monkeypatch.setattr(judging, "human_texts", with_train)
    folder = tmp_path / "texts"
    folder.mkdir()
    for code in ("jv", "da"):
        (folder / f"{code}.txt").write_text(
            "".join(f"{code} tembung {i} lan liyane\n" for i in range(8)), encoding="utf-8"
        )
    model = save_model(tmp_path / "llama", max_position_embeddings=1024)
    text = TINY.format(preset="polyglot-mini", texts=folder, model=model, template='"auto"', dtype="float32")
    head, models = text.split("[[models]]")
    config = tmp_path / "study.toml"
    config.write_text(
        head + 'kinds = ["none", "quality"]\nmodes = ["zero-shot"]\n[[models]]' + models, encoding="utf-8"
    )
    command.run(str(config), tmp_path / "out", None, progress=False)
    table: Any = pd.read_csv(tmp_path / "out" / "tables" / "worth.csv")
    assert set(table["what"]) == {"unsteered", "steered"} and set(table["language"]) == {"jv", "da"}
    assert {
        "human only",
        "synthetic + human",
        "floor",
        "ceiling",
        "worth",
        "ece",
        "ece_scaled",
        "label_confidence",
    } <= set(table["measure"])
    ceiling = table[table["measure"] == "ceiling"]["value"]
    assert (
        ceiling > table[table["measure"] == "floor"]["value"].max()
    ).all()  # trained on the very texts it is tested on
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Beside human texts" in page and (tmp_path / "out" / "figures" / "worth.png").is_file()
    monkeypatch.setattr(worth, "mixing_curves", None)  # would fail if it were called again
    command.run(str(config), tmp_path / "out", None, stage="report", progress=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "tables" / "worth.csv"), table)

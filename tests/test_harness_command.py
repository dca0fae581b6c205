"""The command line of lm-evaluation-harness with a steered model in it, by the words of its options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("lm_eval.evaluator", reason="the package lm-eval is not installed")

# isort: split
from lm_eval.api.registry import get_model  # type: ignore[import-not-found]

from steerlab.bundled.vectors import bundled_vectors
from steerlab.commands import harness as named
from steerlab.commands.synthesize import recommended
from steerlab.errors import SteerlabError
from steerlab.steering import Gate, Intervention
from steerlab.types import Positions
from tests.test_interop_harness import local_tasks


def test_the_name_steerlab_takes_the_words_of_the_command_line(tmp_path: Path) -> None:
    kind = cast(Any, get_model("steerlab"))
    jv = bundled_vectors()["language-jv"]
    assert get_model("steerlab") is named.NamedLM
    made = kind.create_from_arg_string(
        "vector=jv,layers=1+2,strength=0.4,positions=generated,cap=0.5", {"batch_size": 3}
    )
    want = Intervention(jv, (1, 2), strength=0.4, unit="residual", positions=Positions.parse("generated"), cap=0.5)
    (got,) = made.interventions
    assert got.to_json() == want.to_json() and (made.batch_size, made.model.name) == (3, "polyglot-mini")
    words = {
        "vector": "language-jv",
        "layers": [0],
        "operator": "match",
        "target": 0.3,
        "unit": "residual",
        "gate": "above:0.1",
    }
    (got,) = kind.create_from_arg_obj(words, {"batch_size": "auto"}).interventions
    want = Intervention(jv, 0, "match", unit="residual", target=0.3, gate=Gate(0.1))
    assert got.to_json() == want.to_json()
    (got,) = kind(vector="jv").interventions
    assert (got.at[0], got.strength) == recommended("language-jv")
    assert kind().interventions == ()
    for given, because in (
        ({"strength": 0.4}, "strength was given without a vector"),
        ({"vector": "xx"}, "'xx' is no vector file and no bundled vector"),
        ({"vector": "jv", "layers": "a"}, "layers 'a' can not be read"),
        ({"vector": "jv", "operator": "turn"}, "operator 'turn' is not known"),
    ):
        with pytest.raises(SteerlabError, match=because):
            kind(**given)


@pytest.mark.slow
def test_the_harnesss_own_command_line_runs_it(tmp_path: Path) -> None:
    (task, _) = local_tasks(tmp_path)
    (tmp_path / "toy.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    words = ["run", "--model", "steerlab", "--model_args", "vector=jv,layers=2,strength=0.4", "--tasks", "toy.yaml"]
    command = [sys.executable, "-m", "steerlab.commands.harness", *words, "--output_path", "out", "--batch_size", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "toy_choice" in done.stdout
    (file,) = (tmp_path / "out").rglob("results_*.json")
    (push,) = json.loads(file.read_text(encoding="utf-8"))["config"]["steering"]
    assert (push["vector"], push["layers"], push["strength"]) == ("language-jv", [2], 0.4)
    wrong = [*command[:7], "vector=xx", *command[8:]]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 2 and "steerlab: 'xx' is no vector file" in done.stderr, done.stderr[-3000:]

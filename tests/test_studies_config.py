"""Studies: presets, TOML, units, shards, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from steerlab.commands.study import to_toml
from steerlab.errors import SteerlabError
from steerlab.studies import memory
from steerlab.studies.config import ModelPlan, StudyConfig, override
from steerlab.studies.memory import check_memory, memory_plan, shape_of
from steerlab.studies.presets import PRESETS, find_study, preset
from steerlab.studies.units import Arm, arms_of, shard_of, units_of

PAPER = {
    "gemma-2-9b-it": ("google/gemma-2-9b-it", 10, 42),
    "gemma-2-27b-it": ("google/gemma-2-27b-it", 11, 46),
    "llama-3.1-8b-instruct": ("meta-llama/Llama-3.1-8B-Instruct", 7, 32),
    "llama-3.1-70b-instruct": ("meta-llama/Llama-3.1-70B-Instruct", 18, 80),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_hold_its_setting(name: str) -> None:
    hub, early, depth = PAPER[name]
    study = preset(name)
    (plan,) = study.models
    assert (plan.name, plan.groups(depth)["early"], plan.dtype) == (hub, early, "bfloat16")
    assert (study.temperature, study.top_p, study.max_new_tokens, study.shots) == (0.8, 0.9, 512, 5)
    assert dict(study.per_label) == {"topic": 20, "sentiment": 50}
    assert study.classifier == "FacebookAI/xlm-roberta-base" and study.classifier_seeds == 20
    assert plan.strengths == ((25, 50, 75, 100) if "gemma" in name else (1, 2, 3, 4)) and plan.unit == "raw"
    assert ("### Instruction:" in plan.template) == ("gemma" in name)
    assert list(plan.groups(depth).values()) == sorted(plan.groups(depth).values())


def test_the_bundled_preset_covers_every_human_test_set_there_is() -> None:
    study = preset("polyglot-mini")
    assert len([c for c in study.cases() if c[1] == "topic"]) == 12
    assert {code for code, name in study.cases() if name == "sentiment"} == {"am", "da", "en", "id", "jv", "su"}
    assert len(units_of(study)) == 18 * 2 * 3
    assert len(arms_of(study, study.models[0], 6)) == 1 + 4 * 3 * 4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_printed_as_toml_is_that_preset_again(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(to_toml(name), encoding="utf-8")
    assert find_study(str(tmp_path / "a.toml")) == preset(name)


def test_a_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('languages = ["jv"]\nper_label = { topic = 3, sentiment = 4 }\ntemperature = 1\n', encoding="utf-8")
    study = find_study(str(path))
    assert study == dataclasses.replace(
        preset("polyglot-mini"), languages=("jv",), per_label={"topic": 3, "sentiment": 4}, temperature=1.0
    )


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ('langages = ["jv"]', "did you mean 'languages'"),
        ('languages = "jv"', "not of the type tuple"),
        ("seeds = [0.5]", "seeds = "),
        ('[[models]]\nnme = "x"', "models has the field 'nme'"),
        ("languages = [", "cannot be read as TOML"),
        ('preset = "polyglot-mni"', "did you mean 'polyglot-mini'"),
        ("preset = 3", "preset = 3"),
        ('languages = ["xx"]', "xx"),
        ('kinds = ["quality"]', "lack 'none'"),
        ('kinds = ["none", "vibes"]', "vector kind 'vibes'"),
        ("per_label = { topic = 0 }", "per_label has 0"),
        ("seeds = [0, 0]", "each once"),
        ("temperature = 0.0", "temperature is 0"),
        ("[[models]]\nstrengths = [0.0, 1.0]", "above 0"),
        ('[[models]]\nunit = "percent"', "unit of model"),
        ('languages = ["cs"]\ntasks = ["sentiment"]', "no public human test set"),
        ('modes = ["one-shot"]', "prompt mode"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(text: str, because: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SteerlabError, match=because):
        find_study(str(path))


def test_names_that_are_nothing_are_refused() -> None:
    with pytest.raises(SteerlabError, match="did you mean 'gemma-2-9b-it'"):
        find_study("gemma-2-9b")
    with pytest.raises(SteerlabError, match="there is no file nowhere.toml"):
        find_study("nowhere.toml")


def test_shards_share_the_units_out_and_lose_none() -> None:
    units = units_of(preset("polyglot-mini"))
    parts = [shard_of(units, f"{i}/5") for i in range(1, 6)]
    assert sorted(u.name for part in parts for u in part) == sorted(u.name for u in units)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len({u.name for u in units}) == len(units)
    for bad in ("0/2", "3/2", "1", "a/b", "1/0", "/"):
        with pytest.raises(SteerlabError, match="is not i/n"):
            shard_of(units, bad)


def test_layer_groups_follow_the_depth_unless_they_are_named() -> None:
    assert ModelPlan().groups(6) == {"early": 1, "middle": 2, "late": 4}
    assert ModelPlan(layers={"here": 3}).groups(6) == {"here": 3}
    with pytest.raises(SteerlabError, match="blocks 0 to 5"):
        ModelPlan(layers={"late": 6}).groups(6)
    assert Arm("quality", "early", 1, 0.5).name == "quality/early/0.5" and Arm("none").name == "none"


def test_memory_grows_with_weights_rows_and_positions_and_shrinks_by_quantizing() -> None:
    plan = preset("gemma-2-9b-it").models[0]
    whole, short = memory_plan(plan, 1024), memory_plan(plan, 512)
    assert whole is not None and short is not None
    assert 18e9 < whole.weights < 19e9  # 9.24e9 parameters of two bytes
    assert whole.cache == 2 * short.cache == 2 * 42 * 8 * 256 * 2 * 64 * 1024
    small = memory_plan(dataclasses.replace(plan, quantize="4bit"), 1024)
    assert small is not None and small.weights < 0.4 * whole.weights


def test_a_model_that_cannot_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: (24e9, "one small card"))
    with pytest.raises(SteerlabError, match=r"70B-Instruct in bfloat16 needs about \d+ GB .* one small card has 24 GB"):
        check_memory(preset("llama-3.1-70b-instruct").models[0])
    check_memory(ModelPlan())
    with pytest.raises(SteerlabError, match="needs a CUDA GPU"):
        memory.load_options(ModelPlan(quantize="4bit"))


def test_the_shape_of_the_bundled_model_is_counted() -> None:
    shape = shape_of(ModelPlan())
    assert shape is not None
    assert 6.4e6 < shape.parameters < 6.7e6 and (shape.layers, shape.kv_width) == (6, 4 * 32)
    assert shape_of(ModelPlan(name="nobody/nothing")) is None


def test_override_keeps_the_base_it_was_given() -> None:
    base = StudyConfig(languages=("da",))
    assert override(base, {"seeds": [7]}, "here").languages == ("da",) and base.seeds == (0, 1, 2)

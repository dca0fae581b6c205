"""lm-evaluation-harness asks, a steered model answers: with the real package, on tasks of a local file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval.evaluator", reason="the package lm-eval is not installed")

# isort: split

import lm_eval  # type: ignore[import-not-found]
from lm_eval.api.instance import Instance  # type: ignore[import-not-found]
from lm_eval.models.hf_steered import SteeredModel as Steered  # type: ignore[import-not-found]
from lm_eval.models.huggingface import HFLM as Plain  # type: ignore[import-not-found]
from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

from steerlab.ablation.edited import plan_edits
from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.interop import export_vector
from steerlab.interop.harness import SteeredLM
from steerlab.loading import load
from steerlab.operators import OPERATORS
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import NAMED_POSITIONS, Positions
from tests.command import save_model
from tests.tiny import CORE, tiny, tokenizer, vector

HFLM: Any = Plain  # made by a decorated method that pyright takes for its own
SteeredModel: Any = Steered

LONG = "the quick brown fox jumps over the lazy dog " * 8  # more tokens than the model's 256
PAIRS = [
    ("The cat", " sat on the mat"),
    ("The cat", " sat"),
    ("", "alone"),
    ("two blanks  ", "end"),
    ("Choose:", " A"),
    ("Choose:", " B"),
    ("Ünïcode ሰላም", " ශ්‍රී"),
    (LONG, " and again"),
    ("<|bos|>said already", " once"),
]
TEXTS = ["A short text.", LONG, "x", LONG + LONG[:40]]
UNTIL: list[tuple[str, dict[str, Any]]] = [
    ("Write:", {"until": ["\n", "a"], "max_gen_toks": 12}),
    ("Write more and more and more:", {"until": ["\n", "a"], "max_gen_toks": 12}),
    ("<|bos|>Write:", {"until": "q", "max_gen_toks": 30}),
    (LONG, {"until": [], "max_gen_toks": 5}),
]


def _asked(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, given, 0, ("task", number, 1)) for number, given in enumerate(arguments)]


def _answers(lm: Any) -> tuple[list[tuple[float, bool]], list[float], list[str]]:
    """Log-likelihoods, those of whole texts, and what is written, as a model of the harness gives them."""
    return (
        lm.loglikelihood(_asked("loglikelihood", PAIRS), disable_tqdm=True),
        lm.loglikelihood_rolling(_asked("loglikelihood_rolling", [(text,) for text in TEXTS]), disable_tqdm=True),
        lm.generate_until(_asked("generate_until", UNTIL), disable_tqdm=True),
    )


def _same(ours: Any, theirs: Any) -> None:
    """Answers of two models agree: numbers to 1e-4 per token or so, words to the letter."""
    for (got, greedy), (want, likeliest) in zip(ours[0], theirs[0], strict=True):
        assert got == pytest.approx(want, abs=1e-4, rel=1e-5) and greedy == likeliest
    assert ours[1] == pytest.approx(theirs[1], abs=1e-3, rel=1e-5)
    assert ours[2] == theirs[2] and any(ours[2])


def _push(layers: tuple[int, ...] | int = 1, strength: float = 3.0, **how: Any) -> Intervention:
    return Intervention(vector(0), layers, strength=strength, **how)


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("bos", [True, False])
def test_an_unsteered_model_scores_as_the_harness_scores_it(family: str, bos: bool) -> None:
    model = tiny(family, bos=bos)
    # The same weights object: loading Gemma-2 again would attend by SDPA, which leaves its soft-capping out.
    theirs = HFLM(pretrained=model.hf, tokenizer=tokenizer(bos), batch_size=3)
    _same(_answers(SteeredLM(model, batch_rows=4)), _answers(theirs))
    free = SteeredLM(model).generate_until(
        _asked("generate_until", [("Write:", {"max_gen_toks": 12})]), disable_tqdm=True
    )
    stop = _asked("generate_until", [("Write:", {"until": [free[0][3:5]], "max_gen_toks": 12})])
    both: list[Any] = [SteeredLM(model), theirs]
    ((got,), (want,)) = (lm.generate_until(stop, disable_tqdm=True) for lm in both)
    assert got == want == free[0].split(free[0][3:5])[0] != free[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", CORE)
def test_adding_a_vector_is_the_steered_model_of_the_harness(family: str, tmp_path: Path) -> None:
    own, layers = vector(0), (1, 3)
    path = export_vector(own, tmp_path / "v.pt", "lm-eval", layers=layers, scale="unit", coefficient=3.0)
    folder = save_model(tmp_path / "model", family)
    theirs: Any = SteeredModel(
        pretrained=str(folder), steer_path=str(path), device="cpu", dtype="float32", batch_size=3
    )
    theirs.model.set_attn_implementation("eager")
    model = load(str(folder), device="cpu")
    ours = _answers(SteeredLM(model, [_push(layers)]))
    _same(ours, _answers(theirs))
    plain = _answers(SteeredLM(model))
    assert all(abs(a - b) > 0.01 for (a, _), (b, _) in zip(ours[0], plain[0], strict=True)) and ours[2] != plain[2]


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_answers_alike_in_any_batch_and_strength_0_is_unsteered(operator: Any) -> None:
    model, how = (
        tiny("llama"),
        {"operator": operator, "target": 4.0} if operator.startswith("match") else {"operator": operator},
    )
    plain, steered = SteeredLM(model), SteeredLM(model, [_push((0, 2), 0.8, **how)])
    off = SteeredLM(model, [_push((0, 2), 0.0, **how)])
    got, want, none = _answers(steered), _answers(plain), _answers(off)
    assert none == want
    assert all(abs(a - b) > 1e-3 for (a, _), (b, _) in zip(got[0], want[0], strict=True))
    assert all(abs(a - b) > 1e-3 for a, b in zip(got[1], want[1], strict=True))
    _same(_answers(SteeredLM(model, steered.interventions, batch_rows=1)), got)


@pytest.mark.parametrize("where", [*NAMED_POSITIONS, "last:2", "1:3"])
def test_positions_mean_the_same_of_a_likelihood_as_of_writing(where: str) -> None:
    """What the steered model writes greedily is, read as a continuation under the same steering, the likeliest token by token."""
    model = tiny("llama", seed=2)
    own = _push((0, 1, 2), 6.0, positions=Positions.parse(where))
    steered, prompts = SteeredLM(model, [own]), ["Once upon", "A much longer beginning of it", "No"]
    settings = Settings(6, greedy=True, stop=())
    samples = generate(model, [Request(text, (i,), (own,), chat=False) for i, text in enumerate(prompts)], settings)
    asked = [(None, steered.tok_encode(text), list(s.tokens)) for text, s in zip(prompts, samples, strict=True)]
    assert [greedy for _, greedy in steered._loglikelihood_tokens(asked, True)] == [True] * 3
    altered = [(None, head, [*tail[:-1], tail[-1] ^ 1]) for _, head, tail in asked]
    assert not any(greedy for _, greedy in steered._loglikelihood_tokens(altered, True))
    other = generate(model, [Request(text, (i,), (), chat=False) for i, text in enumerate(prompts)], settings)
    assert [s.tokens for s in samples] != [s.tokens for s in other]


def test_a_likelihood_is_the_sum_that_the_model_gives() -> None:
    """Against one forward pass of one unpadded row."""
    model, own = tiny("qwen2"), _push(2, 0.7, operator="rotate", gate=Gate(-0.5))
    lm = SteeredLM(model, [own])
    head, tail = lm._encode_pair("Some context", " and its end")
    batch = left_pad([[*head, *tail]], 0, [len(head)])
    logits = model.forward(batch, edit=plan_edits(model, Plan(((own,),)), batch), logits=True).logits
    assert logits is not None
    scores = logits[0].log_softmax(-1)
    want = sum(float(scores[len(head) - 1 + i, token]) for i, token in enumerate(tail))
    ((got, _),) = lm.loglikelihood(_asked("loglikelihood", [("Some context", " and its end")]), disable_tqdm=True)
    assert got == pytest.approx(want, abs=1e-4)


def test_drawing_is_keyed_by_task_document_and_repeat() -> None:
    lm = SteeredLM(tiny("llama"), [_push()], seed=3)
    how = {"do_sample": True, "temperature": 0.9, "top_k": 50, "max_gen_toks": 10, "until": []}
    asked = _asked("generate_until", [("Once", how), ("Once", how)])
    asked = [asked[0], asked[0], asked[1]]  # the harness gives an instance again for every repeat
    found = lm.generate_until(asked, disable_tqdm=True)
    assert len(set(found)) == 3
    again = SteeredLM(tiny("llama"), [_push()], seed=3, batch_rows=1).generate_until(asked, disable_tqdm=True)
    assert again == found != SteeredLM(tiny("llama"), [_push()], seed=4).generate_until(asked, disable_tqdm=True)


def test_what_it_cannot_do_is_said() -> None:
    lm = SteeredLM(tiny("llama"))
    with pytest.raises(SteerlabError, match=r"num_beams=4: its generation_kwargs may name until"):
        lm.generate_until(_asked("generate_until", [("a", {"until": [], "num_beams": 4, "max_gen_toks": 2})]))
    with pytest.raises(SteerlabError, match="256 new tokens were asked for, and tiny-llama reads 256"):
        lm.generate_until(_asked("generate_until", [("a", {"until": []})]))
    with pytest.raises(SteerlabError, match="batch_rows is 0"):
        SteeredLM(tiny("llama"), batch_rows=0)
    with pytest.raises(SteerlabError, match="the model has width 32"):
        SteeredLM(tiny("llama"), [Intervention(vector(0, width=16), 1)])
    with pytest.raises(SteerlabError, match="a continuation of 300 tokens"):
        lm._loglikelihood_tokens([(None, [1], [5] * 300)])
    with pytest.raises(SteerlabError, match="no chat template"):
        SteeredLM(tiny("llama", chat=False)).apply_chat_template([{"role": "user", "content": "Hi"}])


def local_tasks(folder: Path) -> list[dict[str, Any]]:
    """A task of choices and one of answers over a local file."""
    rows = [
        {"question": f"Which word follows {word}?", "choices": ["one", "two", "three"], "label": i % 3, "answer": word}
        for i, word in enumerate(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"])
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choices = {
        "task": "toy_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
    }
    writing = {"task": "toy_writing", "output_type": "generate_until", "doc_to_target": "{{answer}}"}
    writing |= {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 8}}
    metric = {"aggregation": "mean", "higher_is_better": True}
    return [
        common | choices | {"metric_list": [{"metric": "acc", **metric}]},
        common | writing | {"metric_list": [{"metric": "exact_match", **metric}]},
    ]


def _run(lm: Any, folder: Path) -> dict[str, Any]:
    manager = TaskManager(include_defaults=False)
    evaluate: Any = lm_eval.simple_evaluate
    found = evaluate(model=lm, tasks=local_tasks(folder), task_manager=manager, bootstrap_iters=0)
    assert found is not None
    return dict(found)


@pytest.mark.slow
def test_local_tasks_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # asks pip for every package there is
    model, own = tiny("llama"), _push((1, 2), 5.0)
    found = _run(SteeredLM(model, [own]), tmp_path)
    assert found["config"]["steering"] == [json.loads(json.dumps(own.to_json()))]
    assert found["config"]["model_name"] == "tiny-llama"
    lm = SteeredLM(model, [own])
    right = []
    for sample in found["samples"]["toy_choice"]:
        doc = sample["doc"]
        asked = _asked("loglikelihood", [(doc["question"], f" {choice}") for choice in doc["choices"]])
        scores = [score for score, _ in lm.loglikelihood(asked, disable_tqdm=True)]
        right.append(scores.index(max(scores)) == doc["label"])
        assert [resp[0][0] for resp in sample["resps"]] == pytest.approx(scores, abs=1e-4)
    assert found["results"]["toy_choice"]["acc,none"] == pytest.approx(sum(right) / 6)
    docs = [sample["doc"] for sample in found["samples"]["toy_writing"]]
    requests = [Request(doc["question"], (i,), (own,), chat=False) for i, doc in enumerate(docs)]
    written = generate(model, requests, Settings(8, greedy=True, stop=("\n",)))
    want = [model.decode_text(s.tokens).split("\n")[0] for s in written]
    assert [sample["resps"][0][0] for sample in found["samples"]["toy_writing"]] == want
    plain = _run(SteeredLM(model), tmp_path)
    theirs = _run(HFLM(pretrained=model.hf, tokenizer=tokenizer(), batch_size=2), tmp_path)
    assert plain["results"] == theirs["results"]
    assert [s["resps"] for s in plain["samples"]["toy_writing"]] == [
        s["resps"] for s in theirs["samples"]["toy_writing"]
    ]
    assert [s["resps"] for s in plain["samples"]["toy_writing"]] != [
        s["resps"] for s in found["samples"]["toy_writing"]
    ]

"""`steerlab sweep`: layer x strength x vector measured, an arm chosen for every vector, everything kept in a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import figures
from steerlab.ablation.dose import Design, DoseResponse, distinct_arms, respond
from steerlab.ablation.outcomes import MEASURES, Judge, human_judge, score_texts
from steerlab.ablation.selection import Rule, Selection, choose, save_choice, with_choice
from steerlab.ablation.sweeps import plan_sweep
from steerlab.capture import texts_digest
from steerlab.commands.lens import find
from steerlab.data import find_root, read_texts
from steerlab.data import load as load_data
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.generation import Settings, generate_batches
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.operators import OPERATORS
from steerlab.store import RunFolder, read_config, verify
from steerlab.tasks import prompt as task_prompt
from steerlab.tasks import task as find_task
from steerlab.vectors import SteeringVector

SAMPLES, TABLE = "samples.jsonl", "sweep.csv"
SIDE = ("log_perplexity", "repetition", "distinct_2")
TOLERANCE = 1e-3  # how far a repeated number may be off: sums in another order round differently


@dataclass(frozen=True)
class Asked:
    """What the command line asked for: the run's configuration, but for what it read from files."""

    vectors: tuple[str, ...]
    model: str
    layers: tuple[int, ...]
    strengths: tuple[str, ...]
    unit: str
    languages: tuple[str, ...]
    task: str
    prompt: str
    prompts: Path | None
    samples: int
    directions: int
    texts: Path | None
    effect: str
    max_new_tokens: int
    batch_rows: int
    seed: int


def run(
    asked: Asked, out: Path, root: Path | None, keep: bool, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Write, measure, choose, draw; the manifest comes last. One row per vector. `keep`: write choices into headers.

    Bad input is refused before the model is loaded or anything written.
    """
    vectors = {name: find(name, asked.model) for name in asked.vectors}
    targets, strengths = _targets(asked, vectors), _strengths(asked.strengths)
    rule = Rule(asked.effect)
    if asked.effect == "in_target" and len(targets) < len(vectors):
        missing = ", ".join(name for name in vectors if name not in targets)
        raise SteerlabError(f"the names of {missing} tell no language: give --language, or another --effect.")
    layers = asked.layers or _layers(list(vectors.values()))
    unit = "raw" if asked.unit == "raw" else "residual"
    if asked.unit not in ("raw", "residual"):
        raise SteerlabError(f"unit {asked.unit!r} is not known: give 'residual' or 'raw'.")
    design = Design(vectors, layers, strengths, unit, directions=asked.directions, seed=asked.seed)
    design.places()  # refuses layers and operators the vectors cannot take
    prompts, labels = _prompts(asked)
    texts = _texts(asked)
    judge = _judge(asked, labels, root)
    settings = Settings(max_new_tokens=asked.max_new_tokens, seed=asked.seed)
    model = load(asked.model, dtype=dtype, device=device)
    for vector in vectors.values():
        vector.check(model.name, model.revision, model.d_model, model.n_layers)
    config = {
        "command": "sweep", "asked": asdict(asked), "data": None if judge is None else str(find_root(root)), "revision": model.revision,
        "layers": layers, "prompts": prompts, "texts": texts_digest(texts), "settings": settings.to_json(),
        "vectors": {name: texts_digest([str(v.direction.tolist())]) for name, v in vectors.items()},
    }  # fmt: skip
    with RunFolder.open(out, config) as folder:
        written = _write(folder, model, design, prompts, asked, settings, progress)
        scored = score_texts(model, written, prompts, labels if judge else None, judge)
        response = respond(model, design, scored, prompts, targets, texts, progress)
        chosen = {name: _chosen(response, name, rule) for name in vectors}
        _finish(folder, response, chosen, rule, asked, keep)
    if keep and not any(isinstance(found, Selection) for found in chosen.values()):
        raise SteerlabError(f"nothing was chosen, so no header was written: {next(iter(chosen.values()))}")
    return [_row(name, found, rule) for name, found in chosen.items()]


def _write(
    folder: RunFolder,
    model: TracedModel,
    design: Design,
    prompts: Sequence[str],
    asked: Asked,
    settings: Settings,
    progress: bool,
) -> pd.DataFrame:
    """The texts of every arm, those of batches an earlier process finished read back."""
    arms, _ = distinct_arms(design.places())
    requests, row = plan_sweep(arms, prompts, asked.samples)
    done = folder.completed_batches(SAMPLES)
    skip = {int(number) for number in done}
    batches = generate_batches(model, requests, settings, batch_rows=asked.batch_rows, skip=skip, progress=progress)
    for number, members, samples in batches:
        rows = [{"number": i, **row(i, s)} for i, s in zip(members, samples, strict=True)]
        folder.append(SAMPLES, rows, batch=str(number))
    table = pd.DataFrame(sorted(folder.read(SAMPLES), key=lambda kept: kept["number"]))
    return table.drop(columns="number")


def _finish(
    folder: RunFolder,
    response: DoseResponse,
    chosen: Mapping[str, Selection | str],
    rule: Rule,
    asked: Asked,
    keep: bool,
) -> None:
    """Tables, figure, choices, the headers that were asked for, and the manifest last."""
    folder.write_table(TABLE, response.table)
    folder.write_table("outcomes.csv", response.texts.drop(columns="text"))
    record: dict[str, Any] = {}
    for number, (name, found) in enumerate(chosen.items()):
        if isinstance(found, str):
            record[name] = {"chosen": None, "reason": found}
            continue
        record[name] = {"chosen": found.choice.to_json(), "choosing": found.choosing, "checking": found.checking}
        folder.write_table(f"candidates/{number}-{Path(name).stem}.csv", found.candidates)
        if keep and Path(name).is_file():
            save_choice(name, found)
        elif keep:
            vector = with_choice(response.design.vectors[name], found)
            vector.save(folder.path / "vectors" / f"{vector.name}.safetensors")
    folder.write_json("choices.json", {"rule": str(rule), "vectors": record})
    figures.write_images(draw(response, chosen, asked.effect), folder.path, "sweep")
    folder.finish()


def draw(response: DoseResponse, chosen: Mapping[str, Selection | str], effect: str) -> Any:
    """For each of the first four vectors the target effect and the surprise by layer and strength, the chosen arm ringed."""
    operator = str(next(iter(dict.fromkeys(response.texts["operator"][response.texts["operator"] != "none"]))))
    names = list(response.design.vectors)[:4]
    figure, axes = figures.new(columns=2, rows=len(names), height=1.0 + 2.3 * len(names))
    for row, name in enumerate(names):
        for column, measure in enumerate((effect, "log_perplexity")):
            own, panel = response.map(measure, name, operator=operator), axes[2 * row + column]
            share = measure in ("in_target", "agreement", "ended", "distinct_2")
            shown = own * 100 if share else own
            low, high = (0.0, 100.0) if share else (float(own.min().min()), float(own.max().max()) + 1e-9)
            unit = "%" if share else "nats a token"
            figures.heat(panel, shown, low=low, high=high, label=unit, fmt="{:.0f}" if share else "{:.1f}")
            panel.set(xlabel=f"strength ({operator})", ylabel="layer")
            found = chosen[name]
            told = "nothing chosen"
            if isinstance(found, Selection):
                cell = found.cell
                told = f"{cell.operator} {cell.strength:g} at layer {cell.layer}"
                if cell.operator == operator:
                    at = list(own.columns).index(cell.strength), list(own.index).index(cell.layer)
                    panel.plot(*at, marker="o", ms=22, mfc="none", mec=figures.COLOURS[5], mew=2)
            title = "in the target language" if measure == "in_target" else measure
            panel.set_title(f"{Path(name).stem}: {title}" if column else f"{Path(name).stem}: {told}\n{title}")
    return figure


def _chosen(response: DoseResponse, name: str, rule: Rule) -> Selection | str:
    """The selection, or why there is none."""
    try:
        return choose(response, name, rule, seed=response.design.seed)
    except SteerlabError as error:
        return str(error)


def _row(name: str, found: Selection | str, rule: Rule) -> dict[str, Any]:
    """One line of the answer."""
    columns = ("operator", "layer", "strength", rule.effect, "more than unsteered", "more than random")
    if isinstance(found, str):
        return {"vector": name, **dict.fromkeys(columns), **{f"{m} change": None for m in SIDE}, "note": found}
    cell, evidence = found.cell, found.evidence
    shown = [evidence.get(key) for key in (rule.effect, f"{rule.effect} - unsteered", f"{rule.effect} - random")]
    values = (cell.operator, cell.layer, cell.strength, *(_words(one) for one in shown))
    side = {f"{m} change": _words(evidence.get(f"{m} - unsteered")) for m in SIDE}
    beaten = shown[2]
    weak = beaten is not None and beaten.known and not beaten.low > 0
    note = "no better than random directions on these prompts" if weak else ""
    return {"vector": name, **dict(zip(columns, values, strict=True)), **side, "note": note}


def _words(found: Estimate | None) -> str:
    if found is None or not found.known:
        return "–"
    return f"{found.value:.2f}" if found.low != found.low else f"{found:.2f}"


def _targets(asked: Asked, vectors: Mapping[str, SteeringVector]) -> dict[str, str]:
    """The language each vector should give, where one is known."""
    if not vectors:
        raise SteerlabError("no vectors were given: name files or bundled vectors, say jv.")
    given = asked.languages * len(vectors) if len(asked.languages) == 1 else asked.languages
    if given and len(given) != len(vectors):
        raise SteerlabError(
            f"{len(given)} languages and {len(vectors)} vectors were given: give one for all, or one each."
        )
    codes = given or tuple(vector.name.rsplit("-", 1)[-1] for vector in vectors.values())
    unknown = [code for code in given if code not in LANGUAGES]
    if unknown:
        raise SteerlabError(f"languages {unknown} are not known: give some of {', '.join(LANGUAGES)}.")
    return {name: code for name, code in zip(vectors, codes, strict=True) if code in LANGUAGES}


def _strengths(given: Sequence[str]) -> dict[Any, tuple[float, ...]]:
    """Strengths by operator from words like 0.3 and rotate:0.4."""
    found: dict[Any, tuple[float, ...]] = {}
    for word in given:
        operator, _, number = word.rpartition(":")
        if operator and operator not in OPERATORS:
            raise SteerlabError(f"operator {operator!r} is not known: choose one of {', '.join(OPERATORS)}.")
        try:
            found[operator or "add"] = (*found.get(operator or "add", ()), float(number))
        except ValueError as error:
            raise SteerlabError(
                f"strength {word!r} is no number and not OPERATOR:NUMBER: give, say, 0.3 or rotate:0.4."
            ) from error
    return found


def _layers(vectors: Sequence[SteeringVector]) -> tuple[int, ...]:
    shared = sorted(set(vectors[0].layers).intersection(*(v.layers for v in vectors)))
    if not shared:
        raise SteerlabError("the vectors share no layer: give them one by one.")
    few = min(6, len(shared))
    return tuple(dict.fromkeys(shared[round(i * (len(shared) - 1) / max(few - 1, 1))] for i in range(few)))


def _prompts(asked: Asked) -> tuple[list[str], list[str] | None]:
    """The prompts, and the label each asks for where they are a task's."""
    if asked.prompts is not None:
        found = list(read_texts(asked.prompts, "text"))
        if len(found) < 2:
            raise SteerlabError(
                f"{asked.prompts} holds {len(found)} prompts: some choose and some check, so give two or more."
            )
        return found, None
    chosen = find_task(asked.task)
    named = None if asked.prompt == "none" else asked.prompt
    return [task_prompt(chosen, label, named) for label in chosen.labels], list(chosen.labels)


def _texts(asked: Asked) -> list[str]:
    if asked.texts is not None:
        return list(read_texts(asked.texts, "text"))
    return [load_data("sample", code, "topic").texts[0] for code in LANGUAGES]


def _judge(asked: Asked, labels: Sequence[str] | None, root: Path | None) -> Judge | None:
    """A judge of the task's labels where human train texts are at hand."""
    if labels is None or find_root(root) is None:
        return None
    return human_judge(asked.task, list(LANGUAGES), root)


def reproduce(
    old: Path, out: Path, dtype: str, device: str | None, progress: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Repeat the finished sweep in `old` from its configuration, and compare every number of its table; True when all agree
    to a thousandth. Raises `SteerlabError` where `old` is no finished sweep or was changed since.
    """
    verify(old)
    config = read_config(old)
    if config.get("command") != "sweep":
        raise SteerlabError(f"{old} is not the folder of a sweep: give one that `steerlab sweep` wrote.")
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["asked"].items()}
    for name in ("prompts", "texts"):
        kept[name] = None if kept[name] is None else Path(kept[name])
    root = None if config["data"] is None else Path(config["data"])
    run(Asked(**kept), out, root, False, dtype, device, progress)
    tables: list[Any] = [pd.read_csv(folder / TABLE) for folder in (old, out)]
    rows: list[dict[str, Any]] = []
    same = len(tables[0]) == len(tables[1])
    for measure in MEASURES:
        a, b = (t[t["measure"] == measure]["value"].to_numpy(float) for t in tables)
        if len(a) and len(a) == len(b):
            gap = float(abs(a - b).max())
            same &= gap <= TOLERANCE
            rows.append({"measure": measure, "numbers": len(a), "largest difference": gap, "same": gap <= TOLERANCE})
    return rows, same

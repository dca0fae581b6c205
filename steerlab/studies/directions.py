"""The vectors of a study: shipped, from a folder, or fitted once and kept in the study's folder; and proof that nothing leaked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from steerlab import data
from steerlab.bundled.vectors import RATE, bundled_vectors, vector_texts
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import human_texts
from steerlab.fitting import fit_contrast_vector, fit_language_vectors
from steerlab.loading import BUNDLED
from steerlab.model import TracedModel
from steerlab.records import config_key
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.units import shots_of
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set


def study_vectors(
    model: TracedModel, plan: ModelPlan, config: StudyConfig, root: Path | None, folder: Path, progress: bool = False
) -> dict[str, SteeringVector]:
    """language-CODE and quality-CODE of every language of the study, checked against the model.

    Fitted ones are saved under `folder` by what they were fitted on, and found there by a later run. Raises
    `SteerlabError` when one is missing or belongs to another model, and as `fitting` does.
    """
    if plan.vectors == "bundled":
        if model.name != BUNDLED:
            raise SteerlabError(
                f"model {model.name} of the study has vectors = 'bundled', which belong to {BUNDLED}: give 'fit', or a folder."
            )
        found = bundled_vectors()
    elif plan.vectors == "fit":
        found = _fitted(model, config, root, folder, progress)
    else:
        found = load_set(plan.vectors)
    wanted = [f"{kind}-{code}" for kind in _needed(config) for code in dict.fromkeys(c for c, _ in config.cases())]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SteerlabError(
            f"the vectors of {model.name} ({plan.vectors}) lack {', '.join(missing)}: fit them, or leave out what needs them."
        )
    for name in wanted:
        found[name].check(model.name, model.revision, model.d_model, model.n_layers)
    return {name: found[name] for name in wanted}


def _needed(config: StudyConfig) -> tuple[str, ...]:
    kinds = {part for kind in config.kinds for part in kind.split("+")} - {"none"}
    language = {"language"} if kinds & {"language", "random"} else set[str]()
    return tuple(sorted(language | (kinds & {"quality"})))


def fit_texts(config: StudyConfig, root: Path | None) -> dict[str, dict[str, list[str]]]:
    """corpus -> language -> texts that vectors are fitted on, `vector_texts` of each at most.

    A language needs the others for its mean, so all that the parallel corpora have are used, not only the study's. Raises
    `SteerlabError` where the study's folder of texts lacks one of its languages.
    """
    most = config.vector_texts or None
    if config.texts:
        codes = dict.fromkeys(code for code, _ in config.cases())
        return {"texts": {code: list(data.read_texts(Path(config.texts) / f"{code}.txt"))[:most] for code in codes}}
    return {corpus: {code: own[:most] for code, own in by.items()} for corpus, by in vector_texts(root).items()}


def quality_pairs(config: StudyConfig, code: str, texts: Sequence[str]) -> data.ContrastPairs:
    """Human text beside a worse version of it: a folder of `steerlab contrast make` where the study names one, else corrupted."""
    if code in config.pairs:
        from steerlab.backtranslation import read_pairs

        return read_pairs(Path(config.pairs[code]))
    return data.degraded_pairs(texts, rate=RATE, seed=0)


def _fitted(
    model: TracedModel, config: StudyConfig, root: Path | None, folder: Path, progress: bool
) -> dict[str, SteeringVector]:
    texts = fit_texts(config, root)
    own = {code: part for by in texts.values() for code, part in by.items()}
    pairs = {code: quality_pairs(config, code, own[code]) for code, _ in config.cases()}
    record = {
        "model": model.name,
        "revision": model.revision,
        "dtype": str(model.dtype),
        "texts": {corpus: {c: data.texts_sha256(t) for c, t in by.items()} for corpus, by in texts.items()},
        "pairs": {code: found.sha256 for code, found in pairs.items()},
    }
    place = folder / config_key(record)[:12]
    if (place / "vectors.json").is_file():
        return load_set(place)
    found = {vector.name: vector for vector in fit_language_vectors(model, texts, progress=progress).values()}
    for code, both in pairs.items():
        name = f"quality-{code}"
        found[name] = fit_contrast_vector(
            model, both.human, both.degraded, name=name, kind="quality", progress=progress
        )
    save_set(found, place)
    return load_set(place)  # what a later run will read: float32 as stored, not as computed


def check_leakage(config: StudyConfig, root: Path | None) -> data.LeakageReport:
    """Overlap between vector texts, few-shot examples and human test texts of the whole study, which must be none.

    Vectors from a folder bring no texts along and cannot be checked; the bundled ones can where their data folder is at hand
    (without it, see `bundled/vectors/leakage.json`). Raises `SteerlabError` with the counts and an example.
    """
    groups: dict[str, list[str]] = {"vector texts": [], "few-shot examples": [], "test texts": []}
    if any(plan.vectors == "fit" or (plan.vectors == "bundled" and data.find_root(root)) for plan in config.models):
        groups["vector texts"] = [t for by in fit_texts(config, root).values() for own in by.values() for t in own]
    for code, name in config.cases():
        given: list[str] = []
        if "few-shot" in config.modes:
            given = [text for texts in shots_of(config, code, name, root).values() for text in texts]
        groups["few-shot examples"] += given
        groups["test texts"] += human_texts(name, code, root, config.source or None, without=given).test_texts
    report = data.overlap_report({name: texts for name, texts in groups.items() if texts or name == "vector texts"})
    report.assert_clean()
    return report


def cosines(
    vectors: Mapping[str, SteeringVector], codes: Sequence[str], layers: Mapping[str, int]
) -> list[dict[str, object]]:
    """Cosine between the language and the quality vector of every language at every layer group."""
    rows: list[dict[str, object]] = []
    for code in codes:
        language, quality = vectors.get(f"language-{code}"), vectors.get(f"quality-{code}")
        if language is None or quality is None:
            continue
        for group, layer in layers.items():
            value = float(language.at(layer).double() @ quality.at(layer).double())
            rows.append({"language": code, "group": group, "layer": layer, "cosine": value})
    return rows

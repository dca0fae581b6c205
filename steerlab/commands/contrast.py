"""`steerlab contrast make` and `check`: pairs of human and worse text, and what their surface gives away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from steerlab import data
from steerlab.backtranslation import (
    MODEL,
    PIVOTS,
    BackTranslation,
    Made,
    Texts,
    back_translate,
    distinct,
    read_pairs,
    write_pairs,
)
from steerlab.data import ContrastPairs, Rates, degrade_text, learn_endings, length_matched
from steerlab.data.degrade import SOURCE as DEGRADED
from steerlab.errors import SteerlabError
from steerlab.loading import BUNDLED, source_of
from steerlab.separability import Separability, separability
from steerlab.store import RunFolder
from steerlab.translation import load_translator

METHODS = ("backtranslate", "degrade")
NAMED = ("slovene", "sample")


@dataclass(frozen=True)
class Origin:
    """Where the human texts come from: a file (one text a row), or a data set with its language and split."""

    file: Path | None = None
    source: str | None = None
    language: str | None = None
    split: str | None = None
    column: str = "text"
    limit: int | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Translating:
    """What only back-translation asks for; None stands for the default."""

    models: tuple[str, ...] | None = None
    pivots: tuple[str, ...] | None = None
    beams: int | None = None
    batch_rows: int | None = None
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None


def texts_of(origin: Origin) -> tuple[Sequence[str], Sequence[str]]:
    """The texts and an id for each. Raises `SteerlabError` unless either a file or a data set with a language is named."""
    if (origin.file is None) == (origin.source is None):
        raise SteerlabError("give the human texts either as --texts FILE or as --source NAME --language CODE.")
    if origin.file is not None:
        if origin.split is not None:
            raise SteerlabError("--split belongs to --source: a file of texts has none.")
        texts = data.read_texts(origin.file, origin.column).texts
        return texts, [f"{origin.file.stem}-{number}" for number in range(len(texts))]
    if origin.language is None:
        raise SteerlabError(f"--source {origin.source} needs --language CODE: say which language to read.")
    corpus = data.load(str(origin.source), origin.language, origin.split, origin.root)
    return corpus.texts, [example.id for example in corpus.examples]


def make(
    origin: Origin, method: str, rate: float, seed: int, translating: Translating, out: Path, progress: bool
) -> Made:
    """Write a run folder of pairs. Bad input is refused before the folder is made; the same call continues an interrupted run."""
    if method not in METHODS:
        raise SteerlabError(f"--method {method!r} is not known: give one of {', '.join(METHODS)}.")
    if method == "degrade":
        if not 0 < rate <= 1:
            raise SteerlabError(f"--rate is {rate}: give a share above 0 and at most 1.")
        given = [name for name, value in asdict(translating).items() if value is not None]
        if given:
            raise SteerlabError(
                f"{', '.join(given)} given with --method degrade, which uses no model: leave out what belongs to backtranslate."
            )
        texts, ids = texts_of(origin)
        return _degraded(texts, distinct(texts, ids, origin.limit), rate, seed, out)
    used = distinct(*texts_of(origin), origin.limit)
    if origin.language is None:
        raise SteerlabError("--method backtranslate needs --language CODE, the language of the texts.")
    settings = BackTranslation(
        origin.language,
        translating.pivots or PIVOTS,
        rate,
        seed,
        1 if translating.beams is None else translating.beams,
        32 if translating.batch_rows is None else translating.batch_rows,
        256 if translating.max_new_tokens is None else translating.max_new_tokens,
    )
    dtype = translating.dtype or "float32"
    models = [load_translator(name, dtype=dtype, device=translating.device) for name in translating.models or (MODEL,)]
    return back_translate(models, used, settings, out, dtype=dtype, progress=progress)


def _degraded(texts: Sequence[str], used: Texts, rate: float, seed: int, out: Path) -> Made:
    """Pairs of the model-free degrader; endings are learned from all of the texts, also those beyond the limit."""
    rates, endings = Rates.of(rate), learn_endings(texts)
    config = {
        "command": "contrast make",
        "method": "degrade",
        "rates": asdict(rates),
        "seed": seed,
        "texts": {"count": len(used.texts), "sha256": used.sha256},
        "endings": {"words": len(endings.forms), "share": endings.share, "learned_from": data.texts_sha256(texts)},
    }
    with RunFolder.open(out, config) as run:
        rows = [
            {"degraded": degrade_text(text, endings, rates, seed, name)}
            for name, text in zip(used.ids, used.texts, strict=True)
        ]
        return write_pairs(run, used, rows, DEGRADED)


def find_pairs(
    where: str, language: str | None = None, hops: int = 2, split: str = "all", root: Path | None = None
) -> ContrastPairs:
    """The pairs of a run folder or .jsonl, of the Slovene corpus ("slovene"), or of the bundled sample set ("sample")."""
    if where == "sample":
        return data.load_sample_pairs(language)
    if language is not None:
        raise SteerlabError(f"--language {language} belongs to the pairs named sample: leave it out for {where}.")
    if where == "slovene":
        return data.load_pairs(root, hops, split)
    if not Path(where).exists():
        raise SteerlabError(
            f"{where!r} is no file or folder: give a run folder of `contrast make`, a .jsonl with human and degraded, or one of "
            f"{', '.join(NAMED)}."
        )
    return read_pairs(where)


def check(
    pairs: ContrastPairs, model: str | None, matched: bool, folds: int, seed: int
) -> dict[str, tuple[int, Separability]]:
    """By name of the set, the pairs it leaves out and what their surface gives away: all, and with `matched` the length-matched.

    With a model lengths are counted in its tokens as well, and matched in them.
    """
    count = None if model is None else token_counter(model)
    found = {"all": (pairs.dropped, separability(pairs, tokens=count, folds=folds, seed=seed))}
    if matched:
        fewer = length_matched(pairs, count or len)
        found["length-matched"] = (fewer.dropped, separability(fewer, tokens=count, folds=folds, seed=seed))
    return found


def token_counter(model: str) -> Callable[[str], int]:
    """Counts a text's tokens with a model's tokenizer, special ones left out."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source_of(model))
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"the tokenizer of {model!r} could not be loaded ({first}): give a hub id, a local folder, or {BUNDLED!r}."
        ) from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def table(found: Separability) -> list[dict[str, Any]]:
    """One row per cue, one column per surface, for reading."""
    rows: dict[str, dict[str, Any]] = {}
    for cue in found.cues:
        rows.setdefault(cue.name, {"AUROC of": cue.name})[cue.surface] = f"{cue.auroc:.2f}"
    for within in found.within:
        name = f"degraded longer / shorter ({within.unit})"
        shares = f"{within.longer.value:.0%} / {within.shorter.value:.0%} of pairs, sign test p = {within.test.p:.2g}"
        rows.setdefault(name, {"AUROC of": name})[within.surface] = shares
    return list(rows.values())

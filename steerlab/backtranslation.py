"""Pairs of human text and its chained back-translation, with corrupted tokens between the hops; resumable to the byte.

A text goes through every pivot language and back (Cegin et al., arXiv 2606.18389: German, then Chinese), and between two hops a
share of its tokens is dropped, swapped or repeated. The batches follow from the texts and settings alone, so that a run that was
killed continues with the batch it was in and ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from steerlab.batch import plan_batches
from steerlab.data.contrast import ContrastPair, ContrastPairs, corrupt_tokens
from steerlab.data.corpus import texts_sha256
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.records import encode
from steerlab.store import RunFolder, read_rows, verify
from steerlab.translation import TOKEN_BUDGET, Translator

MODEL = "facebook/nllb-200-distilled-600M"
PIVOTS = ("deu_Latn", "zho_Hans")
SOURCE = "backtranslated"
TRANSLATIONS, PAIRS, SUMMARY = "translations.jsonl", "pairs.jsonl", "summary.json"


@dataclass(frozen=True)
class BackTranslation:
    """What decides the degraded side besides the model: the text's language, the languages in between, and how they are crossed.

    rate: share of tokens corrupted between two hops. beams 1 is greedy. Raises `SteerlabError` for what cannot be.
    """

    language: str
    pivots: tuple[str, ...] = PIVOTS
    rate: float = 0.3
    seed: int = 0
    beams: int = 1
    batch_rows: int = 32
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.pivots:
            raise SteerlabError("no pivot language was given: give at least one to translate through.")
        if not 0.0 <= self.rate <= 1.0:
            raise SteerlabError(f"the corruption rate {self.rate} is not a share: give a number from 0 to 1.")
        for name in ("beams", "batch_rows", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise SteerlabError(f"{name} is {getattr(self, name)}: give at least 1.")

    @property
    def hops(self) -> tuple[tuple[str, str], ...]:
        """(from, to) of every translation, first to last."""
        stops = (self.language, *self.pivots, self.language)
        return tuple(pairwise(stops))


@dataclass(frozen=True)
class Texts:
    """The texts that are used, once each, and `counts` of those given, empty, repeated and beyond the limit."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def sha256(self) -> str:
        """SHA-256 of the texts with their ids."""
        return texts_sha256(f"{name}\x1f{text}" for name, text in zip(self.ids, self.texts, strict=True))


@dataclass(frozen=True)
class Made:
    """Pairs and where the texts went: `given` is the sum of the other counts, `kept` of which are pairs."""

    pairs: ContrastPairs
    counts: dict[str, int]


def distinct(texts: Sequence[str], ids: Sequence[str] | None = None, limit: int | None = None) -> Texts:
    """Drop empty texts and those equal to an earlier one after `normalise_surface`, then keep the first `limit`,
    in NFC and with single spaces.

    Ids are `text-0`, `text-1`, ... by place unless given. Raises `SteerlabError` for repeated ids, a limit below 1, and when no
    text is left.
    """
    names = [f"text-{number}" for number in range(len(texts))] if ids is None else list(ids)
    if len(names) != len(texts) or len(set(names)) < len(names):
        raise SteerlabError(
            f"{len(texts)} texts and {len(set(names))} different ids were given: give each text its own."
        )
    if limit is not None and limit < 1:
        raise SteerlabError(f"the limit is {limit}: use at least 1 text.")
    forms = [normalise_surface(text) for text in texts]
    seen: dict[str, int] = {}
    for number, form in enumerate(forms):
        if form:
            seen.setdefault(form, number)
    kept = list(seen.values())
    used = kept[:limit]
    if not used:
        raise SteerlabError(f"{len(texts)} texts were given and none holds a word: give texts to degrade.")
    empty = forms.count("")
    counts = {
        "given": len(texts),
        "empty": empty,
        "duplicates": len(texts) - empty - len(kept),
        "beyond_limit": len(kept) - len(used),
    }
    plain = tuple(" ".join(unicodedata.normalize("NFC", texts[i]).split()) for i in used)
    return Texts(tuple(names[i] for i in used), plain, counts)


def back_translate(
    translators: Sequence[Translator],
    texts: Texts,
    settings: BackTranslation,
    out: str | Path,
    *,
    dtype: str = "float32",
    progress: bool = True,
) -> Made:
    """Send every text around, and leave pairs.jsonl, summary.json and the manifest in the run folder `out`; give the same arguments
    again to continue there. `translators`: one for all hops, or one per hop (models of one direction).

    A row of pairs.jsonl holds the human text, the degraded one, and each hop's text before and after corruption. Dropped and
    counted: texts too long for a model, translations that are empty or did not end, and pairs that are equal to the letter
    (`identical`) or after `normalise_surface` (`identical_surface`).
    Raises `SteerlabError` before the folder is made for languages or lengths a model cannot take.
    """
    hops = settings.hops
    if len(translators) not in (1, len(hops)):
        raise SteerlabError(
            f"{len(translators)} models were given for {len(hops)} translations: give one for all, or one for each."
        )
    chain = list(translators) * (len(hops) if len(translators) == 1 else 1)
    route = [(own.code(a), own.code(b)) for own, (a, b) in zip(chain, hops, strict=True)]
    for own in chain:
        if own.limit is not None and settings.max_new_tokens >= own.limit:
            raise SteerlabError(
                f"max_new_tokens is {settings.max_new_tokens} and {own.name} has {own.limit} positions: give less than that."
            )
    config = {
        "command": "contrast make",
        "method": "backtranslate",
        "models": [{"model": own.name, "revision": own.revision, "dtype": dtype} for own in translators],
        "route": [list(hop) for hop in route],
        **asdict(settings),
        "texts": {"count": len(texts.texts), "sha256": texts.sha256},
    }
    batches = plan_batches(chain[0].lengths(texts.texts, route[0][0]), TOKEN_BUDGET, settings.batch_rows)
    with RunFolder.open(out, config) as run, tqdm(total=len(texts.texts), unit="text", disable=not progress) as bar:
        bar.set_description(" > ".join([route[0][0], *(b for _, b in route)]))
        for number, members in enumerate(batches):
            if str(number) not in run.completed_batches(TRANSLATIONS):
                rows = _around(chain, route, texts, members, settings)
                run.append(TRANSLATIONS, rows, batch=str(number))
            bar.update(len(members))
        done = {int(row["row"]): row for row in run.read(TRANSLATIONS)}
        rows = [done[i] for i in range(len(texts.texts))]
        return write_pairs(run, texts, rows, SOURCE)


def write_pairs(run: RunFolder, texts: Texts, rows: Iterable[Mapping[str, Any]], source: str) -> Made:
    """Finish a run folder: the pairs that show a contrast, counts, and the manifest. One row per text: `degraded`, perhaps `hops`,
    and `dropped` (why there is no degraded text, or "").
    """
    reasons: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []
    for name, human, row in zip(texts.ids, texts.texts, rows, strict=True):
        reason = row.get("dropped") or _same(human, row["degraded"])
        reasons[reason or "kept"] += 1
        if not reason:
            extra = {"hops": row["hops"]} if "hops" in row else {}
            kept.append({"id": name, "human": human, "degraded": row["degraded"], "source": source, **extra})
    counts = {**texts.counts, **{why: n for why, n in sorted(reasons.items()) if why != "kept"}, "kept": len(kept)}
    pairs = ContrastPairs.of(ContrastPair(r["id"], r["human"], r["degraded"], source) for r in kept)
    pairs = ContrastPairs(pairs.pairs, len(texts.texts) - len(kept))
    run.write_text(PAIRS, b"".join(encode(row) for row in kept).decode())
    run.write_json(SUMMARY, {"source": source, "counts": counts, "pairs_sha256": pairs.sha256, **run.config})
    run.finish()
    return Made(pairs, counts)


def read_pairs(where: str | Path) -> ContrastPairs:
    """The pairs of a finished run folder of `contrast make`, or of a .jsonl whose rows have human and degraded (id, source).

    Raises `SteerlabError` for a folder that is unfinished or was changed, and for a row without the two texts.
    """
    where = Path(where)
    if where.is_dir():
        verify(where)
    file = where / PAIRS if where.is_dir() else where
    pairs = []
    for number, row in enumerate(read_rows(file), start=1):
        missing = [name for name in ("human", "degraded") if not isinstance(row.get(name), str)]
        if missing:
            raise SteerlabError(
                f"row {number} of {file} has no text as {missing[0]!r} (it has {', '.join(row)}): a pair needs human and degraded."
            )
        name, source = row.get("id", f"{file.stem}-{number}"), row.get("source", file.stem)
        pairs.append(ContrastPair(str(name), row["human"].strip(), row["degraded"].strip(), str(source)))
    if not pairs:
        raise SteerlabError(f"{file} holds no pairs: give one with at least one row.")
    return ContrastPairs.of(pairs)


def _same(human: str, degraded: str) -> str:
    if human == degraded:
        return "identical"
    return "identical_surface" if normalise_surface(human) == normalise_surface(degraded) else ""


def _around(
    chain: Sequence[Translator],
    route: Sequence[tuple[str, str]],
    texts: Texts,
    members: Sequence[int],
    settings: BackTranslation,
) -> list[dict[str, Any]]:
    """One batch through every hop; a text that cannot go on is left where it is, with the reason."""
    rows: list[dict[str, Any]] = [
        {"row": i, "id": texts.ids[i], "hops": [], "degraded": "", "dropped": ""} for i in members
    ]
    now = {at: texts.texts[i] for at, i in enumerate(members)}
    for number, (own, (source, target)) in enumerate(zip(chain, route, strict=True)):
        sizes = dict(zip(now, own.lengths(list(now.values()), source), strict=True))
        for at in [at for at in now if own.limit is not None and sizes[at] > own.limit]:
            rows[at]["dropped"] = "too_long"
            del now[at]
        found = own.run(
            list(now.values()),
            source,
            target,
            batch_rows=settings.batch_rows,
            num_beams=settings.beams,
            max_new_tokens=settings.max_new_tokens,
        )
        for at, translation in zip(list(now), found, strict=True):
            text = " ".join(translation.text.split())
            rows[at]["hops"].append({"language": target, "text": text})
            if not text or not translation.ended:
                rows[at]["dropped"] = "empty_translation" if not text else "unended"
                del now[at]
            elif number < len(route) - 1:
                key = f"{texts.ids[members[at]]}\x1f{number}"
                now[at] = corrupt_tokens(text, settings.rate, settings.seed, key)
                rows[at]["hops"][-1]["corrupted"] = now[at]
            else:
                rows[at]["degraded"] = text
    return rows

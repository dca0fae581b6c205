"""The registry of data sets and the two verbs that read them: `load` for texts, `load_pairs` for human/degraded pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from steerlab.data import comments, english, ifeval, labelled, parallel, plain
from steerlab.data.corpus import Corpus, Example, SourceCard
from steerlab.data.languages import LANGUAGES
from steerlab.data.languages import language as find_language
from steerlab.data.reading import find_root
from steerlab.errors import SteerlabError
from steerlab.records import understood

Reader = Callable[[Path | None, str, str], tuple[list[Example], int]]
ALIASES = {"dev": "valid", "validation": "valid"}


@dataclass(frozen=True)
class Source:
    """A data set: its card, the languages and splits it has, and the reader `(root, language, split) -> (examples, dropped)`.

    `offensive` texts are read only by callers that allow them.
    """

    card: SourceCard
    languages: tuple[str, ...]
    splits: tuple[str, ...]
    read: Reader
    offensive: bool = False


UPSTREAM = ("train", "valid", "test")
DESIGNED = ("train", "vectors", "heldout", "all")

SOURCES: dict[str, Source] = {
    source.card.name: source
    for source in (
        Source(labelled.SIB200, tuple(LANGUAGES), UPSTREAM, labelled.read_sib200),
        Source(labelled.NUSAX, ("id", "jv", "su", "en"), (*UPSTREAM, "lm"), labelled.read_nusax),
        Source(labelled.NUSA_TOPIC, ("jv", "su"), UPSTREAM, labelled.read_nusa_topic),
        Source(labelled.NUSA_SENTIMENT, ("jv", "su"), UPSTREAM, labelled.read_nusa_sentiment),
        Source(labelled.AFRISENTI, ("am",), UPSTREAM, labelled.read_afrisenti),
        Source(labelled.LCC, ("da",), UPSTREAM, labelled.read_lcc),
        Source(labelled.LCC_PLAIN, ("da",), ("train", "all"), labelled.read_lcc_plain),
        Source(
            parallel.NTREX,
            tuple(c for c, entry in LANGUAGES.items() if entry.ntrex),
            DESIGNED,
            parallel.read_ntrex,
        ),
        Source(parallel.NUSAX_MT, ("id", "jv", "su", "en"), DESIGNED, parallel.read_nusax_mt),
        Source(parallel.SLOVENE, ("sl",), DESIGNED, parallel.read_slovene_human),
        Source(plain.UD_TEXT, ("sk", "mt", "id"), ("train", "all"), plain.read_ud_text),
        Source(english.SCITLDR, ("en",), UPSTREAM, english.read_scitldr),
        Source(english.COMMONSENSE, ("en",), UPSTREAM, english.read_commonsense),
        Source(comments.TOXIC_COMMENTS, ("en",), UPSTREAM, comments.read_comments, offensive=True),
        Source(ifeval.IFEVAL, ("en",), ("all",), ifeval.read_ifeval),
        Source(ifeval.IFEVAL_SINGLE, ("en",), ifeval.SPLITS[1:], ifeval.read_ifeval),
        Source(plain.SAMPLE, tuple(LANGUAGES), ("all", "topic", "sentiment"), plain.read_sample),
    )
}


def find_source(name: str) -> Source:
    """The registered source. Raises `SteerlabError` naming the known ones and the nearest."""
    if name in SOURCES:
        return SOURCES[name]
    close = get_close_matches(name.casefold(), SOURCES, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise SteerlabError(f"data set {name!r} is not known: give one of {', '.join(SOURCES)}{hint}")


def load(
    name: str,
    language: str,
    split: str | None = None,
    root: Path | str | None = None,
    binary: bool = False,
    allow_offensive: bool = False,
) -> Corpus:
    """The texts of a data set in one language and split.

    `split` defaults to `train` (to `all` for the sample set, whose splits are its tasks); `dev` and `validation` mean `valid`. Files come
    from `root` or the folder in `STEERLAB_DATA`, else from the public source through `datasets`. `binary` keeps only the rows
    labelled positive or negative. Raises `SteerlabError` on an unknown name, language or split, for offensive texts unless
    `allow_offensive`, and when the data cannot be read.
    """
    source = find_source(name)
    code = find_language(language).code
    if code not in source.languages:
        raise SteerlabError(f"data set {name!r} has no {code!r}: it has {', '.join(source.languages)}.")
    wanted = ALIASES.get(split or "", split) or ("train" if "train" in source.splits else source.splits[0])
    if wanted not in source.splits:
        raise SteerlabError(f"data set {name!r} has no split {split!r}: it has {', '.join(source.splits)}.")
    if source.offensive and not allow_offensive:
        raise SteerlabError(
            f"data set {name!r} holds offensive text: give allow_offensive=True (--offensive) if you want it."
        )
    with understood(f"data set {name!r}"):
        examples, dropped = source.read(find_root(root), code, wanted)
    if binary:
        kept = [example for example in examples if example.label in ("positive", "negative")]
        if not kept:
            raise SteerlabError(f"data set {name!r} has no rows labelled positive or negative: leave binary out.")
        dropped, examples = dropped + len(examples) - len(kept), kept
    return Corpus(tuple(examples), source.card, dropped)

"""Parallel text, split so that training, vectors and evaluation never share a document: NTREX, NusaX-MT, Slovene back-translation."""

from __future__ import annotations

from pathlib import Path

from steerlab.data.contrast import ContrastPair, ContrastPairs
from steerlab.data.corpus import Example, SourceCard
from steerlab.data.languages import LANGUAGES
from steerlab.data.reading import Hub, Table, find_root, read_rows
from steerlab.errors import SteerlabError

NTREX = SourceCard(
    "ntrex",
    "https://github.com/MicrosoftTranslator/NTREX",
    "mteb/NTREX",
    "CC BY-SA 4.0",
    "Federmann et al. 2022, NTREX-128: News Test References for MT Evaluation of 128 Languages, SUMEval",
)
NUSAX_MT = SourceCard(
    "nusax-mt",
    "https://github.com/IndoNLP/nusax",
    "indonlp/NusaX-MT",
    "CC BY-SA 4.0",
    "Winata et al. 2023, NusaX: Multilingual Parallel Sentiment Dataset for 10 Indonesian Local Languages, EACL",
)
SLOVENE = SourceCard(
    "slovene-backtranslation",
    "https://github.com/UL-FRI-NLP-Course-2022-23/nlp-course-skupina-10",
    None,
    "Apache-2.0 (human sentences: SUK corpus, CLARIN.SI 11356/1747, own CC licence)",
    "UL FRI NLP course 2022/23, group 10: SUK sentences with DeepL back-translations",
)

RAW = "https://raw.githubusercontent.com"
NTREX_PIN = f"{RAW}/MicrosoftTranslator/NTREX/8561f6a622db9edad1217683e5c83daefd8bb2bf/NTREX-128"
NUSAX_PIN = f"{RAW}/IndoNLP/nusax/75b0be5d982348332509f296e10d9bf9cb66d60f/datasets"
SLOVENE_PIN = f"{RAW}/UL-FRI-NLP-Course-2022-23/nlp-course-skupina-10/8dfbf9e8b2f5d69823d1cdf163bf90fa5186a669/data"

Found = tuple[list[Example], int]

NTREX_LINES = 1997
# Upstream has no splits. `vectors` and `heldout` start at the document starts nearest to 62 % and 82 % of the lines (DOCUMENT_IDS.tsv).
NTREX_SPANS = {
    "train": (0, 1226),
    "vectors": (1226, 1631),
    "heldout": (1631, NTREX_LINES),
    "all": (0, NTREX_LINES),
}
# Held-out lines that quote a sentence of an earlier split in at least one of the ten languages (found by `leakage.overlap_report`).
NTREX_QUOTED = frozenset({1688, 1729, 1761, 1764, 1897})


def read_ntrex(root: Path | None, code: str, split: str) -> Found:
    """NTREX news sentences; ids are line numbers, the same in every language. Whole documents stay together (`NTREX_SPANS`)."""
    entry = LANGUAGES[code]
    file = "newstest2019-src.eng.txt" if code == "en" else f"newstest2019-ref.{entry.ntrex}.txt"
    hub = Hub("mteb/NTREX", "test", config="default")
    table = Table(f"ntrex/{file}", (entry.sib200,), lines=True, hub=hub, url=f"{NTREX_PIN}/{file}")
    lines = [row[entry.sib200].strip() for row in read_rows(root, table)]
    if len(lines) != NTREX_LINES:
        raise SteerlabError(
            f"{table.local} has {len(lines)} lines, not {NTREX_LINES}: the splits need the published file."
        )
    low, high = NTREX_SPANS[split]
    skipped = NTREX_QUOTED if split == "heldout" else frozenset()
    kept = [
        Example(f"ntrex-{number:04d}", lines[number], None, code, "ntrex", split)
        for number in range(low, high)
        if lines[number] and number not in skipped
    ]
    return kept, high - low - len(kept)


NUSAX_NAMES = {"id": "indonesian", "jv": "javanese", "su": "sundanese", "en": "english"}
NUSAX_FILES = {
    "train": ("train",),
    "vectors": ("train", "valid"),
    "heldout": ("test",),
    "all": ("train", "valid", "test"),
}
# Rows of the upstream train file that belong to `train`; the rest of it belongs to `vectors`.
NUSAX_TRAINED = 300


def nusax_mt_part(root: Path | None, code: str, split: str) -> list[Example]:
    """Rows of NusaX-MT. train: upstream train 0-299; vectors: upstream train 300-499 and valid; heldout: upstream test.

    The Hub has this set as pairs of languages only, so the download is the public file.
    """
    column = NUSAX_NAMES[code]
    found: list[Example] = []
    for file in NUSAX_FILES[split]:
        rows = read_rows(root, Table(f"nusax/mt/{file}.csv", (column,), url=f"{NUSAX_PIN}/mt/{file}.csv"))
        for number, row in enumerate(rows):
            if file == "train" and split != "all" and (split == "train") != (number < NUSAX_TRAINED):
                continue
            found.append(Example(f"nusax-mt-{file}-{number}", row[column].strip(), None, code, "nusax-mt", split))
    return found


def read_nusax_mt(root: Path | None, code: str, split: str) -> Found:
    """NusaX-MT reviews and tweets; ids are the same in every language (splits: `nusax_mt_part`)."""
    rows = nusax_mt_part(root, code, split)
    kept = [example for example in rows if example.text]
    return kept, len(rows) - len(kept)


SLOVENE_SPANS: dict[str, tuple[int, int | None]] = {
    "train": (0, 3000),
    "vectors": (3000, 3900),
    "heldout": (3900, None),
    "all": (0, None),
}
SLOVENE_COLUMNS = ("human", "sl-en-sl", "sl-en-de-en-sl")


def _slovene_rows(root: Path | None, split: str) -> list[tuple[str, tuple[str, ...]]]:
    """(id, (human, one hop, two hops)) of the rows of a split."""
    url = f"{SLOVENE_PIN}/backtranslation/sentences.csv"
    table = Table("slovene_backtranslation/sentences.csv", SLOVENE_COLUMNS, header=False, url=url)
    low, high = SLOVENE_SPANS[split]
    numbered = list(enumerate(read_rows(root, table)))[low:high]
    return [(f"slovene-{number}", tuple(row[name].strip() for name in SLOVENE_COLUMNS)) for number, row in numbered]


def load_pairs(root: Path | str | None = None, hops: int = 2, split: str = "all") -> ContrastPairs:
    """Human Slovene beside its DeepL back-translation: `hops` 1 is sl-en-sl, 2 is sl-en-de-en-sl.

    Splits by row: train 0-2999, vectors 3000-3899, heldout from 3900, all. Pairs whose sides are equal are dropped and counted.
    Raises `SteerlabError` on other `hops` or splits.
    """
    if hops not in (1, 2):
        raise SteerlabError(f"hops {hops} is not known: give 1 (sl-en-sl) or 2 (sl-en-de-en-sl).")
    if split not in SLOVENE_SPANS:
        raise SteerlabError(f"the Slovene pairs have no split {split!r}: they have {', '.join(SLOVENE_SPANS)}.")
    rows = _slovene_rows(find_root(root), split)
    source = f"{SLOVENE.name}:{SLOVENE_COLUMNS[hops]}"
    return ContrastPairs.of(ContrastPair(number, texts[0], texts[hops], source) for number, texts in rows)


def read_slovene_human(root: Path | None, code: str, split: str) -> Found:
    """The human side of the Slovene pairs as plain text, same splits as `load_pairs`."""
    rows = _slovene_rows(root, split)
    kept = [Example(number, texts[0], None, code, SLOVENE.name, split) for number, texts in rows if texts[0]]
    return kept, len(rows) - len(kept)

"""Data sets with labels: topic (SIB-200, NusaWrites) and sentiment (NusaX, NusaWrites, AfriSenti, LCC Danish)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from steerlab.data.corpus import Example, SourceCard
from steerlab.data.languages import LANGUAGES
from steerlab.data.leakage import normalise
from steerlab.data.parallel import NUSAX_NAMES, NUSAX_PIN, nusax_mt_part
from steerlab.data.reading import Hub, Row, Table, read_rows

SIB200 = SourceCard(
    "sib200",
    "https://github.com/dadelani/sib-200",
    "Davlan/sib200",
    "CC BY-SA 4.0 (text: FLORES-200)",
    "Adelani et al. 2024, SIB-200: A Simple, Inclusive, and Big Evaluation Dataset for Topic Classification in 200+ "
    "Languages and Dialects, EACL",
)
NUSAX = SourceCard(
    "nusax",
    "https://github.com/IndoNLP/nusax",
    "indonlp/NusaX-senti",
    "CC BY-SA 4.0",
    "Winata et al. 2023, NusaX: Multilingual Parallel Sentiment Dataset for 10 Indonesian Local Languages, EACL",
)
_NUSA_URL = "https://github.com/IndoNLP/nusa-writes"
_NUSA_LICENCE = "Apache-2.0 (repository; the paper states CC BY-SA 4.0)"
_NUSA_PAPER = (
    "Cahyawijaya et al. 2023, NusaWrites: Constructing High-Quality Corpora for Underrepresented and Extremely Low-Resource "
    "Languages, IJCNLP-AACL"
)
NUSA_TOPIC = SourceCard("nusa-writes-topic", _NUSA_URL, "indonlp/nusaparagraph_topic", _NUSA_LICENCE, _NUSA_PAPER)
NUSA_SENTIMENT = SourceCard(
    "nusa-writes-sentiment", _NUSA_URL, "indonlp/nusatranslation_senti", _NUSA_LICENCE, _NUSA_PAPER
)
AFRISENTI = SourceCard(
    "afrisenti",
    "https://github.com/afrisenti-semeval/afrisent-semeval-2023",
    "shmuhammad/AfriSenti-twitter-sentiment",
    "CC BY 4.0",
    "Muhammad et al. 2023, AfriSenti: A Twitter Sentiment Analysis Benchmark for African Languages, EMNLP",
)
_LCC_URL = "https://github.com/fnielsen/lcc-sentiment"
_LCC_PAPER = "Nielsen 2017, lcc-sentiment; sentences: Goldhahn et al. 2012, Leipzig Corpora Collection, LREC"
LCC = SourceCard("lcc-danish", _LCC_URL, None, "CC BY", _LCC_PAPER)
LCC_PLAIN = SourceCard("lcc-danish-plain", _LCC_URL, None, "CC BY", _LCC_PAPER)

RAW = "https://raw.githubusercontent.com"
SIB200_PIN = f"{RAW}/dadelani/sib-200/593cea88519930f776c1a4a1980b6a35b39dca57/data/annotated"
NUSA_PIN = f"{RAW}/IndoNLP/nusa-writes/b337f511185cd44c9c57ff906ecef1af6165adbc/data"
AFRISENTI_PIN = f"{RAW}/afrisenti-semeval/afrisent-semeval-2023/5aec3cfcf87b59f885e98641f72e52182776429d/data"
LCC_PIN = f"{RAW}/fnielsen/lcc-sentiment/7d3237742ebf07f54e0347963eaacc82d039aeb6"

Found = tuple[list[Example], int]


def distinct(examples: Iterable[Example], banned: Iterable[str] = ()) -> Found:
    """The examples without empty texts, repeats of an earlier text, and texts equal to a banned one after `leakage.normalise`.

    The second value counts what was left out.
    """
    forbidden = {normalise(text) for text in banned}
    seen: set[str] = set()
    kept: list[Example] = []
    total = 0
    for example in examples:
        total += 1
        if example.text and example.text not in seen and (not forbidden or normalise(example.text) not in forbidden):
            seen.add(example.text)
            kept.append(example)
    return kept, total - len(kept)


def _examples(
    rows: Iterable[Row], source: str, code: str, split: str, text: str, label: str, key: str | None
) -> list[Example]:
    found = []
    for number, row in enumerate(rows):
        name = row[key] if key else f"{split}-{number}"
        found.append(Example(f"{source}-{name}", row[text].strip(), row[label].strip().casefold(), code, source, split))
    return found


def _hub_split(split: str) -> str:
    return "validation" if split == "valid" else split


def read_sib200(root: Path | None, code: str, split: str) -> Found:
    """SIB-200; ids are the FLORES sentence ids, the same in every language. Upstream calls the validation split `dev`."""
    name, file = LANGUAGES[code].sib200, "dev" if split == "valid" else split
    table = Table(
        f"sib200/{name}/{file}.tsv",
        ("index_id", "category", "text"),
        "\t",
        quoted=False,
        hub=Hub("Davlan/sib200", _hub_split(split), config=name),
        url=f"{SIB200_PIN}/{name}/{file}.tsv",
    )
    return distinct(_examples(read_rows(root, table), "sib200", code, split, "text", "category", "index_id"))


def read_nusax(root: Path | None, code: str, split: str) -> Found:
    """NusaX sentiment. Split `lm` is `train` without the rows that NusaX-MT keeps back for language vectors."""
    file = "train" if split == "lm" else split
    path = f"sentiment/{NUSAX_NAMES[code]}/{file}.csv"
    hub = Hub("indonlp/NusaX-senti", _hub_split(file), folder=LANGUAGES[code].sib200[:3])
    table = Table(f"nusax/{path}", ("id", "text", "label"), hub=hub, url=f"{NUSAX_PIN}/{path}")
    kept_back = [example.text for example in nusax_mt_part(root, code, "vectors")] if split == "lm" else []
    return distinct(_examples(read_rows(root, table), "nusax", code, split, "text", "label", "id"), kept_back)


def _nusa_writes(root: Path | None, code: str, split: str, card: SourceCard, stem: str, hub_name: str) -> Found:
    name = LANGUAGES[code].sib200[:3]

    def part(part_split: str) -> list[Example]:
        file = f"{stem}-{name}-{part_split}.csv"
        hub = Hub(f"indonlp/{hub_name}", _hub_split(part_split), folder=f"{hub_name}_{name}_nusantara_text")
        table = Table(f"nusa_writes/{file}", ("id", "text", "label"), hub=hub, url=f"{NUSA_PIN}/{file}")
        return _examples(read_rows(root, table), card.name, code, part_split, "text", "label", "id")

    trained = [example.text for example in part("train")] if split != "train" else []
    return distinct(part(split), trained)


def read_nusa_topic(root: Path | None, code: str, split: str) -> Found:
    """NusaWrites topic: paragraphs written by people. Rows of `valid` and `test` that stand in `train` are dropped."""
    return _nusa_writes(root, code, split, NUSA_TOPIC, "nusa_alinea-topic", "nusaparagraph_topic")


def read_nusa_sentiment(root: Path | None, code: str, split: str) -> Found:
    """NusaWrites sentiment: tweets translated by people. Rows of `valid` and `test` that stand in `train` are dropped."""
    return _nusa_writes(root, code, split, NUSA_SENTIMENT, "nusa_kalimat-senti", "nusatranslation_senti")


def read_afrisenti(root: Path | None, code: str, split: str) -> Found:
    """AfriSenti tweets, three labels; rows of `valid` and `test` that stand in `train` are dropped.

    In Amharic, neutral is 52 % of train and 11 % of test: report macro-F1.
    """
    name = LANGUAGES[code].sib200[:3]

    def part(part_split: str) -> list[Example]:
        file = f"{name}/{'dev' if part_split == 'valid' else part_split}.tsv"
        hub = Hub("shmuhammad/AfriSenti-twitter-sentiment", _hub_split(part_split), folder=name)
        table = Table(
            f"afrisenti/{file}",
            ("tweet", "label"),
            "\t",
            quoted=False,
            hub=hub,
            url=f"{AFRISENTI_PIN}/{file}",
        )
        return _examples(read_rows(root, table), "afrisenti", code, part_split, "tweet", "label", None)

    trained = [example.text for example in part("train")] if split != "train" else []
    return distinct(part(split), trained)


LCC_FILES = ("dan_mixed_2014_10K-sentences.csv", "dan_newscrawl_2011_10K-sentences.csv")


def lcc_split(text: str) -> str:
    """The split of a rated Danish sentence: 60 % train, 10 % valid, 30 % test by a hash of the text, whatever its label."""
    share = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") / 2**64
    return "train" if share < 0.6 else "valid" if share < 0.7 else "test"


def _lcc_rows(root: Path | None) -> list[tuple[str, str, str]]:
    """(id, valence, text) of both Leipzig files; upstream publishes no splits."""
    found = []
    for file in LCC_FILES:
        table = Table(f"lcc_danish/{file}", ("number", "valence", "text"), url=f"{LCC_PIN}/{file}")
        for row in read_rows(root, table):
            found.append((f"{file.split('_')[1]}-{row['number']}", row["valence"].strip(), row["text"].strip()))
    return found


def read_lcc(root: Path | None, code: str, split: str) -> Found:
    """The 499 Danish sentences with an AFINN valence; the label is its sign, 0 is neutral. Splits: `lcc_split`, not stratified."""
    rated: list[Example] = []
    for number, valence, text in _lcc_rows(root):
        if valence and lcc_split(text) == split:
            value = float(valence)
            label = "positive" if value > 0 else "negative" if value < 0 else "neutral"
            rated.append(Example(f"lcc-danish-{number}", text, label, code, "lcc-danish", split))
    return distinct(rated)


def read_lcc_plain(root: Path | None, code: str, split: str) -> Found:
    """All Danish sentences as plain text. `train` leaves out every text that a `valid` or `test` row of `lcc-danish` holds."""
    rows = _lcc_rows(root)
    kept_back = (
        [text for _, valence, text in rows if valence and lcc_split(text) != "train"] if split == "train" else []
    )
    examples = (Example(f"lcc-danish-plain-{n}", text, None, code, "lcc-danish-plain", split) for n, _, text in rows)
    return distinct(examples, kept_back)

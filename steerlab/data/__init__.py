"""Texts: data sets behind one `load`, their licences, and the checks that keep training, vectors and evaluation apart."""

from __future__ import annotations

from steerlab.data.comments import redacted
from steerlab.data.contrast import ContrastPair, ContrastPairs, corrupt_tokens, degraded_pairs, length_matched
from steerlab.data.corpus import Corpus, Example, SourceCard, texts_sha256
from steerlab.data.degrade import Endings, Rates, degrade, degrade_text, learn_endings
from steerlab.data.files import TextFile, read_texts
from steerlab.data.languages import LANGUAGES, Language, language
from steerlab.data.leakage import LeakageReport, overlap_report
from steerlab.data.multiple_choice import MultipleChoice
from steerlab.data.parallel import load_pairs
from steerlab.data.plain import load_sample_pairs
from steerlab.data.reading import data_root, find_root
from steerlab.data.sources import SOURCES, load
from steerlab.data.surface import normalise_surface

__all__ = [
    "LANGUAGES",
    "SOURCES",
    "ContrastPair",
    "ContrastPairs",
    "Corpus",
    "Endings",
    "Example",
    "Language",
    "LeakageReport",
    "MultipleChoice",
    "Rates",
    "SourceCard",
    "TextFile",
    "corrupt_tokens",
    "data_root",
    "degrade",
    "degrade_text",
    "degraded_pairs",
    "find_root",
    "language",
    "learn_endings",
    "length_matched",
    "load",
    "load_pairs",
    "load_sample_pairs",
    "normalise_surface",
    "overlap_report",
    "read_texts",
    "redacted",
    "texts_sha256",
]

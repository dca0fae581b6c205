"""Where languages belong: genus, family and script of each, to hold clusters of vectors against.

Genus: WALS Online (Dryer and Haspelmath, eds., 2013; CC BY 4.0), the level at which relatedness is plain to the
eye (Slavic, Germanic). Family: the top level of Glottolog (Hammarström, Forkel, Haspelmath and Bank; CC BY 4.0).
Script: the one the language's web text is mostly in, by its ISO 15924 name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from steerlab.errors import SteerlabError

Level = Literal["genus", "family", "script"]


@dataclass(frozen=True)
class Lineage:
    """`code` is ISO 639-1, as in `LANGUAGES`."""

    code: str
    name: str
    genus: str
    family: str
    script: str


LINEAGES: dict[str, Lineage] = {
    entry.code: entry
    for entry in (
        Lineage("af", "Afrikaans", "Germanic", "Indo-European", "Latin"),
        Lineage("am", "Amharic", "Semitic", "Afro-Asiatic", "Ethiopic"),
        Lineage("ar", "Arabic", "Semitic", "Afro-Asiatic", "Arabic"),
        Lineage("bn", "Bengali", "Indic", "Indo-European", "Bengali"),
        Lineage("bo", "Tibetan", "Bodic", "Sino-Tibetan", "Tibetan"),
        Lineage("cs", "Czech", "Slavic", "Indo-European", "Latin"),
        Lineage("da", "Danish", "Germanic", "Indo-European", "Latin"),
        Lineage("de", "German", "Germanic", "Indo-European", "Latin"),
        Lineage("el", "Greek", "Greek", "Indo-European", "Greek"),
        Lineage("en", "English", "Germanic", "Indo-European", "Latin"),
        Lineage("es", "Spanish", "Romance", "Indo-European", "Latin"),
        Lineage("fa", "Persian", "Iranian", "Indo-European", "Arabic"),
        Lineage("fr", "French", "Romance", "Indo-European", "Latin"),
        Lineage("he", "Hebrew", "Semitic", "Afro-Asiatic", "Hebrew"),
        Lineage("hi", "Hindi", "Indic", "Indo-European", "Devanagari"),
        Lineage("id", "Indonesian", "Malayo-Sumbawan", "Austronesian", "Latin"),
        Lineage("it", "Italian", "Romance", "Indo-European", "Latin"),
        Lineage("ja", "Japanese", "Japanese", "Japonic", "Japanese"),
        Lineage("jv", "Javanese", "Javanese", "Austronesian", "Latin"),
        Lineage("ka", "Georgian", "Kartvelian", "Kartvelian", "Georgian"),
        Lineage("kk", "Kazakh", "Turkic", "Turkic", "Cyrillic"),
        Lineage("ko", "Korean", "Korean", "Koreanic", "Hangul"),
        Lineage("mt", "Maltese", "Semitic", "Afro-Asiatic", "Latin"),
        Lineage("nl", "Dutch", "Germanic", "Indo-European", "Latin"),
        Lineage("no", "Norwegian", "Germanic", "Indo-European", "Latin"),
        Lineage("pl", "Polish", "Slavic", "Indo-European", "Latin"),
        Lineage("pt", "Portuguese", "Romance", "Indo-European", "Latin"),
        Lineage("ro", "Romanian", "Romance", "Indo-European", "Latin"),
        Lineage("ru", "Russian", "Slavic", "Indo-European", "Cyrillic"),
        Lineage("sk", "Slovak", "Slavic", "Indo-European", "Latin"),
        Lineage("sl", "Slovenian", "Slavic", "Indo-European", "Latin"),
        Lineage("su", "Sundanese", "Malayo-Sumbawan", "Austronesian", "Latin"),
        Lineage("sv", "Swedish", "Germanic", "Indo-European", "Latin"),
        Lineage("sw", "Swahili", "Bantoid", "Atlantic-Congo", "Latin"),
        Lineage("th", "Thai", "Kam-Tai", "Tai-Kadai", "Thai"),
        Lineage("tl", "Tagalog", "Greater Central Philippine", "Austronesian", "Latin"),
        Lineage("tr", "Turkish", "Turkic", "Turkic", "Latin"),
        Lineage("uk", "Ukrainian", "Slavic", "Indo-European", "Cyrillic"),
        Lineage("ur", "Urdu", "Indic", "Indo-European", "Arabic"),
        Lineage("vi", "Vietnamese", "Viet-Muong", "Austroasiatic", "Latin"),
        Lineage("zh", "Chinese", "Chinese", "Sino-Tibetan", "Han"),
    )
}


def grouping(codes: Sequence[str], level: Level) -> list[str]:
    """The genus, family or script of each language. Raises `SteerlabError` naming the codes that are not known."""
    unknown = [code for code in codes if code not in LINEAGES]
    if unknown:
        raise SteerlabError(
            f"the lineage of {', '.join(map(repr, unknown))} is not known: leave them out, or give the groups yourself."
        )
    return [str(getattr(LINEAGES[code], level)) for code in codes]

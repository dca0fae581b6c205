"""The twelve languages of the studies, with the code each data set and the language identifier use for them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from steerlab.errors import SteerlabError

Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True)
class Language:
    """`code` is the project's own (Javanese is `jv`); `lid` is the label lid.176 gives; `None` means the data set lacks the language."""

    code: str
    name: str
    script: str
    family: str
    direction: Direction
    sib200: str
    ntrex: str | None
    lid: str


LANGUAGES: dict[str, Language] = {
    entry.code: entry
    for entry in (
        Language("am", "Amharic", "Ethiopic", "Semitic", "ltr", "amh_Ethi", "amh", "am"),
        Language("cs", "Czech", "Latin", "Slavic", "ltr", "ces_Latn", "ces", "cs"),
        Language("da", "Danish", "Latin", "Germanic", "ltr", "dan_Latn", "dan", "da"),
        Language("de", "German", "Latin", "Germanic", "ltr", "deu_Latn", "deu", "de"),
        Language("en", "English", "Latin", "Germanic", "ltr", "eng_Latn", "eng", "en"),
        Language("he", "Hebrew", "Hebrew", "Semitic", "rtl", "heb_Hebr", "heb", "he"),
        Language("id", "Indonesian", "Latin", "Austronesian", "ltr", "ind_Latn", "ind", "id"),
        Language("jv", "Javanese", "Latin", "Austronesian", "ltr", "jav_Latn", None, "jv"),
        Language("mt", "Maltese", "Latin", "Semitic", "ltr", "mlt_Latn", "mlt", "mt"),
        Language("sk", "Slovak", "Latin", "Slavic", "ltr", "slk_Latn", "slk", "sk"),
        Language("sl", "Slovenian", "Latin", "Slavic", "ltr", "slv_Latn", "slv", "sl"),
        Language("su", "Sundanese", "Latin", "Austronesian", "ltr", "sun_Latn", None, "su"),
    )
}


def _other_names() -> dict[str, str]:
    """Other ways people write a language, lower case: English name, SIB-200 code, its three letters, retired codes."""
    names = {"iw": "he", "jw": "jv", "in": "id", "slovene": "sl"}
    for code, entry in LANGUAGES.items():
        names |= dict.fromkeys((code, entry.name.casefold(), entry.sib200.casefold(), entry.sib200[:3]), code)
    return names


def language(code: str) -> Language:
    """The language with this code. Raises `SteerlabError` naming the known codes and the nearest one."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    names = _other_names()
    close = get_close_matches(code.strip().casefold(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {names[close[0]]!r} ({LANGUAGES[names[close[0]]].name})?" if close else "."
    raise SteerlabError(f"language {code!r} is not known: give one of {', '.join(LANGUAGES)}{hint}")

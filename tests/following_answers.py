"""An answer that follows an IFEval instruction and one that does not, made from the instruction's own arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SENTENCES = {
    "ar": "القطار المتجه إلى الساحل يغادر اليوم في وقت متأخر من المساء بسبب العاصفة.",
    "bg": "Влакът за морето днес тръгва късно вечерта заради бурята и пътниците трябва да чакат.",
    "bn": "ঝড়ের কারণে উপকূলের ট্রেন আজ সন্ধ্যায় দেরিতে ছাড়বে।",
    "de": "Der Zug an die Küste fährt heute wegen des Sturms erst spät am Abend ab.",
    "fa": "قطار ساحلی امروز به دلیل طوفان دیرتر و در شب حرکت می‌کند.",
    "fi": "Rannikolle menevä juna lähtee tänään myrskyn vuoksi vasta myöhään illalla.",
    "gu": "તોફાનને કારણે દરિયાકિનારે જતી ટ્રેન આજે સાંજે મોડી ઉપડશે.",
    "hi": "तूफ़ान के कारण तट की ओर जाने वाली रेलगाड़ी आज देर शाम को चलेगी।",
    "it": "Il treno per la costa parte oggi solo in tarda serata a causa della tempesta.",
    "kn": "ಬಿರುಗಾಳಿಯ ಕಾರಣ ಕರಾವಳಿಗೆ ಹೋಗುವ ರೈಲು ಇಂದು ಸಂಜೆ ತಡವಾಗಿ ಹೊರಡುತ್ತದೆ.",
    "ko": "해안으로 가는 기차는 폭풍 때문에 오늘 저녁 늦게 출발합니다.",
    "mr": "वादळामुळे किनाऱ्याकडे जाणारी गाडी आज संध्याकाळी उशिरा सुटणार आहे.",
    "ne": "नेपालको राजधानी काठमाडौं हो र यहाँ धेरै मानिसहरू बस्छन्।",
    "pa": "ਤੂਫ਼ਾਨ ਕਾਰਨ ਤੱਟ ਵੱਲ ਜਾਣ ਵਾਲੀ ਰੇਲਗੱਡੀ ਅੱਜ ਸ਼ਾਮ ਦੇਰ ਨਾਲ ਚੱਲੇਗੀ।",
    "pt": "O comboio para a costa parte hoje apenas ao fim da noite por causa da tempestade.",
    "ru": "Поезд к побережью сегодня отправляется поздно вечером из-за бури.",
    "sw": "Treni ya kwenda pwani itaondoka leo jioni kwa kuchelewa kwa sababu ya dhoruba.",
    "ta": "புயல் காரணமாக கடற்கரைக்குச் செல்லும் ரயில் இன்று மாலை தாமதமாகப் புறப்படும்.",
    "te": "తుఫాను కారణంగా తీరానికి వెళ్ళే రైలు ఈ రోజు సాయంత్రం ఆలస్యంగా బయలుదేరుతుంది.",
    "th": "รถไฟไปชายฝั่งวันนี้จะออกเดินทางช้าในตอนเย็นเพราะพายุ",
    "ur": "طوفان کی وجہ سے ساحل جانے والی ریل گاڑی آج شام دیر سے روانہ ہو گی۔",
    "vi": "Chuyến tàu ra bờ biển hôm nay khởi hành muộn vào buổi tối vì cơn bão.",
}
ENGLISH = "the train to the coast leaves late in the evening today because of the storm"
Pair = tuple[str, str]  # (follows, does not)


def _numbered(make: Callable[[int], str], relation: str, n: int) -> Pair:
    """`make(k)` has k of the thing: at the threshold and one below it."""
    return (make(n), make(n - 1)) if relation == "at least" else (make(n - 1), make(n))


def _times(unit: str, glue: str = " ", nothing: str = "_") -> Callable[[int], str]:
    return lambda k: glue.join([unit] * k) or nothing


def _first_word(k: Mapping[str, Any]) -> Pair:
    parts = ["some text"] * k["num_paragraphs"]
    parts[k["nth_paragraph"] - 1] = k["first_word"].capitalize() + ", then more"
    wrong = list(parts)
    wrong[k["nth_paragraph"] - 1] = "xyz then more"
    return "\n\n".join(parts), "\n\n".join(wrong)


PAIRS: dict[str, Callable[[Mapping[str, Any]], Pair]] = {
    "punctuation:no_comma": lambda k: ("no such mark", "one, here"),
    "detectable_format:number_highlighted_sections": lambda k: (
        " and ".join(["*so*"] * (k["num_highlights"] - 1) + ["**very**"]),
        " and ".join(["*so*"] * (k["num_highlights"] - 1) + ["**", "x"]),
    ),
    "detectable_format:number_bullet_lists": lambda k: (
        "Here:\n" + "\n".join(["* one"] * (k["num_bullets"] - 1) + ["- two"]),
        "Here:\n" + "\n".join(["* one"] * (k["num_bullets"] + 1)),
    ),
    "detectable_format:multiple_sections": lambda k: tuple(  # type: ignore[return-value]
        "\n".join(f"{k['section_spliter']} {i}\ntext" for i in range(1, n + 1)) or "text"
        for n in (k["num_sections"], k["num_sections"] - 1)
    ),
    "detectable_format:title": lambda k: ("<<A song>>\nla la", "<< >>\nla la"),
    "detectable_format:json_format": lambda k: ('```json\n{"a": [1, 2]}\n```', '{"a": 1'),
    "detectable_format:constrained_response": lambda k: ("I think so. My answer is yes.", "my answer is yes"),
    "detectable_content:postscript": lambda k: (f"Bye.\n{k['postscript_marker']} one more thing", "Bye. PS one more"),
    "detectable_content:number_placeholders": lambda k: (
        _times("[name]")(k["num_placeholders"]),
        _times("[name]")(k["num_placeholders"] - 1),
    ),
    "combination:two_responses": lambda k: ("First.\n******\nSecond.", "Same.\n******\nSame."),
    "combination:repeat_prompt": lambda k: (
        k["prompt_to_repeat"].upper() + "\nHere:",
        "Sure! " + k["prompt_to_repeat"],
    ),
    "startend:end_checker": lambda k: ("Text. " + k["end_phrase"].upper() + '"', k["end_phrase"] + " x"),
    "startend:quotation": lambda k: (' "all of it" ', '"all" of it'),
    "keywords:existence": lambda k: (" ".join(k["keywords"]).upper(), " ".join(k["keywords"][1:]) or "nothing"),
    "keywords:forbidden_words": lambda k: (
        " ".join(f"x{word}x" for word in k["forbidden_words"]),
        f"so: {k['forbidden_words'][-1].upper()}!",
    ),
    "keywords:frequency": lambda k: _numbered(_times(k["keyword"].upper()), k["relation"], k["frequency"]),
    "keywords:letter_frequency": lambda k: _numbered(
        _times(k["letter"], "", "_"), k["let_relation"], k["let_frequency"]
    ),
    "length_constraints:number_words": lambda k: _numbered(_times("word"), k["relation"], k["num_words"]),
    "length_constraints:number_sentences": lambda k: _numbered(
        _times("It rains here.", nothing=""), k["relation"], k["num_sentences"]
    ),
    "length_constraints:number_paragraphs": lambda k: (
        _times("text", "\n***\n")(k["num_paragraphs"]),
        _times("text", "\n***\n")(k["num_paragraphs"] + 1),
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "language:response_language": lambda k: (SENTENCES[k["language"]], ENGLISH),
    "change_case:english_lowercase": lambda k: (ENGLISH + ".", ENGLISH.capitalize() + "."),
    "change_case:english_capital": lambda k: (ENGLISH.upper() + ".", ENGLISH.upper() + " x."),
    "change_case:capital_word_frequency": lambda k: _numbered(
        _times("WORD"), k["capital_relation"], k["capital_frequency"]
    ),
}

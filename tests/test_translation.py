"""Translations are the model's own, told the right languages, and do not depend on the texts beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.translation import Translator, load_translator, wrap_translator
from tests.seq2seq import (
    CODES,
    POSITIONS,
    TEXTS,
    nllb,
    nllb_model,
    nllb_tokenizer,
    plain,
    plain_tokenizer,
    save_translator,
    t5_model,
    tagged,
)


def alone(translator: Translator, text: str, target: str | None, beams: int = 1) -> str:
    """One text by plain `generate`, nothing padded."""
    hf: Any = translator.hf
    ids = translator.tokenizer(text, return_tensors="pt")["input_ids"]
    forced = {} if target is None else {"forced_bos_token_id": translator.tokenizer.convert_tokens_to_ids(target)}
    out = hf.generate(ids, do_sample=False, num_beams=beams, max_new_tokens=20, **forced)
    return str(translator.tokenizer.decode(out[0], skip_special_tokens=True)).strip()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_with_codes_gets_source_and_target(beams: int) -> None:
    translator = nllb()
    assert translator.style == "forced" and set(translator.codes) == set(CODES)
    found = translator.translate(TEXTS, "sl", "zho_Hans", num_beams=beams, max_new_tokens=20)
    tokenizer: Any = translator.tokenizer
    tokenizer.src_lang = "slv_Latn"
    assert found == [alone(translator, text, "zho_Hans", beams) for text in TEXTS]
    assert len(set(found)) > len(TEXTS) // 2  # else the model says the same to everything, and nothing is shown
    assert found != translator.translate(TEXTS, "sl", "deu_Latn", num_beams=beams, max_new_tokens=20)
    assert found != translator.translate(TEXTS, "jv", "zho_Hans", num_beams=beams, max_new_tokens=20)


def test_a_model_without_codes_gets_the_text() -> None:
    translator = plain()
    assert translator.style == "none" and translator.codes == {}
    found = translator.translate(TEXTS, "sl", "anything", max_new_tokens=20)
    assert found == [alone(translator, text, None) for text in TEXTS]
    assert len(set(found)) > len(TEXTS) // 2 and translator.code("anything") == "anything"


def test_a_model_with_tags_gets_the_target_before_the_text() -> None:
    translator = tagged()
    assert translator.style == "tag" and translator.codes == {"de": "<2de>", "zh": "<2zh>", "sl": "<2sl>"}
    assert translator.code("deu_Latn") == "de"  # our code for German, in the model's spelling
    found = translator.translate(TEXTS, "sl", "de", max_new_tokens=20)
    assert found == [alone(translator, f"<2de> {text}", None) for text in TEXTS]
    assert found != translator.translate(TEXTS, "sl", "zh", max_new_tokens=20)


@pytest.mark.parametrize("make", [nllb, plain])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_translation_does_not_depend_on_the_other_texts(make: Any, side: str, beams: int) -> None:
    translator = make()
    translator.tokenizer.padding_side = side
    try:
        one = translator.run(TEXTS, "sl", "deu_Latn", batch_rows=1, num_beams=beams, max_new_tokens=20)
        for rows, budget in ((3, 8192), (len(TEXTS), 8192), (len(TEXTS), 90)):
            again = translator.run(
                TEXTS, "sl", "deu_Latn", batch_rows=rows, token_budget=budget, num_beams=beams, max_new_tokens=20
            )
            assert again == one
        backwards = translator.run(TEXTS[::-1], "sl", "deu_Latn", batch_rows=4, num_beams=beams, max_new_tokens=20)
        assert backwards == one[::-1]
    finally:
        translator.tokenizer.padding_side = "right"


def test_padding_would_change_translations_if_it_were_not_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = plain()
    masked = translator.translate(TEXTS, "", "", max_new_tokens=20)
    kind: Any = type(translator.hf)
    generate = kind.generate

    def unmasked(self: Any, attention_mask: torch.Tensor, **options: Any) -> Any:
        return generate(self, attention_mask=torch.ones_like(attention_mask), **options)

    monkeypatch.setattr(kind, "generate", unmasked)
    assert translator.translate(TEXTS, "", "", max_new_tokens=20) != masked


def test_batches_keep_to_rows_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = plain()
    shapes: list[torch.Size] = []
    kind: Any = type(translator.hf)
    generate = kind.generate

    def watched(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        shapes.append(input_ids.shape)
        return generate(self, input_ids=input_ids, **options)

    monkeypatch.setattr(kind, "generate", watched)
    translator.translate(TEXTS, "", "", batch_rows=4, token_budget=70, max_new_tokens=4)
    assert sum(shape[0] for shape in shapes) == len(TEXTS) and len(shapes) > 3
    assert all(shape[0] <= 4 and (shape[0] == 1 or shape.numel() <= 70) for shape in shapes)


def test_translations_say_how_long_they_are_and_whether_they_ended() -> None:
    """Without a forced end one of the random model's sentences runs into the limit."""
    found = nllb(1, 6.0, False).run(TEXTS, "sl", "deu_Latn", max_new_tokens=20)
    assert {t.ended for t in found} == {True, False}
    assert all(t.tokens == 20 for t in found if not t.ended)
    lengths = [t.tokens for t in found if t.ended]
    assert all(1 < n <= 20 for n in lengths) and len(set(lengths)) > 1
    assert all(t.ended for t in nllb().run(TEXTS, "sl", "deu_Latn", max_new_tokens=20))


def test_every_language_of_the_studies_has_its_nllb_code() -> None:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    codes = {code: code for code in FAIRSEQ_LANGUAGE_CODES}
    whole = Translator("nllb", "0", nllb().hf, nllb().tokenizer, "forced", codes)
    found = {code: whole.code(code) for code in LANGUAGES}
    assert found["am"] == "amh_Ethi" and found["jv"] == "jav_Latn" and found["he"] == "heb_Hebr"
    assert all(whole.code(nllb_code) == nllb_code for nllb_code in found.values()) and len(set(found.values())) == 12
    mbart = Translator("mbart", "0", nllb().hf, nllb().tokenizer, "forced", {"he_IL": "he_IL", "de_DE": "de_DE"})
    assert mbart.code("he") == "he_IL" and mbart.code("deu_Latn") == "de_DE"


@pytest.mark.parametrize(("given", "near"), [("deu_Latin", "deu_Latn"), ("zh", "zho_Hans"), ("cs", "'[a-z]{3}_")])
def test_an_unknown_language_is_refused_with_close_codes(given: str, near: str) -> None:
    with pytest.raises(SteerlabError, match=f"tiny-nllb has no language '{given}'.*{near}"):
        nllb().translate(["voda"], "sl", given, max_new_tokens=8)
    with pytest.raises(SteerlabError, match="has no language 'klingon'"):
        nllb().translate(["voda"], "klingon", "deu_Latn", max_new_tokens=8)


def test_what_cannot_be_translated_is_refused() -> None:
    translator = nllb()
    assert translator.translate([], "sl", "deu_Latn", max_new_tokens=8) == [] and translator.limit == POSITIONS
    with pytest.raises(SteerlabError, match="text 1 of 2 is blank"):
        translator.translate(["voda", " \n"], "sl", "deu_Latn", max_new_tokens=8)
    with pytest.raises(SteerlabError, match="a text of 92 tokens .'aaaa.* does not fit the 64 positions of tiny-nllb"):
        translator.translate(["a" * 89], "sl", "deu_Latn", max_new_tokens=8)
    assert translator.lengths(["a" * 89, "a"], "sl") == [92, 4]  # language code, word boundary, letters, end
    with pytest.raises(SteerlabError, match="max_new_tokens is 64 and tiny-nllb has 64 positions"):
        translator.translate(["voda"], "sl", "deu_Latn", max_new_tokens=64)
    for name in ("batch_rows", "num_beams", "max_new_tokens"):
        with pytest.raises(SteerlabError, match=f"{name} is 0: give at least 1"):
            translator.translate(["voda"], "sl", "deu_Latn", **{"max_new_tokens": 8, name: 0})


def test_a_saved_model_is_loaded_and_translates_alike(tmp_path: Path) -> None:
    folder = save_translator(tmp_path / "nllb")
    loaded = load_translator(str(folder), device="cpu")
    wanted = nllb().translate(TEXTS, "sl", "deu_Latn", max_new_tokens=20)
    assert loaded.translate(TEXTS, "sl", "deu_Latn", max_new_tokens=20) == wanted
    assert loaded.name == str(folder) and loaded.codes == nllb().codes
    assert loaded.revision.startswith("weights-")
    other = load_translator(str(save_translator(tmp_path / "other", seed=1)))
    assert other.revision != loaded.revision == load_translator(str(folder)).revision
    t5_model().save_pretrained(tmp_path / "t5")
    plain_tokenizer().save_pretrained(tmp_path / "t5")
    again = load_translator(str(tmp_path / "t5"))
    assert again.style == "none"
    assert again.translate(TEXTS, "", "", max_new_tokens=20) == plain().translate(TEXTS, "", "", max_new_tokens=20)


def test_a_model_that_is_not_there_or_does_not_translate_is_refused(tmp_path: Path) -> None:
    from tests.command import save_model

    with pytest.raises(SteerlabError, match="there is no folder ./nowhere"):
        load_translator("./nowhere")
    with pytest.raises(SteerlabError, match="'no-one/no-such-model' could not be loaded"):
        load_translator("no-one/no-such-model")
    with pytest.raises(SteerlabError, match="could not be loaded .*give a hub id such as facebook/nllb"):
        load_translator(str(save_model(tmp_path / "decoder")))
    with pytest.raises(SteerlabError, match="dtype 'int8' is not known"):
        load_translator("any", dtype="int8")
    with pytest.raises(SteerlabError, match="device 'abacus' cannot be used"):
        load_translator("any", device="abacus")


def test_wrapping_a_model_keeps_its_name() -> None:
    made = wrap_translator(nllb_model(), nllb_tokenizer(), name="mine", revision="r1")
    assert (made.name, made.revision, made.hf.training) == ("mine", "r1", False)

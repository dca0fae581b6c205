"""Exactly one BOS in every combination, and the template is what was asked for or an error."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.templates import INSTRUCTION, Template, choose_template, leading_bos
from tests.tiny import CHAT, hf_model, tiny, tokenizer

BOS, EOS, USER, ASSISTANT = 1, 2, 3, 4
WITHOUT_BOS = CHAT.replace("{{ bos_token }}", "")


def _tokenizer(adds_bos: bool, template: str | None) -> PreTrainedTokenizerFast:
    made = tokenizer(bos=adds_bos, chat=False)
    made.chat_template = template
    return made


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("template", [CHAT, WITHOUT_BOS, None], ids=["writes BOS", "writes none", "plain"])
def test_exactly_one_bos(adds_bos: bool, template: str | None) -> None:
    """One where tokenizer or template has one, be it both; none where neither has."""
    made = _tokenizer(adds_bos, template)
    rows = choose_template(made).token_rows(made, ["hi", "a longer one"], chat=True)
    want = 1 if adds_bos or template == CHAT else 0
    assert [row.count(BOS) for row in rows] == [want, want]
    assert all((row[0] == BOS) == bool(want) for row in rows)
    if template is not None:
        assert all(row[want] == USER and row[-1] == ASSISTANT for row in rows)


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("template", [CHAT, None])
def test_bare_text_gets_the_bos_of_the_tokenizer_and_no_template(adds_bos: bool, template: str | None) -> None:
    made = _tokenizer(adds_bos, template)
    rows = choose_template(made).token_rows(made, ["hi"], chat=False)
    letters = [made.convert_tokens_to_ids(letter) for letter in "hi"]
    assert rows == [[BOS, *letters] if adds_bos else letters]
    assert leading_bos(made) == (BOS if adds_bos else None)


def test_a_tokenizer_without_bos_token_has_no_leading_bos() -> None:
    made = tokenizer(bos=False)
    made.bos_token = None
    assert leading_bos(made) is None


def test_no_chat_template_means_the_plain_instruction_form() -> None:
    model = tiny("llama", chat=False)
    assert model.chat_template is None
    assert model.template == Template("plain", INSTRUCTION)
    ids = model.token_rows(["write a poem"], chat=True)[0]
    assert model.decode_text(ids) == "### Instruction:\nwrite a poem\n\n### Response:\n"


def test_chat_is_an_error_without_a_chat_template() -> None:
    with pytest.raises(SteerlabError, match="has no chat template: use template='plain'"):
        choose_template(tokenizer(chat=False), "chat")


def test_what_is_asked_for_wins_over_what_is_there() -> None:
    made = tokenizer()
    assert choose_template(made).kind == choose_template(made, "chat").kind == "chat"
    assert choose_template(made, "plain") == Template("plain", INSTRUCTION)
    own = choose_template(made, "Q: {prompt}\nA:")
    assert own.render(made, "why?") == "Q: why?\nA:"


def test_several_named_chat_templates_are_a_chat_template() -> None:
    """The one called "default" is used, by transformers' own rule."""
    made = tokenizer(chat=False)
    made.chat_template = {"default": CHAT, "rag": "{{ 'documents' }}"}
    chosen = choose_template(made)
    assert chosen.kind == "chat"
    assert chosen.render(made, "hi") == "<|bos|><|user|>hi<|assistant|>"


def test_a_template_without_a_place_for_the_prompt_is_refused() -> None:
    with pytest.raises(SteerlabError, match=r"has no \{prompt\} in it: say where the prompt goes"):
        choose_template(tokenizer(), "just do it")


def test_braces_in_a_prompt_are_text() -> None:
    made = tokenizer(chat=False)
    assert Template("plain", "<{prompt}>").render(made, "{0} {prompt} {") == "<{0} {prompt} {>"


def test_the_digest_tells_templates_apart() -> None:
    made, other = tokenizer(), tokenizer()
    other.chat_template = WITHOUT_BOS
    digests = [
        Template("chat").digest(made),
        Template("chat").digest(other),
        Template("plain").digest(made),
        Template("plain", "{prompt}").digest(made),
    ]
    assert len(set(digests)) == 4
    assert Template("plain").digest(other) == digests[2]


@pytest.mark.parametrize(("eos", "want"), [("<|eos|>", EOS), (None, BOS)])
def test_a_tokenizer_without_pad_token_pads_with_eos_else_bos(eos: str | None, want: int) -> None:
    made = tokenizer(pad=False)
    made.eos_token = eos
    model = wrap(hf_model("llama"), made)
    assert model.tokenizer.padding_side == "left"
    assert model.pad_id == want
    batch = model.encode(["abc", "a"])
    assert batch.input_ids[1, :2].tolist() == [want, want]
    assert batch.real[1].tolist() == [False, False, True, True]


def test_a_tokenizer_with_no_special_tokens_at_all_still_makes_batches() -> None:
    made = tokenizer(bos=False, pad=False)
    made.eos_token = made.bos_token = None
    model = wrap(hf_model("llama"), made)
    assert model.pad_id == 0
    assert model.encode(["abc", "a"]).real.sum(1).tolist() == [3, 1]

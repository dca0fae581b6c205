"""When an answer is over: EOS, stop strings once it has begun, characters spread over several tokens."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.stopping import Stopper, cut, eos_ids
from tests.tiny import hf_model, tiny

SPACE = "\u2581"  # SentencePiece's


def ends_at(model: TracedModel, answer: str, stop: tuple[str, ...]) -> int | None:
    """After how many bytes the stopper ends the answer when it is written byte by byte; other rows around it go on."""
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    stopper, rows = Stopper(model, stop), torch.arange(3)
    x = model.tokenizer.convert_tokens_to_ids("x")
    for n in range(1, len(ids) + 1):
        tokens = torch.full((3, n), x)
        tokens[1] = torch.tensor(ids[:n])
        done = stopper(rows, tokens).tolist()
        assert not done[0]
        assert not done[2]
        if done[1]:
            return n
    return None


@pytest.mark.parametrize(
    ("answer", "stop", "want"),
    [
        ("one\ntwo", ("\n",), 4),
        ("\none\ntwo", ("\n",), 5),  # a newline before the answer is not its end
        (" \n\n one\n", ("\n",), 8),
        ("no end", ("\n",), None),
        ("a###b", ("###",), 4),
        ("a##b#c#", ("###",), None),
        ("first END", ("\n", "END"), 9),
        ("first\nEND", ("END", "\n"), 6),
        ("konec\u017e dal", ("\u017e",), 7),  # two bytes, one token each
        ("\u12f0\u1229\u1362 x", ("\u1362",), 9),  # an Ethiopic full stop, three bytes
        ("half \u12f0", ("\u1362",), None),
        ("end\u1362\n", ("\u1362\n",), 7),
        ("anything\n", (), None),
        ("two spaces  here", ("  ",), 12),
    ],
)
def test_an_answer_ends_with_the_last_byte_of_a_stop_string(
    answer: str, stop: tuple[str, ...], want: int | None
) -> None:
    assert ends_at(tiny("llama"), answer, stop) == want


def test_eos_ends_whatever_the_stop_strings() -> None:
    model = tiny("llama")
    for stop in ((), ("\n",)):
        done = Stopper(model, stop)(torch.arange(2), torch.tensor([[50, 2], [2, 50]]))
        assert done.tolist() == [True, False]


def test_every_eos_of_the_generation_config_ends() -> None:
    hf = hf_model("llama")
    assert hf.generation_config is not None
    hf.generation_config.eos_token_id = [3, 4]
    model = wrap(hf, tiny("llama").tokenizer)
    assert eos_ids(model) == {2, 3, 4}
    done = Stopper(model, ())(torch.arange(4), torch.tensor([[2], [3], [4], [5]]))
    assert done.tolist() == [True, True, True, False]
    assert eos_ids(tiny("llama")) == {2}


def test_a_vocabulary_larger_than_the_tokenizer_is_no_trouble() -> None:
    model = wrap(hf_model("llama", vocab_size=300), tiny("llama").tokenizer)
    assert Stopper(model, ("\n",))(torch.arange(1), torch.tensor([[299]])).tolist() == [False]


def test_a_stop_string_that_ends_in_a_space_is_seen_where_a_token_alone_has_lost_it() -> None:
    words = ["<unk>", "<s>", "</s>", f"{SPACE}the", f"{SPACE}end", SPACE, "x"]
    core = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    model = wrap(hf_model("llama"), made, template="plain")
    assert made.decode([5]) == ""
    stopper = Stopper(model, ("the end ",))
    assert stopper(torch.arange(1), torch.tensor([[3, 4]])).tolist() == [False]
    assert stopper(torch.arange(1), torch.tensor([[3, 4, 5]])).tolist() == [True]


@pytest.mark.parametrize(
    ("text", "stop", "want"),
    [
        ("one\ntwo", ("\n",), "one"),
        ("\n\n one\ntwo", ("\n",), "one"),
        ("a END b\n", ("\n", "END"), "a "),
        ("a\n END b", ("END", "\n"), "a"),
        ("whole", ("\n",), "whole"),
        (" whole\n", (), "whole\n"),
        ("", ("\n",), ""),
    ],
)
def test_the_text_is_cut_at_the_first_stop_string(text: str, stop: tuple[str, ...], want: str) -> None:
    assert cut(text, stop) == want


def test_characters_spread_over_tokens_are_put_together_again() -> None:
    model, text = tiny("llama"), "ደግሞ ž 漢字 🙂"
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.encode())
    assert model.decode_text(ids) == text
    assert model.decode_text([1, *ids, 2]) == text

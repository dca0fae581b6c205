"""How a prompt is put to the model: through its chat template, or as a plain question that a base model continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.model import TracedModel
from steerlab.templates import leading_bos


@dataclass(frozen=True)
class Form:
    """`chat`: the model's template does it. Else `text`, with {prompt} in it, is what the model reads. `stop`: strings that end an
    answer in this form, as a base model's next question does.
    """

    name: str
    chat: bool = True
    text: str = "{prompt}"
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "{prompt}" not in self.text:
            raise SteerlabError(f"the form {self.text!r} has no {{prompt}} in it: say where the prompt goes.")

    def put(self, prompt: str) -> str:
        """The prompt as `TracedModel.token_rows(..., chat=self.chat)` and a `Request` take it."""
        return self.text.replace("{prompt}", prompt)

    def token_rows(self, model: TracedModel, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of every prompt in this form. Raises `SteerlabError` for a template that begins with BOS twice."""
        rows = model.token_rows([self.put(prompt) for prompt in prompts], self.chat)
        bos = leading_bos(model.tokenizer)
        if bos is not None and any(row[:2] == [bos, bos] for row in rows):
            raise SteerlabError(f"the prompts of {model.name} begin with two BOS: take one out of its chat template.")
        return rows

    def ends(self, settings: Settings) -> Settings:
        """The settings with this form's own stop strings added."""
        return replace(settings, stop=tuple(dict.fromkeys((*settings.stop, *self.stop))))


CHAT = Form("chat")
QA = Form("qa", False, "Q: {prompt}\nA:", ("\nQ:",))  # the form Stolfo et al. give base models
FORMS: dict[str, Form] = {form.name: form for form in (CHAT, QA)}


def find_form(name: str) -> Form:
    """A form by its name, or a text with {prompt} in it as a plain form. Raises `SteerlabError` for anything else."""
    if name in FORMS:
        return FORMS[name]
    if "{prompt}" not in name:
        raise SteerlabError(f"form {name!r} is not known: give {' or '.join(FORMS)}, or a text with {{prompt}} in it.")
    return Form("plain", False, name)

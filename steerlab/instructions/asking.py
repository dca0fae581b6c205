"""From prompts with instructions to generation requests: which text is shown, which vectors act, and what guides the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steerlab.backoff import BackOff
from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.arms import Arm
from steerlab.generation import Request, Settings
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.instructions.application import Pushes
from steerlab.instructions.forms import Form
from steerlab.steering import Intervention

SHOWN: Mapping[Arm, bool] = {
    "none": False, "random": False, "steered": False, "instructed": True, "both": True, "guided": True
}  # fmt: skip
GREEDY = Settings(max_new_tokens=128, greedy=True, stop=())  # as in Stolfo et al., who stop at 1,024 or 2,048 tokens
SCALE = 1.5  # classifier-free guidance: Sanchez et al. 2023 (arXiv 2306.17806) find this scale best for instructions


def ask(
    row: InstructedPrompt,
    form: Form,
    shown: bool,
    interventions: tuple[Intervention, ...] = (),
    scale: float | None = None,
) -> Request:
    """One answer to write: the prompt with its instructions (`shown`) or the base query, in a form.

    `scale`: classifier-free guidance between the two, 1 being the prompt shown alone. All requests of one prompt share their
    sampling noise.
    """
    text = form.put(row.prompt if shown else row.base)
    guided = None
    if scale is not None:
        guided = Guided(Guide(gamma=scale - 1, eta=0.0), base_prompt=form.put(row.base))
    return Request(text, ("instruct", row.id), interventions, form.chat, guided)


def pushed(row: InstructedPrompt, pushes: Pushes) -> tuple[Intervention, ...]:
    """What is done for all instructions of a prompt, by layer, else in their order; an instruction without an entry is not steered.

    Requests of the same instructions get one and the same tuple where there is one instruction.
    """
    if callable(pushes):
        return pushes(row)
    if len(row.cells) == 1:
        return pushes.get(row.cells[0], ())
    return tuple(sorted((i for cell in row.cells for i in pushes.get(cell, ())), key=lambda i: i.at))


def arm_request(
    row: InstructedPrompt,
    arm: Arm,
    form: Form,
    pushes: Mapping[Arm, Pushes],
    scale: float = SCALE,
    backoff: BackOff | None = None,
) -> Request:
    """The request of a prompt in an arm, in which the arm's `pushes` act if it has any."""
    if arm not in SHOWN:
        raise SteerlabError(f"arm {arm!r} is not known: give one of {', '.join(SHOWN)}.")
    request = ask(row, form, SHOWN[arm], pushed(row, pushes.get(arm, {})), scale if arm == "guided" else None)
    return replace(request, backoff=backoff)


def unknown_cells(rows: Sequence[InstructedPrompt], names: Sequence[str]) -> list[str]:
    """The instructions of the prompts that are not among these names, each once."""
    return sorted({cell for row in rows for cell in row.cells} - set(names))

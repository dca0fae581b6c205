"""The same prompts unsteered, steered, instructed, and both, with the guidance baseline beside them: answers, follow rates, quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from steerlab.backoff import BackOff
from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.arms import ARMS, Answer, Arm, FourArms, answers, compare_arms
from steerlab.following.quality import Embed, Judge, Perplexity, Quality, measure_quality
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.instructions.application import Pushes
from steerlab.instructions.asking import GREEDY, SCALE, arm_request
from steerlab.instructions.controls import random_pushes
from steerlab.instructions.forms import CHAT, Form
from steerlab.model import TracedModel

FOUR: tuple[Arm, ...] = ("none", "steered", "instructed", "both")


@dataclass(frozen=True, eq=False)
class ArmAnswers:
    """What was written. `answers` and `samples` stand side by side, arm by arm, prompts in their order."""

    answers: tuple[Answer, ...]
    samples: tuple[Sample, ...]

    @cached_property
    def followed(self) -> FourArms:
        """Every answer checked strictly and loosely: rates with intervals, gained and lost, exact McNemar tests."""
        return compare_arms(self.answers)

    def quality(
        self, perplexity: Perplexity | None = None, embed: Embed | None = None, judge: Judge | None = None
    ) -> Quality:
        """Length, repetition and, through functions of yours, perplexity, relevance to the base query and a judge's scores."""
        return measure_quality(self.answers, perplexity, embed, judge)

    def texts(self, arm: Arm) -> list[str]:
        """One arm's texts, in the order of the prompts."""
        return [answer.text for answer in self.answers if answer.arm == arm]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per instruction: n, and the loose follow rate of every arm with its interval, as text."""
        rates = self.followed.rates()
        told = [f"{r:.2f} [{lo:.2f}, {hi:.2f}]" for r, lo, hi in rates[["rate", "low", "high"]].to_numpy()]
        wide = rates.assign(told=told).pivot(index="instruction", columns="arm", values="told")
        wide = wide.loc[list(self.followed.names), list(self.followed.arms)]
        n = rates.drop_duplicates("instruction").set_index("instruction")["n"]
        wide.insert(0, "n", n.loc[wide.index])
        return wide.reset_index()

    def __str__(self) -> str:
        return str(self.followed)


def plan_arms(
    prompts: Sequence[InstructedPrompt],
    pushes: Pushes,
    *,
    shown_pushes: Pushes | None = None,
    arms: Sequence[Arm] = FOUR,
    form: Form = CHAT,
    scale: float = SCALE,
    backoff: BackOff | None = None,
    seed: int = 0,
) -> list[tuple[InstructedPrompt, Arm, Request]]:
    """Every prompt in every arm, arm by arm. Raises `SteerlabError` for no prompts, no arms, or one that is unknown or given twice."""
    if not prompts or not arms or len(set(arms)) < len(arms) or not set(arms) <= set(ARMS):
        raise SteerlabError(
            f"{len(prompts)} prompts and the arms {', '.join(arms) or 'none'} were given: give prompts, and some of {', '.join(ARMS)}."
        )
    acting: dict[Arm, Pushes] = {"steered": pushes, "both": pushes if shown_pushes is None else shown_pushes}
    if "random" in arms:
        acting["random"] = random_pushes(pushes, seed)
    return [(row, arm, arm_request(row, arm, form, acting, scale, backoff)) for arm in arms for row in prompts]


def gather(planned: Sequence[tuple[InstructedPrompt, Arm, Request]], samples: Sequence[Sample]) -> ArmAnswers:
    """The answers of what `plan_arms` planned from their samples, in the same order."""
    if len(planned) != len(samples):
        raise SteerlabError(f"{len(planned)} requests and {len(samples)} samples were given: give one sample each.")
    told = [answers([row], arm, [sample.text])[0] for (row, arm, _), sample in zip(planned, samples, strict=True)]
    return ArmAnswers(tuple(told), tuple(samples))


def run_arms(
    model: TracedModel,
    prompts: Sequence[InstructedPrompt],
    pushes: Pushes,
    *,
    shown_pushes: Pushes | None = None,
    arms: Sequence[Arm] = FOUR,
    form: Form = CHAT,
    scale: float = SCALE,
    backoff: BackOff | None = None,
    settings: Settings = GREEDY,
    batch_rows: int = 64,
    progress: bool = False,
) -> ArmAnswers:
    """Write every prompt in every arm, all arms in mixed batches, each prompt with the interventions of its own instructions.

    `pushes`: per instruction what acts behind base queries (arm "steered"); `shown_pushes`: what acts behind prompts that show the
    instruction (arm "both"; the same unless given, though the two are best chosen apart). An instruction without an entry is not
    steered. The arm "random" is pushed as far as "steered", in random directions drawn from the settings' seed; `scale` is that of
    the arm "guided"; `backoff` weakens steered texts that begin to break, and their samples say so.
    """
    planned = plan_arms(
        prompts,
        pushes,
        shown_pushes=shown_pushes,
        arms=arms,
        form=form,
        scale=scale,
        backoff=backoff,
        seed=settings.seed,
    )
    requests = [request for _, _, request in planned]
    samples = generate(model, requests, form.ends(settings), batch_rows=batch_rows, progress=progress)
    return gather(planned, samples)

"""The stream at the ends of prompts: weighted means over texts at every layer, or the activations themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.capture import all_layers
from steerlab.errors import SteerlabError
from steerlab.instructions.forms import Form
from steerlab.model import TracedModel
from steerlab.types import Site


@dataclass(frozen=True, eq=False)
class PromptEnds:
    """`means` "g l d": weighted sums over the texts, float64. `norm` "l": mean L2 norm at one text's end."""

    means: Float[Tensor, "g l d"]
    norm: Float[Tensor, "l"]


def prompt_ends(
    model: TracedModel,
    texts: Sequence[str],
    weights: Float[Tensor, "g n"],
    *,
    form: Form,
    last: int = 1,
    token_budget: int = 4096,
    progress: bool = False,
) -> PromptEnds:
    """Sums over the texts, with these weights, of the stream behind every block at the last token of each prompt (`last` > 1: of the
    mean over so many), in one pass; memory does not grow with the texts.

    Raises `SteerlabError` for no texts, last below 1, a prompt longer than the context or shorter than `last`, and activations that
    are not finite.
    """
    sites = all_layers(model)
    means = torch.zeros(len(weights), len(sites), model.d_model, dtype=torch.float64, device=model.device)
    norm = torch.zeros(len(sites), dtype=torch.float64, device=model.device)
    given = weights.to(model.device, torch.float64)
    for members, batch in batches(model, texts, form, last, token_budget, progress):

        def add(site: Site, h: Tensor, members: list[int] = members) -> None:
            end = h[:, -last:].double().mean(1)  # left-padded: the ends stand together
            if not bool(end.isfinite().all()):
                raise SteerlabError(
                    f"an activation behind layer {site.layer} is NaN or infinite for {texts[members[0]][:60]!r} or a text read "
                    "with it: run the model in float32 or bfloat16."
                )
            means[:, site.layer] += given[:, members] @ end
            norm[site.layer] += end.norm(dim=-1).sum()

        model.forward(batch, read=sites, visit=add)
    return PromptEnds(means.cpu(), (norm / len(texts)).cpu())


def end_activations(
    model: TracedModel,
    texts: Sequence[str],
    *,
    form: Form,
    last: int = 1,
    token_budget: int = 4096,
    progress: bool = False,
) -> Float[Tensor, "n l d"]:
    """The activations that `prompt_ends` sums, float32, one row per text. Raises as it does."""
    sites = all_layers(model)
    found = torch.empty(len(texts), len(sites), model.d_model)
    for members, batch in batches(model, texts, form, last, token_budget, progress):

        def keep(site: Site, h: Tensor, members: list[int] = members) -> None:
            found[members, site.layer] = h[:, -last:].float().mean(1).cpu()

        model.forward(batch, read=sites, visit=keep)
    return found


def batches(
    model: TracedModel, texts: Sequence[str], form: Form, last: int, token_budget: int, progress: bool
) -> Iterator[tuple[list[int], Batch]]:
    """Batches of prompts of like length, longest first, behind a progress bar, with the numbers of their texts."""
    if last < 1:
        raise SteerlabError(f"last is {last}: give at least 1 token.")
    rows = form.token_rows(model, texts)
    for text, row in zip(texts, rows, strict=True):
        if not last <= len(row) <= model.context_length:
            raise SteerlabError(
                f"the prompt {text[:40]!r}... has {len(row)} tokens, and {last} to {model.context_length} can be read: "
                "shorten it, or read fewer of its last tokens."
            )
    lengths = [len(row) for row in rows]
    with tqdm(total=sum(lengths), unit="tok", unit_scale=True, desc="prompts", disable=not progress) as bar:
        for members in reversed(plan_batches(lengths, token_budget)):
            yield members, left_pad([rows[i] for i in members], model.pad_id).to(model.device)
            bar.update(sum(lengths[i] for i in members))

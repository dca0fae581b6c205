"""The stream at the ends of prompts: weighted means over texts at every layer, or the activations themselves.

Prompts that begin alike, as one base query before many instructions, are read once as far as they do (`steerlab.streams.Past`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.capture import all_layers
from steerlab.errors import SteerlabError
from steerlab.halving import Halving
from steerlab.instructions.forms import Form
from steerlab.model import TracedModel
from steerlab.streams import Past, shareable
from steerlab.types import Site


@dataclass(frozen=True, eq=False)
class PromptEnds:
    """`means` "g l d": weighted sums over the texts, float64. `norm` "l": mean L2 norm at one text's end."""

    means: Float[Tensor, "g l d"]
    norm: Float[Tensor, "l"]


@dataclass(frozen=True)
class Pass:
    """One forward: the numbers of its texts, their tokens behind what was read before, and where each text's last tokens stand."""

    members: list[int]
    batch: Batch
    past: Past | None
    ends: Tensor  # (b, last)

    def end(self, h: Float[Tensor, "b s d"]) -> Float[Tensor, "b d"]:
        """The mean over each row's last tokens."""
        return h.gather(1, self.ends[..., None].expand(-1, -1, h.shape[-1])).mean(1)

    def rows(self, some: Sequence[int]) -> Pass:
        """These rows alone; all of them where all are named."""
        if len(some) == len(self.members):
            return self
        index = torch.tensor(some, device=self.ends.device)
        past = None if self.past is None else self.past.rows(index)
        return Pass([self.members[i] for i in some], self.batch.select(index), past, self.ends[index])


def prompt_ends(
    model: TracedModel,
    texts: Sequence[str],
    weights: Float[Tensor, "g n"],
    *,
    form: Form,
    groups: Sequence[str] | None = None,
    last: int = 1,
    token_budget: int = 1024,
    progress: bool = False,
) -> PromptEnds:
    """Sums over the texts, with these weights, of the stream behind every block at the last token of each prompt (`last` > 1: of the
    mean over so many), in one pass; memory does not grow with the texts. Texts of one of the `groups` share their common beginning.

    Raises `SteerlabError` for no texts, last below 1, a prompt longer than the context or shorter than `last`, and activations that
    are not finite.
    """
    sites = all_layers(model)
    means = torch.zeros(len(weights), len(sites), model.d_model, dtype=torch.float64, device=model.device)
    norm = torch.zeros(len(sites), dtype=torch.float64, device=model.device)
    given = weights.to(model.device, torch.float64)
    memory = Halving("prompts")
    for whole in passes(model, texts, form, groups, last, token_budget, progress):

        def read(some: list[int], whole: Pass = whole) -> None:
            one, sums, norms = whole.rows(some), torch.zeros_like(means), torch.zeros_like(norm)

            def add(site: Site, h: Tensor) -> None:
                end = one.end(h).double()
                if not bool(end.isfinite().all()):
                    bad = one.members[int((~end.isfinite()).any(1).int().argmax())]
                    raise SteerlabError(
                        f"an activation behind layer {site.layer} is NaN or infinite for the text {texts[bad][:60]!r}: run the model in "
                        "float32 or bfloat16."
                    )
                sums[:, site.layer] = given[:, one.members] @ end
                norms[site.layer] = end.norm(dim=-1).sum()

            model.forward(one.batch, read=sites, visit=add, past=one.past)
            means.add_(sums)
            norm.add_(norms)

        memory.run(range(len(whole.members)), read)
    return PromptEnds(means.cpu(), (norm / len(texts)).cpu())


def end_activations(
    model: TracedModel,
    texts: Sequence[str],
    *,
    form: Form,
    groups: Sequence[str] | None = None,
    last: int = 1,
    token_budget: int = 1024,
    progress: bool = False,
) -> Float[Tensor, "n l d"]:
    """The activations that `prompt_ends` sums, float32, one row per text. Raises as it does."""
    sites = all_layers(model)
    found = torch.empty(len(texts), len(sites), model.d_model)
    memory = Halving("prompts")
    for whole in passes(model, texts, form, groups, last, token_budget, progress):

        def read(some: list[int], whole: Pass = whole) -> None:
            one = whole.rows(some)

            def keep(site: Site, h: Tensor) -> None:
                found[one.members, site.layer] = one.end(h.float()).cpu()

            model.forward(one.batch, read=sites, visit=keep, past=one.past)

        memory.run(range(len(whole.members)), read)
    return found


def passes(
    model: TracedModel,
    texts: Sequence[str],
    form: Form,
    groups: Sequence[str] | None,
    last: int,
    token_budget: int,
    progress: bool,
) -> Iterator[Pass]:
    """The forwards that read all texts, behind a progress bar. What the texts of a group begin with is read once for all of them."""
    if last < 1:
        raise SteerlabError(f"last is {last}: give at least 1 token.")
    rows = form.token_rows(model, texts)
    for text, row in zip(texts, rows, strict=True):
        if not last <= len(row) <= model.context_length:
            raise SteerlabError(
                f"the prompt {text[:40]!r}... has {len(row)} tokens, and {last} to {model.context_length} can be read: "
                "shorten it, or read fewer of its last tokens."
            )
    go_on = model.keeps_cache and shareable(model.hf.config)
    beginnings = _beginnings(rows, groups, last) if go_on else {}
    shared = {number for members in beginnings.values() for number in members}
    alone = [number for number in range(len(rows)) if number not in shared]
    with tqdm(total=len(texts), unit="text", desc="prompts", disable=not progress) as bar:
        for members in reversed(plan_batches([len(rows[i]) for i in alone], token_budget)):
            one = _pass(model, [alone[i] for i in members], [rows[alone[i]] for i in members], last, None)
            yield one
            bar.update(len(members))
        heads = list(beginnings)
        for chosen in plan_batches([len(head) for head in heads], token_budget):
            past = model.past(left_pad([heads[k] for k in chosen], model.pad_id))
            owner = [(place, number) for place, k in enumerate(chosen) for number in beginnings[heads[k]]]
            tails = [rows[number][len(heads[chosen[place]]) :] for place, number in owner]
            for some in reversed(plan_batches([len(tail) for tail in tails], token_budget)):
                index = torch.tensor([owner[i][0] for i in some], device=past.mask.device)
                yield _pass(model, [owner[i][1] for i in some], [tails[i] for i in some], last, past.rows(index))
                bar.update(len(some))


def _beginnings(rows: Sequence[list[int]], groups: Sequence[str] | None, last: int) -> dict[tuple[int, ...], list[int]]:
    """What the rows of a group have in common at their beginning -> their numbers; a row alone, or nothing in common, is left out.

    At least `last` tokens of every row are left.
    """
    by_group: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups or ()):
        by_group[group].append(number)
    found: dict[tuple[int, ...], list[int]] = {}
    for members in by_group.values():
        own = [rows[number] for number in members]
        least, most = min(own), max(own)  # the first and the last in order share what all share
        room = min(len(row) for row in own) - last
        same = next((k for k in range(room) if least[k] != most[k]), room)
        if len(members) > 1 and same > 0:
            found.setdefault(tuple(least[:same]), []).extend(members)
    return found


def _pass(model: TracedModel, members: list[int], rows: Sequence[Sequence[int]], last: int, past: Past | None) -> Pass:
    """Rows padded on the left, or, behind a past, on the right, so that nothing stands between it and them."""
    batch = left_pad(rows, model.pad_id).to(model.device)
    width = batch.input_ids.shape[1]
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    if past is None:
        stop = torch.full_like(lengths, width)
    else:
        turn = (torch.arange(width, device=model.device) + (width - lengths)[:, None]) % width
        batch = Batch(batch.input_ids.gather(1, turn), batch.attention_mask.gather(1, turn), batch.prompt_lengths)
        stop = lengths
    ends = stop[:, None] - torch.arange(last, 0, -1, device=model.device)
    return Pass(members, batch, past, ends)

"""What a vector says in tokens, and what it does to the next one: the logit lens, direct and total effect, KL.

The final norm is not linear, so the lens has two readings. `promotion` is the direction's own: scale-free, no text
needed. `lens_change` is exact: the difference of logits that adding a vector makes at given residual streams, which
behind the last block is what the model itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.batch import left_pad, plan_batches
from steerlab.bridge import Readout
from steerlab.capture import passes, select
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import bootstrap
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan, Unit
from steerlab.types import ALL, Positions, Site
from steerlab.vectors import SteeringVector

_LOGITS = 1 << 22  # logits held at a time, which bounds the memory with a large vocabulary


def promotion(readout: Readout, vector: SteeringVector) -> Float[Tensor, "l v"]:
    """How fast each token's logit rises along the vector's unit direction at each of its layers, read by the logit lens.

    The norm's gain is folded into the unembedding and its scale left out, so that only the order and the ratios
    within a layer mean something.
    """
    return readout.direction(vector.direction).cpu()


def lens_change(
    readout: Readout,
    h: Float[Tensor, "n d"],
    delta: Float[Tensor, "d"],
    measure: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "n ..."]:
    """Row by row the logits at `h + delta` minus those at `h`, final norm, scale and soft cap included, or the difference
    of what `measure` makes of the logits.
    """
    of = measure or (lambda logits: logits)
    move = delta.to(readout.gain)
    parts = [of(readout.logits(own + move)) - of(readout.logits(own)) for (own,) in _some(readout, h.to(move))]
    return torch.cat(parts).cpu()


def _some(readout: Readout, *streams: Float[Tensor, "n d"]) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of all the streams, as many at a time as there is room for logits."""
    rows = max(1, _LOGITS // len(readout.bias))
    return zip(*(stream.split(rows) for stream in streams), strict=True)


def exact_promotion(
    model: TracedModel,
    readout: Readout,
    vector: SteeringVector,
    texts: Sequence[str],
    strength: float | int = 1.0,
    unit: Unit = "residual",
    *,
    positions: Positions | str = ALL,
    chat: bool = False,
    token_budget: int = 4096,
) -> Float[Tensor, "l v"]:
    """The mean change of logits, over the tokens of the texts, when the vector is added to the stream of each of its
    layers and that stream is read by the logit lens.

    For a vector of the last block this is the mean change of the model's own logits. BOS is left out.
    """
    if vector.stream not in ("resid_pre", "resid_post"):
        raise SteerlabError(
            f"vector {vector.name!r} lives in {vector.stream}, which the lens does not read: use promotion or effects."
        )
    change = Intervention(vector, vector.layers, strength=strength, unit=unit)
    deltas = {Site(layer, vector.stream): change.numbers(layer)[0] * vector.at(layer) for layer in vector.layers}
    model.check_sites(list(deltas))
    total = {site: torch.zeros(len(readout.bias), dtype=torch.float64) for site in deltas}
    picked, count = select(model, texts, positions, chat, True, model.context_length), 0
    for _, batch, mask in passes(model, picked, token_budget, False, "lens"):
        count += int(mask.sum())

        def add(site: Site, h: Tensor, mask: Tensor = mask) -> None:
            for (rows,) in _some(readout, h[mask]):
                total[site] += lens_change(readout, rows, deltas[site]).double().sum(0)

        model.forward(batch, read=list(deltas), visit=add)
    if count == 0:
        raise SteerlabError(f"no token of the {len(texts)} texts is at positions {positions}: choose other positions.")
    return torch.stack([total[Site(layer, vector.stream)] / count for layer in vector.layers]).float()


def prompt_streams(
    model: TracedModel, prompts: Sequence[str], sites: Sequence[Site], *, chat: bool = True, token_budget: int = 4096
) -> Float[Tensor, "n k d"]:
    """The unsteered stream at every site, at the last token of every prompt."""
    return _last_token(model, prompts, sites, [()], chat, token_budget)[0]


def _last_token(
    model: TracedModel,
    prompts: Sequence[str],
    sites: Sequence[Site],
    changes: Sequence[Sequence[Intervention]],
    chat: bool,
    token_budget: int,
) -> Float[Tensor, "c n k d"]:
    """The stream at the last token of every prompt under every change, all changes together in mixed batches."""
    rows = model.token_rows(prompts, chat)
    places = [(c, n) for c in range(len(changes)) for n in range(len(rows))]
    found = torch.zeros(len(changes), len(rows), len(sites), model.d_model)
    for members in plan_batches([len(rows[n]) for _, n in places], token_budget):
        batch = left_pad([rows[places[m][1]] for m in members], model.pad_id).to(model.device)
        compiled = model.compile(Plan(tuple(tuple(changes[places[m][0]]) for m in members)))
        context = TokenContext(batch.relative, batch.input_ids, batch.real)
        seen = model.forward(batch, read=sites, edit=compiled.edits(context))
        for k, site in enumerate(sites):
            last = seen[site][:, -1].float().cpu()
            for row, m in enumerate(members):
                found[places[m][0], places[m][1], k] = last[row]
    return found


def final_streams(
    model: TracedModel,
    prompts: Sequence[str],
    changes: Sequence[Sequence[Intervention]] = ((),),
    *,
    chat: bool = True,
    token_budget: int = 4096,
) -> Float[Tensor, "c n d"]:
    """The stream behind the last block at the last token of every prompt, under each of the changes; `()` is unsteered.

    The language-model head is not run. A change whose strengths are all 0 is the unsteered model, and not run again.
    """
    idle = [all(i.strength == 0 for i in change) for change in changes]
    needed = [change for change, still in zip(changes, idle, strict=True) if not still]
    run = [*([()] if any(idle) else []), *needed]
    seen = _last_token(model, prompts, [Site(model.n_layers - 1)], run, chat, token_budget)[:, :, 0]
    moved = iter(seen[len(run) - len(needed) :])
    return torch.stack([seen[0] if still else next(moved) for still in idle])


def kl(readout: Readout, plain: Float[Tensor, "n d"], steered: Float[Tensor, "n d"]) -> Float[np.ndarray, "n"]:
    """KL(unsteered || steered) of the next-token distributions that two final streams lead to, in nats."""
    parts = []
    for pair in _some(readout, plain, steered):
        p, q = (torch.log_softmax(readout.logits(h).double(), dim=-1) for h in pair)
        parts.append((p.exp() * (p - q)).sum(-1).clamp(min=0))
    return torch.cat(parts).cpu().numpy()


def kl_effect(
    model: TracedModel,
    readout: Readout,
    vectors: Mapping[str, SteeringVector],
    prompts: Sequence[str],
    layers: Sequence[int],
    strengths: Sequence[float | int],
    unit: Unit = "residual",
    *,
    chat: bool = True,
    seed: int = 0,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """One row per vector, layer and strength: KL(unsteered || steered) of the next token behind the prompts, in nats, when
    the vector is added at every position of the prompt.

    Columns as those of a sweep: arm, layer, strength, value (mean over prompts), low, high (bootstrap over prompts), n,
    reason. Strength 0 gives exactly 0.
    """
    places = [(name, layer, strength) for name in vectors for layer in layers for strength in strengths]
    changes = [(Intervention(vectors[name], layer, strength=s, unit=unit),) for name, layer, s in places]
    plain, *steered = final_streams(model, prompts, [(), *changes], chat=chat, token_budget=token_budget)
    rows = []
    for (name, layer, strength), own in zip(places, steered, strict=True):
        facts = {"arm": name, "layer": layer, "strength": float(strength)}
        rows.append({**facts, **asdict(bootstrap(kl(readout, plain, own), seed=seed))})
    return pd.DataFrame(rows)


def log_mass(logits: Float[Tensor, "n v"], targets: Bool[Tensor, "v"]) -> Float[Tensor, "n"]:
    """The log-probability that the next token is one of the targets."""
    scores = torch.log_softmax(logits.double(), dim=-1)
    return scores[..., targets.to(scores.device)].logsumexp(-1)


def effects(
    model: TracedModel,
    readout: Readout,
    vector: SteeringVector,
    prompts: Sequence[str],
    strength: float | int = 1.0,
    unit: Unit = "residual",
    *,
    targets: Bool[Tensor, "v"] | None = None,
    chat: bool = True,
    seed: int = 0,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """Direct against total effect of adding the vector at each of its layers, on the next token behind the prompts.

    Total: everything behind that layer is recomputed. Direct: the later blocks put out what they do unsteered, so the
    vector reaches the final norm as it was added. Changes of logits are compared with their mean over the vocabulary
    taken out, which no probability depends on. Measures: "cosine" of the two; "ratio" of their norms, total over
    direct; with `targets` (tokens), "direct" and "total" change of the log-probability of those. At the last layer
    the two effects are one. Columns: layer, strength, measure, value, low, high (bootstrap over prompts), n, reason.

    Raises `SteerlabError` where the blocks do not simply add to the stream.
    """
    if not model.layout.adds:
        raise SteerlabError(
            f"the blocks of {model.name} scale or gate the stream, so that no direct effect is defined: use kl_effect."
        )
    changes = [Intervention(vector, layer, strength=strength, unit=unit) for layer in vector.layers]
    runs = [(), *((change,) for change in changes)]
    plain, *steered = final_streams(model, prompts, runs, chat=chat, token_budget=token_budget)
    rows = []
    for layer, change, own in zip(vector.layers, changes, steered, strict=True):
        pushed = plain + change.numbers(layer)[0] * vector.at(layer).to(plain)
        parts = [_compare(readout, a, b, c, targets) for a, b, c in _some(readout, plain, pushed, own)]
        for measure in parts[0]:
            values = torch.cat([part[measure] for part in parts]).cpu().numpy()
            facts = {"layer": layer, "strength": float(strength), "measure": measure}
            rows.append({**facts, **asdict(bootstrap(values, seed=seed))})
    return pd.DataFrame(rows)


def _compare(
    readout: Readout, plain: Tensor, pushed: Tensor, steered: Tensor, targets: Bool[Tensor, "v"] | None
) -> dict[str, Tensor]:
    base, direct, total = (readout.logits(h).double() for h in (plain, pushed, steered))
    one, other = ((x - base) - (x - base).mean(-1, keepdim=True) for x in (direct, total))
    sizes = one.norm(dim=-1), other.norm(dim=-1)
    # Strength 0 moves nothing: 0 / 0 is NaN, which the estimate then explains.
    found = {"cosine": (one * other).sum(-1) / (sizes[0] * sizes[1]), "ratio": sizes[1] / sizes[0]}
    if targets is not None:
        mass = log_mass(base, targets)
        found |= {"direct": log_mass(direct, targets) - mass, "total": log_mass(total, targets) - mass}
    return found


def top_tokens(scores: Float[Tensor, "v"], k: int, lowest: bool = False) -> list[int]:
    """The `k` tokens with the highest (or lowest) score, the most extreme first; ties by number."""
    order = torch.argsort(scores if lowest else -scores, stable=True)
    return [int(i) for i in order[:k]]

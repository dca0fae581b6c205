"""What every engine must answer alike: `observe(model)` asks it, `compare` holds the answers against those of the local engine.

`python -m tests.engine_contract ENGINE FOLDER OUT` asks in a process of its own (under torchrun one file per process), for engines
that need another process or another environment; this module imports nothing that such an environment may lack.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steerlab.capture import capture_moments, provenance
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Gate, Intervention, Plan, TokenContext
from steerlab.types import Positions, Site, Stream
from steerlab.vectors import SteeringVector

TEXTS = ["a small town", "rain", "the river was high that year", "we saw"]
GREEDY = Settings(greedy=True, stop=(), max_new_tokens=10)
LINE = Settings(greedy=True, stop=("\n", "e"), max_new_tokens=10)
SAMPLED = Settings(max_new_tokens=6, stop=(), seed=3)


def vector(model: TracedModel, seed: int, stream: Stream = "resid_post") -> SteeringVector:
    """A random direction at every layer, residual norm l + 1 at layer l."""
    raw = torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(seed))
    norm = torch.arange(1.0, model.n_layers + 1)
    return SteeringVector.from_raw(f"v{seed}", raw, range(model.n_layers), residual_norm=norm, stream=stream)


def written(model: TracedModel, plans: list[tuple[Intervention, ...]], settings: Settings = GREEDY) -> list[list[int]]:
    """Tokens of one mixed batch; row i continues text i with plan i."""
    rows = [Request(TEXTS[i % len(TEXTS)], (i,), plan, chat=False) for i, plan in enumerate(plans)]
    return [list(sample.tokens) for sample in generate(model, rows, settings)]


def plans(model: TracedModel) -> dict[str, tuple[Intervention, ...]]:
    """One row of every kind: unsteered, two vectors, other operators, positions, a gate."""
    a, b = vector(model, 1), vector(model, 2)
    return {
        "unsteered": (),
        "add": (Intervention(a, (0, 2), strength=2.0),),
        "two": (Intervention(a, 1, strength=1.5), Intervention(b, 1, strength=0.5, unit="residual")),
        "ablate": (Intervention(a, 1, "ablate"),),
        "match": (Intervention(b, 2, "match", target=3.0),),
        "rotate": (Intervention(b, 1, "rotate", strength=0.6),),
        "prompt only": (Intervention(a, 1, strength=3.0, positions=Positions(stop=0)),),
        "answer only": (Intervention(a, 1, strength=3.0, positions=Positions(start=0)),),
        "gated": (Intervention(b, 2, strength=3.0, gate=Gate(0.0)),),
        "resid_pre": (Intervention(vector(model, 3, "resid_pre"), 1, strength=2.0),),
    }


def sweep(model: TracedModel) -> list[list[int]]:
    """Layers x strengths of one vector as one batch."""
    own = vector(model, 4)
    grid = [(layer, strength) for layer in range(model.n_layers) for strength in (-2.0, 0.0, 2.0)]
    return written(model, [(Intervention(own, layer, strength=strength),) for layer, strength in grid])


def refusal(ask: Callable[[], object]) -> str:
    """The sentence something is refused with, "" where it is not."""
    try:
        ask()
    except SteerlabError as error:
        return str(error)
    return ""


def captured(model: TracedModel) -> dict[str, list[float]]:
    """Per site that the engine has: the mean over real tokens, and the stream at each text's last token in one mixed batch."""
    every = [Site(layer, stream) for layer in range(model.n_layers) for stream in ("resid_pre", "resid_post")]
    sites = [site for site in every if not refusal(lambda site=site: model.check_sites([site]))]
    moments = capture_moments(model, TEXTS, sites)
    seen = model.forward(model.encode(TEXTS), read=sites)
    found = {}
    for k, site in enumerate(sites):
        found[f"mean {site.stream} {site.layer}"] = moments.mean[k].tolist()
        found[f"last {site.stream} {site.layer}"] = seen[site][:, -1].float().cpu().tolist()
    return found


def edited(model: TracedModel) -> dict[str, list[float]]:
    """What a plan's edits of one forward pass leave in the last block, a row each; and that they are gone afterwards."""
    batch, last = model.encode(TEXTS), Site(model.n_layers - 1)
    a, b = vector(model, 5), vector(model, 6)
    rows = (
        (Intervention(a, 1, strength=2.0),),
        (),
        (Intervention(b, (0, 2), "ablate"),),
        (Intervention(a, 3, strength=1.0),),
    )
    compiled = model.compile(Plan(rows))
    seen = model.forward(
        batch, read=[last], edit=compiled.edits(TokenContext(batch.relative, batch.input_ids, batch.real))
    )
    after = model.forward(batch, read=[last])
    return {name: one[last][:, -1].float().cpu().tolist() for name, one in (("edited", seen), ("after", after))}


def alone(model: TracedModel) -> list[list[int]]:
    """Sampled tokens of two requests: in a batch, and each by itself. A sample belongs to its key."""
    push = (Intervention(vector(model, 1), 1, strength=2.0),)
    asked = [Request(TEXTS[0], ("a",), push, chat=False), Request(TEXTS[2], ("b",), chat=False)]
    whole = generate(model, asked, SAMPLED)
    singly = [generate(model, [one], SAMPLED)[0] for one in asked]
    other = generate(model, [asked[0]], replace(SAMPLED, seed=4))
    return [list(sample.tokens) for sample in (*whole, *singly, *other)]


def refused(model: TracedModel) -> dict[str, str]:
    """The sentences for a layer that is not there, a vector of another width, and too long an answer."""
    wide = SteeringVector.from_raw("wide", torch.ones(1, model.d_model + 1), (0,))
    return {
        "layer": refusal(lambda: model.forward(model.encode(TEXTS), read=[Site(99)])),
        "width": refusal(lambda: written(model, [(Intervention(wide, 0),)])),
        "length": refusal(lambda: written(model, [()], replace(GREEDY, max_new_tokens=10_000))),
    }


def limits(model: TracedModel) -> dict[str, str]:
    """What the engine refuses though the local one does it, as its sentences; "" where it does it too."""
    batch, push = model.encode(TEXTS[:1]), vector(model, 1)
    ids = Positions(only_ids=(int(batch.input_ids[0, -1]),))
    done = torch.tensor([True])
    return {
        "attn_out": refusal(lambda: model.forward(batch, read=[Site(1, "attn_out")])),
        "logits": refusal(lambda: model.forward(batch, logits=True)),
        "cache": refusal(lambda: model.past(batch)),
        "function": refusal(lambda: model.forward(batch, read=[Site(1)], edit={Site(1): lambda h: h * 1.5})),
        "sampled": refusal(lambda: written(model, [()], SAMPLED)),
        "token positions": refusal(lambda: written(model, [(Intervention(push, 1, positions=ids),)])),
        "pick": refusal(
            lambda: model.decode(
                batch, lambda rows, history, logits, step: logits.argmax(-1), lambda rows, tokens: done, 1
            )
        ),
    }


def observe(model: TracedModel) -> dict[str, Any]:
    """Every answer, as plain values."""
    facts = ("name", "revision", "n_layers", "d_model", "vocab_size", "context_length", "pad_id", "chat_template")
    kinds = plans(model)
    record = provenance(model, {"texts": TEXTS}).to_json()
    del record["versions"]
    limit = limits(model)
    return {
        "facts": {name: getattr(model, name) for name in facts},
        "provenance": record,
        "captured": captured(model),
        "edited": edited(model),
        "written": dict(zip(kinds, written(model, list(kinds.values())), strict=True)),
        "line": written(model, list(kinds.values())[:3], LINE),
        "sweep": sweep(model),
        "alone": None if limit["sampled"] else alone(model),
        "refused": refused(model),
        "limits": limit,
    }


def compare(got: dict[str, Any], want: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Numbers agree to `tolerance` of the largest, everything else exactly; blocks' outputs are read by every engine."""
    for name in ("facts", "provenance", "written", "line", "sweep", "refused"):
        assert got[name] == want[name], (name, got[name], want[name])
    needed = {part for part in want["captured"] if "resid_post" in part}
    assert needed <= got["captured"].keys() <= want["captured"].keys()
    assert got["edited"].keys() == want["edited"].keys()
    for name in ("captured", "edited"):
        for part, value in got[name].items():
            a, b = torch.tensor(value).double(), torch.tensor(want[name][part]).double()
            assert a.shape == b.shape and math.isfinite(float(a.sum())), (name, part)
            assert float((a - b).abs().max()) <= tolerance * float(b.abs().max()), (name, part)
    if got["alone"] is not None:
        first, second, alone_first, alone_second, other = got["alone"]
        assert (first, second) == (alone_first, alone_second) and other != first


def main(engine: str, folder: str, out: Path) -> None:
    """Ask the engine and write what it answered; for the simulated service also what was sent."""
    sent: list[bytes] = []
    options: dict[str, Any] = {}
    if engine == "ndif":
        sent, options = recorded(), {"remote": "local"}
    answers = observe(load(folder, engine=engine, **options))
    if sent:
        from steerlab.engines.plain import asked_for, foreign

        persistent = load(folder, engine=engine, **options).nnsight._remoteable_persistent_objects()
        answers["foreign"] = sorted({name for blob in sent for name in foreign(asked_for(blob, persistent))})
        (out / "payload").write_bytes(sent[-1])
    path = out / f"{engine}-{os.environ.get('RANK', '0')}.json"
    path.write_text(json.dumps(answers), encoding="utf-8")


def recorded() -> list[bytes]:
    """A list that will hold every payload nnsight makes from now on."""
    from nnsight.schema.request import RequestModel

    sent: list[bytes] = []
    make = RequestModel.serialize

    def serialize(tracer: Any, compress: bool = False) -> bytes:
        sent.append(make(tracer, compress))
        return sent[-1]

    RequestModel.serialize = serialize  # type: ignore[method-assign]
    return sent


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

"""Ways to write with one model, under names that say what they do: searches, sampling, guidance, negatives.

STEER's authors compared with baselines whose names promised something else (spec in `BASELINES`): their "greedy" sampled at
temperature 0.5, their "beam" sampled its beams, and their "contrastive" asked for contrastive search and sampling at once and got
sampling. They are here as what they were, beside the real ones. `max_new_tokens` counts new tokens for every method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from steerlab.beam import Beam, beam_search
from steerlab.contrastive_search import Contrastive, contrastive_search
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.model import TracedModel


@dataclass(frozen=True)
class Method:
    """One way to choose tokens: sampling with these filters (after the contrast, where there is a `guide`), greedy decoding, beam
    search, or contrastive search.

    Raises `SteerlabError` for more than one of greedy, beam and contrastive, and for a guide beside beam or contrastive search.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    beam: Beam | None = None
    contrastive: Contrastive | None = None
    guide: Guide | None = None

    def __post_init__(self) -> None:
        searches = [self.greedy, self.beam is not None, self.contrastive is not None]
        if sum(searches) > 1 or (self.guide is not None and any(searches[1:])):
            raise SteerlabError(
                "a method was given more than one of greedy, beam, contrastive, or a guide beside a search: give one of them."
            )

    @property
    def needs_negatives(self) -> bool:
        """Whether every answer moves away from a text of its own."""
        return self.guide is not None and self.guide.eta > 0

    @property
    def needs_base(self) -> bool:
        """Whether the model is contrasted with another."""
        return self.guide is not None and self.guide.gamma > 0

    @property
    def deterministic(self) -> bool:
        """Whether equal prompts get equal answers whatever their keys (each sample's own negatives aside)."""
        return self.greedy or self.contrastive is not None or (self.beam is not None and not self.beam.sampled)

    def settings(self, given: Settings) -> Settings:
        """The caller's length, stop strings and seed with this method's filters."""
        return replace(
            given, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, greedy=self.greedy,
            min_p=0.0, repetition_penalty=1.0, frequency_penalty=0.0,
        )  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's record."""
        return asdict(self)


STEER_FILTER = 10  # top-k of the authors' method, after the contrast
BASELINES: Mapping[str, Method] = {
    "greedy": Method(greedy=True),
    "sampling": Method(),
    "temperature 0.5 (the paper's 'greedy')": Method(temperature=0.5),
    "top-k 10, temperature 0.85 (the paper's 'top_k')": Method(temperature=0.85, top_k=10),
    "nucleus 0.92 (the paper's 'nucleus')": Method(top_p=0.92),
    "beam search, 3 beams": Method(beam=Beam(3)),
    "beam sampling, 3 beams, temperature 0.94 (the paper's 'beam')": Method(
        temperature=0.94, beam=Beam(3, sampled=True)
    ),
    "contrastive search, k 10, penalty 0.35": Method(contrastive=Contrastive(10, 0.35)),
    "top-k 10 (the paper's 'contrastive')": Method(top_k=STEER_FILTER),
    "guidance only, gamma 0.2": Method(top_k=STEER_FILTER, guide=Guide(0.2, 0.0)),
    "negatives only, eta 0.6": Method(top_k=STEER_FILTER, guide=Guide(0.0, 0.6)),
    "STEER, gamma 0.2, eta 0.6": Method(top_k=STEER_FILTER, guide=Guide(0.2, 0.6)),
    "balanced STEER, gamma 0.2, eta 0.6": Method(top_k=STEER_FILTER, guide=Guide(0.2, 0.6, "balanced")),
}


def method(name: str) -> Method:
    """The method of that name. Raises `SteerlabError` naming the known ones."""
    if name not in BASELINES:
        raise SteerlabError(f"method {name!r} is not known: give one of {'; '.join(BASELINES)}.")
    return BASELINES[name]


def write(
    model: TracedModel,
    how: Method,
    requests: Sequence[Request],
    settings: Settings | None = None,
    *,
    base: TracedModel | None = None,
    negatives: Sequence[str] = (),
    batch_rows: int = 32,
) -> list[Sample]:
    """Write every request, in order, by this method. Of the settings `max_new_tokens`, `stop` and `seed` count; the filters are the
    method's. `negatives`: one text per request, for methods that move away from texts.

    Raises `SteerlabError` where the negatives are not as many, and what the method's own function refuses.
    """
    chosen = how.settings(settings or Settings())
    if how.needs_negatives and len(negatives) != len(requests):
        raise SteerlabError(
            f"{len(requests)} requests and {len(negatives)} negatives were given: this method needs one text for each request."
        )
    if how.beam is not None:
        return beam_search(model, requests, chosen, how.beam, batch_rows=batch_rows)
    if how.contrastive is not None:
        return contrastive_search(model, requests, chosen, how.contrastive, batch_rows=batch_rows)
    if how.guide is None:
        return generate(model, requests, chosen, batch_rows=batch_rows)
    away = negatives if how.needs_negatives else [""] * len(requests)
    guided = [replace(r, guided=Guided(how.guide, text)) for r, text in zip(requests, away, strict=True)]
    return generate(model, guided, chosen, batch_rows=batch_rows, base=base)

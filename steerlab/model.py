"""A traced model: with the engines the one place that talks to nnsight. Everything above sees `forward`, `decode` and facts."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from nnsight import TransformersModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steerlab.adapters import Adapter
from steerlab.architecture import Layout
from steerlab.batch import Batch, left_pad
from steerlab.decoding import Decoded, DecodeLoop, Finished, Mix, Pick, Watch
from steerlab.errors import SteerlabError
from steerlab.steering import CompiledPlan, Plan
from steerlab.streams import Past, Stream, check_cache
from steerlab.templates import Template
from steerlab.tracing import check_sites, get_site, set_site, traced_run, walk
from steerlab.types import Site

Edit = Callable[[Tensor], Tensor]
Visit = Callable[[Site, Tensor], None]


@dataclass(frozen=True)
class Reading:
    """What one forward pass gave: activations (b s d) by site, and logits (b s v) where they were asked for."""

    sites: Mapping[Site, Tensor]
    logits: Float[Tensor, "b s v"] | None = None

    def __getitem__(self, site: Site) -> Tensor:
        return self.sites[site]


@dataclass(frozen=True)
class Side:
    """A context (m s) read beside an answer that is being written: another prompt, another model (None: the one that
    writes), or the model with its adapter off. `rows` (m) are those of the written batch it stands beside (None: all).
    """

    batch: Batch
    rows: Tensor | None = None
    plan: Plan | CompiledPlan | None = None
    same: Tensor | None = None
    model: TracedModel | None = None
    adapter: bool = True


class TracedModel:
    """A causal LM whose residual stream can be read and edited, one batch at a time.

    The model itself is never changed: edits live inside one `forward` or `decode` and are gone when it returns
    or raises. `model.nnsight` is the wrapped nnsight model, for traces of your own; `model.hf` is the plain
    transformers model underneath. `engine` says where the verbs run (see `steerlab.engines`), `keeps_cache` whether
    another forward can go on from the keys and values of one (`past`).
    """

    engine = "local"
    keeps_cache = True

    def __init__(
        self,
        name: str,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        revision: str,
        template: Template,
        adapter: Adapter | None = None,
        nnsight: Any = None,
    ) -> None:
        self.name, self.revision, self.layout, self.template = name, revision, layout, template
        self.adapter = adapter
        # Any: to a type checker every attribute of a torch module is Tensor | Module.
        self.hf: Any = hf
        self.tokenizer: Any = tokenizer
        # An engine whose weights are elsewhere brings its own.
        self.nnsight: Any = nnsight or TransformersModel(hf, tokenizer=tokenizer, task="text-generation")
        self._blocks: Any = walk(self.nnsight, layout.layers)
        self._turn = threading.RLock()
        self.pad_id = int(self.tokenizer.pad_token_id or 0)

    # ---- facts -------------------------------------------------------------------------------------------------------------
    @property
    def n_layers(self) -> int:
        """Number of decoder blocks; layers are 0 to n_layers - 1."""
        return self.layout.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.hf.get_input_embeddings().weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, which is what logits have columns for."""
        return int(self.hf.get_input_embeddings().weight.shape[0])

    @property
    def context_length(self) -> int:
        """Most tokens the model has positions for."""
        config = self.hf.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", 1 << 30))

    @property
    def device(self) -> torch.device:
        """Where the embeddings live, which is where batches go."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the residual stream."""
        return self.hf.get_input_embeddings().weight.dtype

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's chat template, if it has one."""
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time: nnsight mixes up two runs of one model. No autograd, and no warning when a decode ends
        before the step limit: rows that finish early are the normal case, and the decode loop keeps their tokens."""
        with self._turn, torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was never reached.*")
            yield

    # ---- text to tokens ----------------------------------------------------------------------------------------------------
    def encode(self, texts: Sequence[str], answers: Sequence[str] | None = None, chat: bool = False) -> Batch:
        """Left-padded batch. `chat=True` puts every text behind the model's template (with exactly one BOS);
        `answers` are appended as already generated text, so that position 0 is their first token.

        Raises `SteerlabError` for no texts, a text without a token (an empty one, unless the tokenizer puts a
        BOS there), one longer than the context, or another number of answers than of texts.
        """
        rows = self.token_rows(texts, chat)
        lengths = [len(row) for row in rows]
        if answers is not None:
            if len(answers) != len(texts):
                raise SteerlabError(
                    f"{len(answers)} answers were given for {len(texts)} texts: give one answer per text."
                )
            tails = [self.tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
            rows = [row + list(tail) for row, tail in zip(rows, tails, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.context_length:
                raise SteerlabError(
                    f"a text of {len(row)} tokens ({text[:40]!r}...) does not fit "
                    f"the {self.context_length} positions of {self.name}: shorten it, or use fewer examples."
                )
        return left_pad(rows, self.pad_id, lengths).to(self.device)

    def token_rows(self, texts: Sequence[str], chat: bool = False) -> list[list[int]]:
        """Token ids of every text, unpadded; `chat=True` renders the template first."""
        if not texts:
            raise SteerlabError("no texts were given: give at least one.")
        rows = self.template.token_rows(self.tokenizer, texts, chat)
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise SteerlabError(f"the text {text!r} has no tokens: give a non-empty text.")
        return rows

    def decode_text(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    # ---- the verbs ---------------------------------------------------------------------------------------------------------
    def forward(
        self,
        batch: Batch,
        read: Sequence[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        visit: Visit | None = None,
        logits: bool = False,
        past: Past | None = None,
    ) -> Reading:
        """One forward pass that reads and edits the residual stream, and stops at the last site that is needed.

        read: sites to return, as (b s d) tensors after any edit. visit: called with each read site instead, and
        nothing is kept, so that memory does not grow with the number of layers. edit: site -> function from (b
        s d) to (b s d). logits=True runs on through the LM head. past: what the rows follow (see `past`).

        Raises `SteerlabError` for a site outside the model.
        """
        edits = dict(edit or {})
        self.check_sites([*read, *edits])
        order = self.layout.order([*read, *edits])
        wanted = set(read)
        found: dict[Site, Tensor] = {}
        out: list[Tensor] = []
        batch = batch.to(self.device)
        inputs = {
            "input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids,
            "use_cache": False,
        }  # fmt: skip
        if past is not None:
            inputs = past.before(batch)
        model = self.nnsight
        with self._alone(), model.trace(**inputs) as tracer:
            for site in order:
                value = get_site(self._blocks, self.layout, site)
                if site in edits:
                    value = edits[site](value)
                    set_site(self._blocks, self.layout, site, value)
                if site in wanted:
                    if visit is None:
                        found[site] = value
                    else:
                        visit(site, value)
            if logits:
                out.append(model.output.logits)
            else:
                tracer.stop()
        return Reading(found, out[0] if out else None)

    def past(self, batch: Batch) -> Past:
        """Keys and values of the batch's tokens, from which `forward` goes on. Raises `SteerlabError` where the engine keeps none."""
        check_cache(self.engine, self.keeps_cache)
        with self._alone():
            return Past.read(self.hf, batch.to(self.device))

    def decode(
        self,
        batch: Batch,
        pick: Pick,
        finished: Finished,
        max_new_tokens: int,
        plan: Plan | CompiledPlan | None = None,
        retire: bool = True,
        same: Tensor | None = None,
        sides: Sequence[Side] = (),
        mix: Mix | None = None,
        watch: Watch | None = None,
    ) -> Decoded:
        """Cached generation with the plan's edits inside every forward of it, the prompt pass included.

        pick: chooses the next token of every row from its logits. finished: says which rows are done. Rows keep
        their own interventions when others leave the batch. same (b): rows with one number have the same prompt and the
        same interventions, and are read once. sides: other contexts that read the same answers, whose logits `mix` takes
        into account before `pick` (see `guided`). watch: sees every token and may weaken rows (see `backoff`).

        Raises `SteerlabError` when prompt and answer cannot fit the context of a model.
        """
        if max_new_tokens < 1:
            raise SteerlabError(f"max_new_tokens is {max_new_tokens}: give at least 1.")
        main = self.stream(Side(batch, plan=plan, same=same), max_new_tokens)
        others = [(side.model or self).stream(side, max_new_tokens) for side in sides]
        loop = DecodeLoop(main, pick, finished, max_new_tokens, retire, others, mix, watch)
        of: dict[TracedModel, list[Stream]] = {self: [main]}
        for side, stream in zip(sides, others, strict=True):
            of.setdefault(side.model or self, []).append(stream)
        run = loop.run
        for model, streams in of.items():  # one trace inside the other where several models are steered
            run = partial(model.run_traced, loop, streams, run)
        return run()

    def stream(self, side: Side, room: int) -> Stream:
        """The context as this model reads it, with room for so many new tokens. Raises as `decode` does."""
        width = side.batch.input_ids.shape[1]
        if width + room > self.context_length:
            raise SteerlabError(
                f"a prompt of {width} tokens and {room} new ones need {width + room} positions, and {self.name} has "
                f"{self.context_length}: shorten the prompt or lower max_new_tokens."
            )
        batch = side.batch.to(self.device)
        plan = self.compile(side.plan) if isinstance(side.plan, Plan) else side.plan or CompiledPlan({}, len(batch))
        if plan.n_rows != len(batch):
            raise SteerlabError(f"the plan has {plan.n_rows} rows, but the batch has {len(batch)}: give as many.")
        self.check_sites(plan.sites)
        switch = None if self.adapter is None else partial(self.adapter.switch, side.adapter)
        own = {"rows": side.rows, "plan": plan, "same": side.same, "switch": switch, "weights": side.adapter}
        return Stream(self.hf, batch, room, **own)

    def run_traced(self, loop: DecodeLoop, streams: Sequence[Stream], run: Callable[[], Decoded]) -> Decoded:
        """`run()` with the plans of this model's streams at work, and its adapter as before when it is over."""
        kept = nullcontext() if self.adapter is None else self.adapter.kept()
        with self._alone(), kept, torch.inference_mode():  # nothing here is differentiated (LOG.md, Speed)
            return traced_run(self.nnsight, self._blocks, self.layout, loop, streams, run)

    def compile(self, plan: Plan) -> CompiledPlan:
        """The plan as per-site tensors on this model's device; checks layers and width."""
        return plan.compile(self.d_model, self.dtype, self.device, self.n_layers)

    def check_settings(self, settings: Any) -> None:
        """Raise `SteerlabError` for `Settings` the engine cannot write with; the local one takes all."""

    def check_sites(self, sites: Sequence[Site]) -> None:
        """Raise `SteerlabError` for a layer or stream this model does not have."""
        check_sites(self.layout, self.name, sites)

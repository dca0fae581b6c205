"""Models that NDIF hosts: the weights stay there, and a forward pass or a greedy answer runs there with its edits.

Sent are tensors and the source of plain functions (`plain`), never an object of this package. With `remote="local"` the same
payload is made and read back, and runs here: what passes that passes there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any

import nnsight
import torch
from nnsight import CONFIG, TransformersModel
from nnsight.intervention.backends.remote import RemoteError
from torch import Tensor
from transformers import GenerationConfig

from steerlab.batch import Batch
from steerlab.compiled import SiteEdit
from steerlab.decoding import Decoded, Finished, Mix, Pick, Watch
from steerlab.engines.plain import check_function, check_spans, steer, steps_of
from steerlab.engines.rows import check_alone, cut_rows, greedy_only, settings_of
from steerlab.errors import SteerlabError
from steerlab.model import Edit, Reading, Side, TracedModel, Visit
from steerlab.steering import CompiledPlan, Plan, TokenContext
from steerlab.streams import Past, check_cache
from steerlab.types import Site

KEY = "NDIF_API_KEY"
# Blocks known to put out their input plus attn_out plus mlp_out; elsewhere that is seen by trying, which takes the weights.
ADDS = ("llama", "gemma2", "gemma3_text", "qwen2", "qwen3", "mistral", "phi3", "gpt2", "gpt_neox")


def check(source: str, remote: bool | str) -> None:
    """Raise `SteerlabError` without a key, while the service does not answer, and for a model it does not host now."""
    if remote not in (True, "local"):
        raise SteerlabError(f"remote={remote!r} was given: leave it out, or give 'local' to simulate the service here.")
    if remote is True:
        check_hosted(source)


def connect(source: str, tokenizer: Any, revision: str | None, dtype: torch.dtype, remote: bool | str) -> Any:
    """nnsight's model: its structure only, or for remote="local" the weights too."""
    if remote == "local":
        return TransformersModel(
            source, task="text-generation", tokenizer=tokenizer, revision=revision or "main", dtype=dtype, dispatch=True
        )
    model = TransformersModel(source, task="text-generation", tokenizer=tokenizer, revision=revision or "main")
    with suppress(OSError):  # a checkpoint without one ends with its tokenizer's end of text
        model._module.generation_config = GenerationConfig.from_pretrained(source, revision=revision or "main")
    return model


def check_hosted(source: str) -> None:
    """Raise `SteerlabError` unless there is a key and the service runs this model now."""
    if not (os.environ.get(KEY) or CONFIG.API.APIKEY):
        raise SteerlabError(
            f"engine 'ndif' needs a key: set the environment variable {KEY} (from https://login.ndif.us)."
        )
    CONFIG.API.APIKEY = os.environ.get(KEY) or CONFIG.API.APIKEY  # nnsight looks once, when it is imported
    with redirect_stderr(StringIO()):
        found = nnsight.ndif.status()
    if not len(found):
        raise SteerlabError(f"NDIF does not answer at {CONFIG.API.HOST}, or hosts nothing: try again later.")
    running = [name for name in found if found[name]["state"] == "RUNNING"]
    if source not in [found[name]["repo_id"] for name in running]:
        state = next((found[name]["state"] for name in found if found[name]["repo_id"] == source), None)
        what = "is not hosted by NDIF" if state is None else f"is {state.lower()} at NDIF"
        raise SteerlabError(f"{source} {what} now: it runs {', '.join(sorted(running)) or 'nothing'}.")


class RemoteModel(TracedModel):
    """A model elsewhere. `forward` reads and edits as ever; `decode` writes greedily; what is read is sent back whole."""

    engine = "ndif"
    keeps_cache = False  # they stay where the weights are
    remote: bool | str = True

    @property
    def device(self) -> torch.device:
        """Where batches are made and results arrive."""
        return torch.device("cpu")

    def check_settings(self, settings: Any) -> None:
        """Raise `SteerlabError` for anything but the most likely token."""
        greedy_only(settings, self.engine)

    def check_sites(self, sites: Sequence[Site]) -> None:
        """As `TracedModel.check_sites`, and attn_out and mlp_out only where they are known to add up to the block."""
        kind = self.hf.config.model_type
        if kind not in ADDS and any(site.stream in ("attn_out", "mlp_out") for site in sites):
            raise SteerlabError(
                f"whether attn_out and mlp_out of {self.name} ({kind}) add up to its blocks cannot be seen from afar: "
                "use resid_pre or resid_post."
            )
        super().check_sites(sites)

    def forward(
        self,
        batch: Batch,
        read: Sequence[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        visit: Visit | None = None,
        logits: bool = False,
        past: Past | None = None,
    ) -> Reading:
        """As `TracedModel.forward`; an edit that is not a plan's must be a function of tensors alone.

        Raises `SteerlabError` as that does, for an edit that would carry more than that, and where the service refuses.
        """
        if past is not None:
            check_cache(self.engine, self.keeps_cache)
        edits = dict(edit or {})
        self.check_sites([*read, *edits])
        places = [self._place(site, edits.get(site), site in read) for site in self.layout.order([*read, *edits])]
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }
        with self._alone():
            found = _told(_forward, self.nnsight, inputs, places, logits, self.remote)
        out = found.pop() if logits else None
        sites = dict(zip(self.layout.order(list(read)), found, strict=True))
        if visit is not None:
            for site, value in sites.items():
                visit(site, value)
            sites = {}
        return Reading(sites, out)

    def _place(self, site: Site, edit: Edit | None, wanted: bool) -> tuple[Any, ...]:
        """(path of the module, input or output, steps, function, wanted): a site as `_forward` takes it."""
        steps, function = [], None
        if isinstance(edit, SiteEdit):
            steps = steps_of(edit.plan.groups.get(edit.site, ()), edit.context)
        elif edit is not None:
            check_function(edit, f"the edit of {site.stream} {site.layer}")
            function = edit
        return (*self._path(site), steps, function, wanted)

    def _path(self, site: Site) -> tuple[list[str | int], str]:
        inner = {"attn_out": self.layout.attn_out, "mlp_out": self.layout.mlp_out}.get(site.stream)
        path: list[str | int] = [*self.layout.layers.split("."), site.layer, *(inner.split(".") if inner else [])]
        return path, "input" if site.stream == "resid_pre" else "output"

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
        """Greedy generation by transformers' `generate` where the weights are, the plan's edits in every forward of it.

        Raises `SteerlabError` as `TracedModel.decode` does, for anything but the most likely token, for guidance, and for
        positions by token id.
        """
        self.check_settings(settings_of(pick, self.engine))
        check_alone(self.engine, sides, watch)
        compiled = self.stream(Side(batch, plan=plan), max_new_tokens).whole
        context = TokenContext(batch.relative, batch.input_ids, batch.real)
        places = []
        for site in self.layout.order(list(compiled.sites)):
            check_spans(compiled.groups[site], self.engine)
            places.append((*self._path(site), steps_of(compiled.groups[site], context)))
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with self._alone():
            tokens = _told(_generate, self.nnsight, inputs, places, max_new_tokens, self.remote)
        return cut_rows(tokens[:, batch.input_ids.shape[1] :].cpu(), finished)


def _told(run: Any, *words: Any) -> Any:
    """`run(*words)`, the service's complaint as a sentence."""
    try:
        return run(*words)
    except RemoteError as error:
        raise SteerlabError(f"NDIF could not run this ({str(error).strip().splitlines()[-1]}).") from error


def _forward(
    model: Any, inputs: dict[str, Tensor], places: list[Any], logits: bool, remote: bool | str
) -> list[Tensor]:
    """The wanted activations in the order of the places, and the logits last. The block is what crosses."""
    with model.trace(remote=remote, **inputs) as tracer:
        found = nnsight.save([])
        for path, side, steps, function, wanted in places:
            module = model
            for name in path:
                module = module[name] if isinstance(name, int) else getattr(module, name)
            whole = module.input if side == "input" else module.output
            value = whole if isinstance(whole, torch.Tensor) else whole[0]
            if steps or function is not None:
                value = steer(value, steps) if function is None else function(value)
                if side == "input":
                    module.input = value
                else:
                    module.output = value if isinstance(whole, torch.Tensor) else (value, *whole[1:])
            if wanted:
                found.append(value)
        if logits:
            found.append(model.output.logits)
        else:
            tracer.stop()
    return list(found)


def _generate(model: Any, inputs: dict[str, Tensor], places: list[Any], room: int, remote: bool | str) -> Tensor:
    """Prompt and answer (b s+n), greedily. The two blocks are what crosses: the first edits every forward, the second, which
    runs to the end whenever that comes, takes the result.
    """
    options = {"max_new_tokens": room, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
    if not places:
        with model.generate(remote=remote, **inputs, **options) as tracer:
            tokens = nnsight.save(tracer.result)
        return tokens
    with model.generate(remote=remote, **options) as tracer:
        with tracer.invoke(**inputs):
            at = None
            for _ in tracer.iter[:]:
                for path, side, steps in places:
                    module = model
                    for name in path:
                        module = module[name] if isinstance(name, int) else getattr(module, name)
                    whole = module.input if side == "input" else module.output
                    value = steer(whole if isinstance(whole, torch.Tensor) else whole[0], steps, at)
                    if side == "input":
                        module.input = value
                    else:
                        module.output = value if isinstance(whole, torch.Tensor) else (value, *whole[1:])
                at = 0 if at is None else at + 1
        with tracer.invoke():
            tokens = nnsight.save(tracer.result)
    return tokens

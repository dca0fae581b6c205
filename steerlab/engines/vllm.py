"""vLLM: its scheduler, its cache and its sampling; every request brings the name of its own interventions.

The interventions of a row are installed in the engine once and run there, beside the weights, for the requests that name them;
rows without any run the engine as it is. The noise is vLLM's: a sample depends on its key and its request, not on its
neighbours, and is not the sample that the local engine draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steerlab.batch import Batch
from steerlab.compiled import SiteEdit
from steerlab.decoding import Decoded, Finished, Mix, Pick, Watch
from steerlab.engines.plain import check_spans, steps_of
from steerlab.engines.rows import check_alone, cut_rows, settings_of
from steerlab.engines.vllm_blocks import gathered, install_reading, install_steering
from steerlab.engines.vllm_start import sampling
from steerlab.errors import SteerlabError
from steerlab.model import Edit, Reading, Side, TracedModel, Visit
from steerlab.steering import CompiledPlan, Plan, TokenContext
from steerlab.streams import Past, check_cache
from steerlab.types import Site

KEPT = 64  # sets of interventions that stay installed between batches
_SEEDS = (1 << 63) - 1


@dataclass
class Row:
    """One answer being written: its prompt, what was written so far, and whether vLLM has more to do."""

    prompt: list[int]
    interventions: Any
    seed: int
    tokens: list[int] = field(default_factory=list)
    over: bool = False


class VLLMModel(TracedModel):
    """A model inside vLLM. `decode` samples there; `forward` reads and edits block outputs, one request per row."""

    engine = "vllm"
    keeps_cache = False  # vLLM's own cache is in its blocks

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self._installed: dict[Any, tuple[str, Any]] = {}
        self._count = 0

    @property
    def device(self) -> torch.device:
        """Where batches are made and results arrive."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the residual stream."""
        return self.nnsight.vllm_entrypoint.llm_engine.vllm_config.model_config.dtype

    def check_sites(self, sites: Sequence[Site]) -> None:
        """As `TracedModel.check_sites`; what stands inside a block vLLM fuses, and before the first block nothing can be put."""
        super().check_sites(sites)
        for site in sites:
            if site.stream in ("attn_out", "mlp_out") or site == Site(0, "resid_pre"):
                raise SteerlabError(
                    f"engine 'vllm' reads and edits what blocks put out, and not {site.stream} of layer {site.layer}: use "
                    "resid_post, or engine 'local'."
                )

    def forward(
        self,
        batch: Batch,
        read: Sequence[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        visit: Visit | None = None,
        logits: bool = False,
        past: Past | None = None,
    ) -> Reading:
        """As `TracedModel.forward`, in the engine's own order of rows; padding reads as 0.

        Raises `SteerlabError` as that does, for logits, which vLLM has of the last token only, and for edits that are not a plan's,
        because a row is alone here and a function may want the whole batch.
        """
        if past is not None:
            check_cache(self.engine, self.keeps_cache)
        edits = dict(edit or {})
        self.check_sites([*read, *edits])
        if logits:
            raise SteerlabError(
                "engine 'vllm' computes logits of the last token only: use engine 'local' for all of them."
            )
        order, wanted = self.layout.order([*read, *edits]), set(read)
        if any(not isinstance(one, SiteEdit) for one in edits.values()):
            raise SteerlabError(
                "engine 'vllm' edits by plans only, row by row: give the edits of a plan, or use engine 'local'."
            )
        prompts = [row[mask].tolist() for row, mask in zip(batch.input_ids, batch.real, strict=True)]
        longest = max(map(len, prompts))
        if longest >= self.context_length:
            raise SteerlabError(
                f"a text of {longest} tokens leaves no room for the token that vLLM writes behind it, and {self.name} has "
                f"{self.context_length} positions: cut it."
            )
        alike = not edits
        names, handles = [], []
        with self._alone():
            try:
                for row in range(1 if alike else len(batch)):
                    places = [(self._path(site), self._steps(edits.get(site), row), site in wanted) for site in order]
                    handles.append(install_reading(self.nnsight, self._new_name(), gathered(places)))
                    names.append(handles[-1].name)
                names = names * len(batch) if alike else names
                outputs = self._run(
                    [(p, {"max_tokens": 1, "temperature": 0.0}, name) for p, name in zip(prompts, names, strict=True)]
                )
            finally:
                for handle in handles:
                    handle.clear()
        found = _padded([output.saves["mine"] for output in outputs], batch)
        sites = dict(zip(self.layout.order(list(read)), found, strict=True))
        if visit is not None:
            for site, value in sites.items():
                visit(site, value)
            sites = {}
        return Reading(sites)

    def _steps(self, edit: Edit | None, row: int) -> list[Any]:
        """What a plan's edit does to one row, as steps over its real tokens."""
        if not isinstance(edit, SiteEdit):
            return []
        context, index = edit.context, torch.tensor([row])
        real = context.real[row]
        alone = TokenContext(
            context.relative[index][:, real], context.ids[index][:, real], context.real[index][:, real]
        )
        return steps_of(edit.plan.select(index).groups.get(edit.site, ()), alone)

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
        """Generation inside vLLM: `pick` must be one of `Settings`, whose fields become vLLM's; each row has its own seed.

        Raises `SteerlabError` as `TracedModel.decode` does, for guidance, back-off, and positions by token id.
        """
        settings = settings_of(pick, self.engine)
        check_alone(self.engine, sides, watch)
        checked = self.stream(Side(batch, plan=plan), max_new_tokens).whole
        for groups in checked.groups.values():
            check_spans(groups, self.engine)
        own: Sequence[Any] = ((),) * len(batch)
        if plan is not None:
            own = plan.rows if isinstance(plan, Plan) else [plan.select(torch.tensor([i])) for i in range(len(batch))]
        keys = [int(key) for key in getattr(pick, "keys", range(len(batch)))]
        prompts = [row[mask].tolist() for row, mask in zip(batch.input_ids, batch.real, strict=True)]
        rows = [Row(*one) for one in zip(prompts, own, keys, strict=True)]
        options = sampling(settings, finished)
        with self._alone():
            while open_rows := [row for row in rows if not row.over and len(row.tokens) < max_new_tokens]:
                self._write(open_rows, options, finished, max_new_tokens)
        n = max(len(row.tokens) for row in rows)
        tokens = torch.zeros((len(rows), n), dtype=torch.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        lengths = torch.tensor([len(row.tokens) for row in rows])
        return Decoded(tokens, lengths, torch.tensor([row.over for row in rows]), n, int(lengths.sum()))

    def _write(self, rows: Sequence[Row], options: Mapping[str, Any], finished: Finished, room: int) -> None:
        """Let vLLM write on. It stops at a stop string also where the answer has not begun, and is then asked to go on."""
        self._forget([self._key(row) for row in rows])
        requests = []
        for row in rows:
            done = len(row.tokens)
            own = {**options, "max_tokens": room - done, "seed": (row.seed + done) & _SEEDS}
            requests.append(([*row.prompt, *row.tokens], own, self._named(row)))
        for row, output in zip(rows, self._run(requests), strict=True):
            new = list(output.outputs[0].token_ids)
            there = len(row.tokens)
            cut = cut_rows(torch.tensor([[*row.tokens, *new]]), finished)
            row.tokens, row.over = cut.row(0), bool(cut.ended[0])
            if len(row.tokens) == there:
                raise SteerlabError(f"vLLM wrote nothing for the prompt {self.decode_text(row.prompt)[-40:]!r}.")

    def _run(self, requests: Sequence[tuple[list[int], Mapping[str, Any], str | None]]) -> list[Any]:
        """vLLM's outputs for (prompt, sampling options, name of its interventions), in order."""
        from nnsight.intervention.errors import raise_deferred
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
        from vllm.inputs import TokensPrompt  # pyright: ignore[reportMissingImports]

        names = [{"nnsight_edits": [] if name is None else [name]} for _, _, name in requests]
        params = [SamplingParams(**own, extra_args=extra) for (_, own, _), extra in zip(requests, names, strict=True)]
        prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt, _, _ in requests]
        outputs = self.nnsight.vllm_entrypoint.generate(prompts, params, use_tqdm=False)
        for output in outputs:
            raise_deferred(getattr(output, "nnsight_error", None))
        return outputs

    def _key(self, row: Row) -> Any:
        """What tells the edit of a row: its interventions, and how far into the answer its context ends."""
        own = row.interventions
        return (id(own) if isinstance(own, CompiledPlan) else own), len(row.tokens)

    def _named(self, row: Row) -> str | None:
        """The name of the installed edit that makes a row's interventions; None where it has none."""
        own = row.interventions
        compiled = own if isinstance(own, CompiledPlan) else self.compile(Plan((own,)))
        if not compiled.sites:
            return None
        key = self._key(row)
        if key not in self._installed:
            nobody = torch.zeros((1, 1), dtype=torch.int64)
            context = TokenContext(nobody, nobody, nobody.bool())
            places = [
                (self._path(site), steps_of(compiled.groups[site], context), False)
                for site in self.layout.order(list(compiled.sites))
            ]
            handle = install_steering(self.nnsight, self._new_name(), gathered(places), len(row.tokens) - 1)
            self._installed[key] = (handle.name, (handle, own))  # held, so that its id stays its own
        return self._installed[key][0]

    def _forget(self, coming: Sequence[Any]) -> None:
        """Take edits that are not needed out of the engine, the oldest first, where they would become too many."""
        wanted = set(coming)
        new = len(wanted - self._installed.keys())
        for key in [key for key in self._installed if key not in wanted]:
            if len(self._installed) + new <= KEPT:
                break
            _, (handle, _) = self._installed.pop(key)
            handle.clear()

    def _new_name(self) -> str:
        self._count += 1
        return f"steerlab-{self._count}"

    def _path(self, site: Site) -> list[str | int]:
        layer = site.layer - 1 if site.stream == "resid_pre" else site.layer
        return [*self.layout.layers.split("."), layer]


def _padded(rows: Sequence[Sequence[Tensor]], batch: Batch) -> list[Tensor]:
    """Per site the rows' streams (s d) left-padded to one tensor (b s d), 0 on padding."""
    found = []
    for values in zip(*rows, strict=True):
        whole = torch.zeros((len(batch), batch.input_ids.shape[1], values[0].shape[-1]), dtype=values[0].dtype)
        whole[batch.real] = torch.cat(list(values)).cpu()
        found.append(whole)
    return found

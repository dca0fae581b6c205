"""lm-evaluation-harness on a steered model: its tasks ask, a `TracedModel` answers under any interventions.

    lm_eval.simple_evaluate(model=SteeredLM(model, interventions), tasks=["xcopa_id"])

Texts are cut into tokens and windows as the harness's own `hf` model does it, so that an unsteered model scores the same there and
here. `python -m steerlab.commands.harness` is the harness's command line with this model in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from steerlab.ablation.edited import plan_edits
from steerlab.batch import left_pad, plan_batches
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, write_rows
from steerlab.halving import Halving
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan
from steerlab.stopping import Stopper

try:
    from lm_eval.api.instance import Instance  # type: ignore[import-not-found]  # an extra
    from lm_eval.api.model import TemplateLM  # type: ignore[import-not-found]
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text  # type: ignore[import-not-found]
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-not-found]
except ModuleNotFoundError as missing:
    raise SteerlabError(
        f"lm-evaluation-harness needs the package {missing.name}, which is not installed: run pip install -e '.[harness]' in the checkout."
    ) from missing

Scored = tuple[float, bool]
_LOGITS = 1 << 25  # logits of one pass, which bounds the memory with a large vocabulary
_TOKENS = 4096
_DRAWING = (
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
)  # what a task may say of drawing, by the name it has in `Settings`


class SteeredLM(TemplateLM):
    """A model of the harness that answers with a traced model and the same interventions for every request.

    Positions mean what they mean everywhere here: of a log-likelihood the context is the prompt and the continuation the answer.
    `batch_rows`: most rows of a batch, which changes the time and not the answers. `max_gen_toks`: new tokens where a task says
    nothing of them. `seed`: of tasks that draw; every sample has a key of its own (task, document, repeat).

    Raises `SteerlabError` for an intervention the model cannot take.
    """

    def __init__(
        self,
        model: TracedModel,
        interventions: Sequence[Intervention] = (),
        *,
        batch_rows: int = 32,
        max_gen_toks: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_rows < 1:
            raise SteerlabError(f"batch_rows is {batch_rows}: give at least 1.")
        self.model, self.interventions = model, tuple(interventions)
        model.compile(Plan((self.interventions,)))
        self.tokenizer, self._device = model.tokenizer, model.device
        self.batch_size, self.max_gen_toks, self.seed = batch_rows, max_gen_toks, seed

    # ---- facts -------------------------------------------------------------------------------------------------------------
    @property
    def eot_token_id(self) -> int:
        """The end of a text; the beginning of one where the tokenizer has no end."""
        ids = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.model.pad_id)
        return next(int(one) for one in ids if one is not None)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context stands behind: BOS, or the end of a text where there is none."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def max_length(self) -> int:
        """Most tokens the model reads."""
        return self.model.context_length

    @property
    def tokenizer_name(self) -> str:
        """The name the harness keeps rendered requests under."""
        return self.model.name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results: the model, and how it was steered."""
        return {
            "model_name": self.model.name,
            "model_revision": self.model.revision,
            "model_dtype": str(self.model.dtype),
            "steering": [one.to_json() for one in self.interventions],
        }

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages in the tokenizer's own template. Raises `SteerlabError` where it has none."""
        if self.model.chat_template is None:
            raise SteerlabError(
                f"the tokenizer of {self.model.name} has no chat template: leave --apply_chat_template out."
            )
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; unless told otherwise with what the tokenizer puts before a text, once."""
        if add_special_tokens is None:
            begin = self.tokenizer.decode([self.prefix_token_id])
            add_special_tokens = not (begin and string.startswith(begin))
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    # ---- what the harness asks ---------------------------------------------------------------------------------------------
    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[Scored]:
        """Of each (texts, context, continuation): the log-likelihood, and whether greedy decoding would write the continuation.

        What does not fit is cut off on the left. Requests that read the same tokens, as the choices A to D do, are read once.
        """
        asked: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for number, (_, head, tail) in enumerate(requests):
            if not head or not 0 < len(tail) <= self.max_length:
                raise SteerlabError(
                    f"a context of {len(head)} and a continuation of {len(tail)} tokens were given: {self.model.name} needs 1 "
                    f"of the first and reads 1 to {self.max_length} of the second."
                )
            row = (*head, *tail)[-(self.max_length + 1) : -1]
            asked.setdefault((row, len(row) + 1 - len(tail)), []).append(number)
        reads, members = list(asked), list(asked.values())
        found: dict[int, Scored] = {}
        memory = Halving("requests")
        budget = max(1, min(_TOKENS, _LOGITS // self.model.vocab_size))

        def score(some: list[int]) -> None:
            for place, rows in zip(some, self._continuations([reads[i] for i in some]), strict=True):
                for number in members[place]:
                    found[number] = _scored(rows, requests[number][2])

        with tqdm(total=len(requests), desc="log-likelihoods", disable=disable_tqdm) as bar:
            for some in plan_batches([len(row) for row, _ in reads], budget, self.batch_size):
                memory.run(some, score)
                bar.update(sum(len(members[i]) for i in some))
        for number, (texts, _, _) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, found[number])
        return [found[number] for number in range(len(requests))]

    def _continuations(self, reads: Sequence[tuple[tuple[int, ...], int]]) -> list[torch.Tensor]:
        """Of each (tokens, how many of them are context): log-probabilities "n v" of what follows its last context token on."""
        batch = left_pad([row for row, _ in reads], self.model.pad_id, [head for _, head in reads]).to(
            self.model.device
        )
        edits = plan_edits(self.model, Plan.uniform(self.interventions, len(batch)), batch)
        logits = self.model.forward(batch, edit=edits, logits=True).logits
        assert logits is not None
        lengths = [len(row) + 1 - head for row, head in reads]
        return [torch.log_softmax(own[-n:].float(), dim=-1) for own, n in zip(logits, lengths, strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows of the model's length that predict every token once."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            rolled = get_rolling_token_windows(
                self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for head, tail in map(make_disjoint_window, rolled):
                windows.append((None, head, tail))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (total, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each context up to the first stop string. A context that leaves no room is cut off on the left.

        Raises `SteerlabError` for a way of decoding that is not known here, and where the answer alone fills the context.
        """
        kinds: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            words: Any = request.args  # the harness types them as those of a likelihood
            kinds.setdefault(json.dumps(words[1], sort_keys=True), []).append(number)
        prompts, found = _keyed(requests, self.interventions), [""] * len(requests)
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm) as bar:
            for kind, numbers in kinds.items():
                settings, memory = self._settings(json.loads(kind)), Halving("requests")
                rows = self._room(prompts, numbers, settings.max_new_tokens)
                work = partial(
                    write_rows, self.model, prompts, rows, settings, Stopper(self.model, settings.stop), None
                )
                lengths = [len(rows[number]) for number in numbers]
                for some in plan_batches(lengths, token_budget=1 << 40, max_rows=self.batch_size):
                    members = [numbers[i] for i in some]
                    samples = [sample for part in memory.run(members, work) for sample in part]
                    for number, sample in zip(members, samples, strict=True):
                        text = self.model.decode_text(sample.tokens)
                        found[number] = postprocess_generated_text(text, list(settings.stop), None)
                        self.cache_hook.add_partial("generate_until", requests[number].args, found[number])
                    bar.update(len(members))
        return found

    def _room(self, prompts: Sequence[Request], numbers: Sequence[int], new: int) -> list[list[int]]:
        """Token ids of these prompts (nothing for the others) that leave room for so many new tokens."""
        room = self.max_length - new
        if room < 1:
            raise SteerlabError(
                f"{new} new tokens were asked for, and {self.model.name} reads {self.max_length} in all: set max_gen_toks lower."
            )
        rows: list[list[int]] = [[] for _ in prompts]
        for number in numbers:
            rows[number] = self.tok_encode(prompts[number].prompt)[-room:] or [self.prefix_token_id]
        return rows

    def _settings(self, asked: dict[str, Any]) -> Settings:
        """A task's `generation_kwargs` as ours. Raises `SteerlabError` for one that has no meaning here."""
        given: dict[str, Any] = dict(normalize_gen_kwargs(asked, self.max_gen_toks))
        stop, new = tuple(filter(None, given.pop("until"))), given.pop("max_gen_toks")
        draws, temperature = given.pop("do_sample"), given.pop("temperature", 1.0)
        if other := sorted(set(given) - set(_DRAWING)):
            raise SteerlabError(
                f"a task asks for {', '.join(f'{name}={given[name]}' for name in other)}: its generation_kwargs may name until, "
                f"max_gen_toks, do_sample, temperature, {', '.join(_DRAWING)}."
            )
        drawing = {"top_p": 1.0, **given}
        if draws:
            drawing["temperature"] = temperature
        return Settings(new, greedy=not draws, stop=stop, seed=self.seed, **drawing)


def _scored(rows: torch.Tensor, tail: Sequence[int]) -> Scored:
    """The sum of the log-probabilities "n v" of these tokens, and whether each was the likeliest."""
    wanted = torch.tensor(tail, device=rows.device)
    return float(rows.gather(1, wanted[:, None]).sum()), bool((rows.argmax(-1) == wanted).all())


def _keyed(requests: Sequence[Instance], interventions: tuple[Intervention, ...]) -> list[Request]:
    """The contexts as requests, each with a key of its own: the harness gives one instance again for every repeat."""
    seen: Counter[tuple[str, int, int]] = Counter()
    found = []
    for request in requests:
        place = (str(request.task_name), int(request.doc_id or 0), int(request.idx))
        found.append(Request(request.args[0], ("lm-eval", *place, seen[place]), interventions, chat=False))
        seen[place] += 1
    return found

"""polyglot-mini-it: polyglot-mini learns to obey instructions that can be checked, by going on with its training.

`make model-it`, or `python -m steerlab.bundled.obey` (five stages, about 40 minutes on one core). The training texts are
those of polyglot-mini. Behind a base query, or one of the tasks' prompts, stands an instruction in words, and the text is changed until
it passes the instruction's own check (`steerlab.following.obey`); what is held out says `steerlab.bundled.lessons`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from steerlab.bundled import corpus, prepare, train
from steerlab.bundled.config import TrainConfig
from steerlab.bundled.corpus import ASSISTANT, BOS, EOS, USER, DocumentStream, Mixture, Passage
from steerlab.bundled.lessons import PAIRS, Lesson, Shares, ask, copied, lessons
from steerlab.bundled.packing import Document
from steerlab.following.prompts import cut
from steerlab.following.simple import place_of
from steerlab.loading import bundled_path

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PLAIN = Mixture(labelled_boost=12, zero_shot=0.5, few_shot=0.05, nameless=0.25, seed=11)


@dataclass(frozen=True)
class Stage:
    """One run of training: what its documents are, and how it learns from them."""

    shares: Shares
    config: TrainConfig


# Two stages teach case, length and language, then marks and quotation marks on short answers; two more copying, which takes
# documents of its own (`steerlab.bundled.copying`); the last all together.
STAGES = (
    Stage(Shares(), TrainConfig(
        muon_lr=3e-3, adam_lr=2e-3, warmup_steps=20, cooldown=0.7, tokens=2_000_000, start="polyglot-mini", seed=3, compile=False,
    )),
    Stage(Shares(plain=0.2, bare=0.1, pairs=0.15, short=0.85, weights=(0.5, 0.5, 3.0, 2.0, 0.7, 3.5, 0.7), seed=5), TrainConfig(
        muon_lr=2e-3, adam_lr=1.5e-3, warmup_steps=10, cooldown=0.8, tokens=450_000, start="polyglot-mini", seed=4, compile=False,
    )),
    Stage(Shares(
        plain=0.1, bare=0.03, copies=0.55, pairs=0.15, short=0.85, weights=(0.6, 0.6, 2.5, 1.0, 0.6, 2.5, 0.6), stress=4, seed=9,
    ), TrainConfig(
        muon_lr=4e-3, adam_lr=2e-3, warmup_steps=15, cooldown=0.4, tokens=1_200_000, start="polyglot-mini", seed=6, compile=False,
    )),
    Stage(Shares(
        plain=0.06, bare=0.0, copies=0.82, brief=0.6, short=1.0, weights=(0.5, 0.5, 2.5, 0.7, 0.5, 3.0, 0.5), stress=6, seed=10,
    ), TrainConfig(
        muon_lr=4e-3, adam_lr=2e-3, warmup_steps=10, cooldown=0.4, tokens=1_200_000, start="polyglot-mini", seed=8, compile=False,
    )),
    Stage(Shares(
        plain=0.15, bare=0.08, copies=0.33, brief=0.3, pairs=0.2, short=0.75, weights=(1.0, 1.0, 2.0, 1.2, 1.0, 3.0, 1.0), stress=4,
        seed=13,
    ), TrainConfig(
        muon_lr=4e-3, adam_lr=2e-3, warmup_steps=10, cooldown=0.7, tokens=1_300_000, start="polyglot-mini", seed=7, compile=False,
    )),
)  # fmt: skip


def documents(texts: list[Passage], tokenizer: Tokenizer, shares: Shares, max_tokens: int) -> Iterator[Document]:
    """Endless, seeded documents of all kinds: token ids, and the number of prompt tokens or a weight for every token."""
    plain = iter(DocumentStream(texts, tokenizer, PLAIN, max_tokens))
    drawn = DocumentStream(texts, tokenizer, replace(PLAIN, seed=PLAIN.seed + 1), max_tokens)
    taught = lessons(drawn, shares)
    rng = np.random.default_rng(shares.seed + 1)
    while True:
        kind = rng.random()
        if kind < shares.plain:
            yield next(plain)
            continue
        if kind < shares.plain + shares.copies:
            told = copied(texts, texts[drawn.draw()], shares, rng)
        elif kind < shares.plain + shares.copies + shares.bare:
            p = texts[drawn.draw()]
            prompt, answer = ask(p, rng.random() < shares.nameless, rng), " ".join(p.text.split())
            if shares.short and rng.random() < shares.short:
                answer = cut(answer, int(rng.integers(3, 15)))
            told = Lesson(prompt, answer, (), ())
        else:
            told = next(taught)
        ids, weights = encoded(told, tokenizer, shares.stress)
        if len(ids) <= max_tokens:  # a cut answer might no longer obey
            yield ids, weights


def encoded(told: Lesson, tokenizer: Tokenizer, stress: int) -> tuple[list[int], list[int]]:
    """Token ids of prompt and answer, and the weight of each in the loss: 0 for the prompt, `stress` for the word and the mark asked
    for, 1 for the rest.
    """
    head = [BOS, USER, *tokenizer.encode(told.prompt).ids, ASSISTANT]
    body = tokenizer.encode(told.answer)
    spans = [*body.offsets, (len(told.answer), len(told.answer) + 1)]
    heavy = stressed(told)
    weights = [stress if any(a < end and start < b for a, b in heavy) else 1 for start, end in spans]
    return [*head, *body.ids, EOS], [0] * len(head) + weights


def stressed(told: Lesson) -> list[tuple[int, int]]:
    """Where in the answer the word asked for stands, and the mark with the end of text: spans of characters."""
    found = []
    for name, kwargs in zip(told.instructions, told.kwargs, strict=True):
        if name == "simple:include_word":
            found.append(place_of(told.answer, kwargs["word"]))
        if name == "simple:end_mark":
            found.append((len(told.answer) - 1, len(told.answer) + 1))
    return [span for span in found if span]


def base_tokenizer() -> Tokenizer:
    """polyglot-mini's tokenizer, without the BOS it puts before plain text."""
    plain = json.loads((bundled_path() / "tokenizer.json").read_text(encoding="utf-8"))
    return Tokenizer.from_str(json.dumps({**plain, "post_processor": None}))


def prepare_lessons(root: Path | None, packed: Path, c: TrainConfig, shares: Shares) -> None:
    """Write the packed documents and the held-out token ids, as `steerlab.bundled.prepare` does."""
    packed.mkdir(parents=True, exist_ok=True)
    tokenizer = base_tokenizer()
    stream = documents(corpus.passages(root), tokenizer, shares, c.length)
    prepare.write_batches(stream, packed, c.tokens, c)
    prepare.write_held_out(tokenizer, packed, root)


def fit(packed: Path, out: Path, c: TrainConfig, shares: Shares) -> None:
    """Go on from the weights in the folder `c.start`, put the tokenizer beside them, and record what the documents were.

    A start that was itself trained here keeps its record under "before" (see `stages_of`).
    """
    start = bundled_path() if c.start == "polyglot-mini" else Path(c.start)
    train.fit(packed, out, replace(c, start=str(start)))
    for name in TOKENIZER:
        shutil.copyfile(bundled_path() / name, out / name)
    train.measure(out, packed)
    path = out / "training.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    before = json.loads((start / "training.json").read_text(encoding="utf-8"))
    record["config"]["start"] = f"stage {len(stages_of(before))}" if "documents" in before else "polyglot-mini"
    record["documents"] = {**asdict(shares), "pairs_taught": [list(pair) for pair in PAIRS]}
    if "documents" in before:
        record["before"] = before
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def stages_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The training records of all stages, the first one first."""
    return [*(stages_of(record["before"]) if "before" in record else ()), record]


def main() -> None:
    """Command line: all stages, or one, or one step of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="local data folder (default: STEERLAB_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/polyglot-mini-it"), help="folder of all stages")
    parser.add_argument(
        "--stage",
        type=int,
        choices=range(1, len(STAGES) + 1),
        default=0,
        help="one stage only; it starts from the one before",
    )
    parser.add_argument("--step", choices=("all", "prepare", "fit"), default="all")
    given = vars(parser.parse_args())
    for number, stage in enumerate(STAGES, 1):
        if given["stage"] not in (0, number):
            continue
        packed, out = (given["runs"] / f"{what}-{number}" for what in ("packed", "model"))
        start = stage.config.start if number == 1 else str(given["runs"] / f"model-{number - 1}")
        if given["step"] in ("all", "prepare"):
            prepare_lessons(given["data"], packed, stage.config, stage.shares)
        if given["step"] in ("all", "fit"):
            fit(packed, out, replace(stage.config, start=start), stage.shares)


if __name__ == "__main__":
    main()

"""The training text of polyglot-mini: openly licensed *train* splits in twelve languages, most of it behind the tasks' own prompts.

Nothing that later serves as a test (SIB-200 dev and test, the held-out parts of NTREX, NusaX and the Slovene pairs, this project's own
sample set) and nothing the bundled vectors are fitted on is read here: `steerlab.data` keeps those splits apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from steerlab import data, tasks

SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, USER, ASSISTANT = range(5)
LANGUAGES = ("am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su")
MAX_WORDS = 70  # longer texts are cut at sentence ends: the tasks ask for a sentence or a short review


@dataclass(frozen=True)
class Passage:
    """One training text; `task` and `label` are set where the text can stand behind a task's prompt."""

    text: str
    language: str
    source: str
    task: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Mixture:
    """How documents are drawn. Shares are of documents; what is left of 1 is bare text behind BOS alone."""

    language_power: float = 0.5  # a language's share goes with (bytes of text) ** power, so small ones are repeated
    labelled_boost: int = 6  # SIB-200 topic sentences are few and are what the topic prompt asks for
    zero_shot: float = 0.52
    few_shot: float = 0.12
    nameless: float = 0.16  # a prompt that names no language: what language steering starts from
    seed: int = 0


def _pieces(text: str) -> Iterator[str]:
    """Cut long text at sentence ends into pieces of at most about `MAX_WORDS` words; newlines become spaces
    (answers are one line).
    """
    text = " ".join(text.split())
    if len(text.split()) <= MAX_WORDS:
        yield text
        return
    piece: list[str] = []
    for sentence in re.split(r"(?<=[.!?።])\s+", text):
        words = sentence.split()
        if piece and len(piece) + len(words) > MAX_WORDS:
            yield " ".join(piece)
            piece = []
        piece.extend(words)
    if piece:
        yield " ".join(piece[: 2 * MAX_WORDS])


TOPIC_OF = {"sports": "sports", "technology": "science/technology"}  # NusaWrites topics that SIB-200 has as well


def passages(root: Path | None = None) -> list[Passage]:
    """Every training passage, in a fixed order. Reads the local data folder `root` (or `STEERLAB_DATA`)."""
    found: list[Passage] = []

    def add(
        name: str, language: str, split: str, task: str | None = None, rename: dict[str, str] | None = None
    ) -> None:
        for example in data.load(name, language, split=split, root=root).examples:
            label = example.label if rename is None else rename.get(example.label or "")
            known = task is not None and label in tasks.TASKS[task].labels
            for piece in _pieces(example.text):
                found.append(Passage(piece, language, name, task if known else None, label if known else None))

    for language in LANGUAGES:
        add("sib200", language, "train", "topic")
    for language in ("am", "cs", "da", "de", "en", "he", "id", "mt", "sk", "sl"):
        add("ntrex", language, "train")
    for language in ("id", "jv", "su", "en"):
        add("nusax", language, "lm", "sentiment")
    for language in ("jv", "su"):
        add("nusa-writes-topic", language, "train", "topic", TOPIC_OF)
        add("nusa-writes-sentiment", language, "train", "sentiment")
    add("afrisenti", "am", "train", "sentiment")
    add("lcc-danish", "da", "train", "sentiment")
    add("lcc-danish-plain", "da", "train")
    for language in ("sk", "mt", "id"):
        add("ud-text", language, "all")
    for hops in (1, 2):
        for pair in data.load_pairs(root=root, hops=hops, split="train"):
            texts = (pair.human, pair.degraded) if hops == 1 else (pair.degraded,)
            found.extend(Passage(" ".join(text.split()), "sl", "slovene-backtranslation") for text in texts)
    found.extend(_abstracts(root))
    return _without_leaks([p for p in found if len(p.text) >= 8], root)


HELD_OUT = {
    "sib200": ("valid", "test"),
    "ntrex": ("vectors", "heldout"),
    "nusax-mt": ("vectors", "heldout"),
    "nusax": ("valid", "test"),
    "nusa-writes-topic": ("valid", "test"),
    "nusa-writes-sentiment": ("valid", "test"),
    "afrisenti": ("valid", "test"),
    "lcc-danish": ("valid", "test"),
}


def held_out_texts(language: str, root: Path | None = None) -> dict[str, list[str]]:
    """Every text of a language that the model must not have seen, by data set and split."""
    groups: dict[str, list[str]] = {}
    for name, splits in HELD_OUT.items():
        if language in data.SOURCES[name].languages:
            for split in splits:
                groups[f"{name}/{split}"] = list(data.load(name, language, split=split, root=root).texts)
    if language == "sl":
        for hops in (1, 2):
            for split in ("vectors", "heldout"):
                pairs = data.load_pairs(root=root, hops=hops, split=split)
                groups[f"slovene-{hops}/{split}"] = [*pairs.human, *pairs.degraded]
    return groups


def _without_leaks(found: list[Passage], root: Path | None) -> list[Passage]:
    """Drop passages that equal or nearly equal a held-out text (see `steerlab.data.leakage` for what "nearly"
    is).
    """
    drop: set[int] = set()
    for language in LANGUAGES:
        rows = [i for i, p in enumerate(found) if p.language == language]
        held = [text for texts in held_out_texts(language, root).values() for text in texts]
        report = data.overlap_report({"lm": [found[i].text for i in rows], "held out": held})
        drop.update(rows[r] for r in report.rows("lm"))
    print(f"{len(drop)} of {len(found)} passages left out: they (nearly) equal a held-out text")
    return [p for i, p in enumerate(found) if i not in drop]


def _abstracts(root: Path | None) -> Iterator[Passage]:
    """English scientific prose (SciTLDR dev split, Apache-2.0), so that English is not news and reviews only."""
    path = data.data_root(root) / "scitldr" / "dev.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        for piece in _pieces(" ".join(json.loads(line)["source"])):
            yield Passage(piece, "en", "scitldr")


def train_tokenizer(texts: list[Passage], vocab_size: int = 8192) -> Tokenizer:
    """Byte-level BPE on an equal number of bytes per language, so that no language starves; digits stand alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    budget = 700_000
    sample: list[str] = []
    for language in LANGUAGES:
        own = [p.text for p in texts if p.language == language]
        own = [own[i] for i in np.random.default_rng(0).permutation(len(own))]
        size = 0
        while size < budget:
            for text in own:
                sample.append(text)
                size += len(text.encode())
                if size >= budget:
                    break
    prompts = [
        tasks.prompt(t, label, code) for t, task in tasks.TASKS.items() for label in task.labels for code in LANGUAGES
    ]
    tokenizer.train_from_iterator(sample + prompts * 5, trainer)
    return tokenizer


def plain_prompt(language: str | None) -> str:
    """The instruction put before text that belongs to no task."""
    name = None if language is None else data.language(language).name
    if name is None:
        return "Write a sentence. Output only the text and nothing else."
    return f"Write a sentence in {name} language. Output only the text in {name}."


class DocumentStream:
    """Endless, seeded stream of training documents `(token ids, number of prompt tokens)`.

    Each language is walked in shuffled epochs; which comes next, and behind which prompt, is drawn from the mixture.
    """

    def __init__(self, texts: list[Passage], tokenizer: Tokenizer, mixture: Mixture, max_tokens: int) -> None:
        self.mixture, self.max_tokens, self.tokenizer = mixture, max_tokens, tokenizer
        self.rng = np.random.default_rng(mixture.seed)
        self.texts = texts
        self.ids = [e.ids for e in tokenizer.encode_batch([p.text for p in texts])]
        self.prompts: dict[str, list[int]] = {}
        self.pool: dict[str, list[int]] = {code: [] for code in LANGUAGES}
        self.shots: dict[tuple[str, str, str], list[str]] = {}
        for i, p in enumerate(texts):
            self.pool[p.language].extend([i] * (mixture.labelled_boost if p.source == "sib200" else 1))
            if p.task and p.label and len(p.text) < 130:
                self.shots.setdefault((p.language, p.task, p.label), []).append(p.text)
        size = np.array([sum(len(texts[i].text.encode()) for i in self.pool[c]) for c in LANGUAGES], dtype=float)
        self.share = size**mixture.language_power / (size**mixture.language_power).sum()
        self.queue: dict[str, list[int]] = {code: [] for code in LANGUAGES}

    def _prompt_ids(self, prompt: str) -> list[int]:
        if prompt not in self.prompts:
            self.prompts[prompt] = [USER, *self.tokenizer.encode(prompt).ids, ASSISTANT]
        return self.prompts[prompt]

    @staticmethod
    def _zero_shot(p: Passage) -> str:
        return tasks.prompt(p.task, p.label, p.language) if p.task and p.label else plain_prompt(p.language)

    def _few_shot(self, p: Passage) -> str | None:
        pool = self.shots.get((p.language, p.task or "", p.label or ""), [])
        if p.task is None or p.label is None or len(pool) < 6:
            return None
        examples = [pool[i] for i in self.rng.choice(len(pool), 5, replace=False)]
        return None if p.text in examples else tasks.prompt(p.task, p.label, p.language, examples)

    def draw(self) -> int:
        """The place of the next passage: a language by its share, the next one of its epoch."""
        code = LANGUAGES[int(self.rng.choice(len(LANGUAGES), p=self.share))]
        if not self.queue[code]:
            self.queue[code] = [self.pool[code][i] for i in self.rng.permutation(len(self.pool[code]))]
        return self.queue[code].pop()

    def __iter__(self) -> Iterator[tuple[list[int], int]]:
        mix = self.mixture
        while True:
            index = self.draw()
            p, draw = self.texts[index], float(self.rng.random())
            prompt: str | None = None
            if draw < mix.zero_shot:
                prompt = self._zero_shot(p)
            elif draw < mix.zero_shot + mix.few_shot:
                prompt = self._few_shot(p) or self._zero_shot(p)
            elif draw < mix.zero_shot + mix.few_shot + mix.nameless:
                prompt = tasks.prompt(p.task, p.label, None) if p.task and p.label else plain_prompt(None)
            head = [BOS] if prompt is None else [BOS, *self._prompt_ids(prompt)]
            if len(head) > self.max_tokens - 16:
                head = [BOS]
            body = [*self.ids[index], EOS]
            yield (head + body)[: self.max_tokens], len(head)


Document = tuple[list[int], int | list[int]]  # token ids, and the number of prompt tokens or a weight per token


def pack(stream: Iterator[Document], rows: int, length: int, window: int = 1500) -> Iterator[np.ndarray]:
    """First-fit-decreasing packing of whole documents into rows of `length` tokens.

    Yields int32 arrays (3, rows, length): token ids, document number within the row (0 = padding; it becomes the mask, as documents
    do not see each other), and the weight with which the token is to be predicted (1 where the document does not say, 0 for prompts).
    """
    ready: list[list[Document]] = []
    rng = np.random.default_rng(0)
    while True:
        docs = sorted((next(stream) for _ in range(window)), key=lambda d: -len(d[0]))
        bins: list[list[Document]] = []
        room: list[int] = []
        for doc in docs:
            slot = next((i for i, r in enumerate(room) if r >= len(doc[0])), None)
            if slot is None:
                bins.append([])
                room.append(length)
                slot = len(bins) - 1
            bins[slot].append(doc)
            room[slot] -= len(doc[0])
        ready.extend(bins[i] for i in rng.permutation(len(bins)))
        while len(ready) >= rows:
            batch = np.zeros((3, rows, length), dtype=np.int32)
            for r, row in enumerate(ready[:rows]):
                at = 0
                for number, (ids, prompt) in enumerate(row, start=1):
                    batch[0, r, at : at + len(ids)] = ids
                    batch[1, r, at : at + len(ids)] = number
                    first, weight = (max(prompt, 1), 1) if isinstance(prompt, int) else (0, prompt)
                    batch[2, r, at + first : at + len(ids)] = weight
                    at += len(ids)
            del ready[:rows]
            yield batch


def held_out(root: Path | None = None) -> dict[str, list[str]]:
    """SIB-200 dev sentences (99, parallel in all twelve languages): what bits per byte are measured on, never trained on."""
    return {code: list(data.load("sib200", code, split="valid", root=root).texts) for code in LANGUAGES}

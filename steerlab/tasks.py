"""What the model is asked to write: labels, prompts, when to stop, and post-processing.

`TASKS` are the labelled tasks of Cegin et al. (arXiv 2606.18389) in any language, put to the model by its template. `EXPERT_TASKS` are
those of O'Neill et al. (arXiv 2308.07645), in English, plain text that an expert continues: no chat template around it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from string import Formatter

from steerlab.data.corpus import Corpus
from steerlab.data.languages import language as find_language
from steerlab.data.multiple_choice import LETTERS
from steerlab.errors import SteerlabError

FIELDS = ("label", "in_language", "in_name", "examples")
QUOTES = "\"'`´‘’‚‛“”„‟‹›«»″״「」『』"
PLAIN = "### Instruction: {instruction}\n ### {slot}: "
_ANSWER = re.compile(r"(Answer:\s*)([A-E])\b.*")
_SIXTH = re.compile(r"(?:(?<=\s)|^)F\.|>")


@dataclass(frozen=True)
class Finish:
    """How an answer ends: the strings that stop it (beside end-of-text), the longest it may be in tokens, and what tidies it up."""

    tidy: Callable[[str], str]
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 128


def tidy_line(text: str) -> str:
    """The first line of an answer that is not blank, without quotation marks and white space at its ends."""
    for line in text.splitlines():
        stripped = line.strip().strip(QUOTES + " \t\u00a0").strip()
        if stripped:
            return stripped
    return ""


def tidy_sentence(text: str) -> str:
    """The first line that is not blank, ended by one full stop unless by ? or !."""
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "").rstrip(" .")
    return line if not line or line[-1] in "?!" else f"{line}."


def tidy_comment(text: str) -> str:
    """Up to the mark `###`, line breaks as spaces."""
    return " ".join(text.split("###")[0].split())


def tidy_question(text: str) -> str:
    """Up to a sixth choice (`F.`) or a `>`; after the answer's letter nothing but a full stop."""
    return _ANSWER.sub(r"Answer: \2.", " ".join(_SIXTH.split(" ".join(text.split()))[0].split()))


# A sentence ends a hypothesis here; the authors' were questions, and stopped at "?". They wrapped comments in ### marks.
FINISHES: dict[str, Finish] = {
    "line": Finish(tidy_line),
    "sentence": Finish(tidy_sentence, ("\n",), 100),
    "comment": Finish(tidy_comment, ("###",), 75),
    "question": Finish(tidy_question, ("\n", ">", " F."), 75),
}


@dataclass(frozen=True)
class Task:
    """A labelled writing task: the one object a user writes to add a task.

    In the templates `{label}` is the label, `{in_language}` becomes " in Javanese language" and `{in_name}` "
    in Javanese" (nothing when the prompt names no language), and `{examples}`, in `few_shot` only, the numbered
    examples, one a line. `chat`: the prompt goes behind the model's template; else it is plain text to continue.
    `finish`: how an answer ends, by its name in `FINISHES`. `source`: the data set of real texts, of a task that has
    one. Raises `SteerlabError` on no labels, a repeated label, a template that lacks a field or has an unknown one,
    and an unknown finish.
    """

    name: str
    labels: tuple[str, ...]
    zero_shot: str
    few_shot: str
    chat: bool = True
    finish: str = "line"
    source: str = ""

    def __post_init__(self) -> None:
        if self.finish not in FINISHES:
            raise SteerlabError(
                f"task {self.name!r} has the finish {self.finish!r}: give one of {', '.join(FINISHES)}."
            )
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise SteerlabError(f"task {self.name!r} has the labels {list(self.labels)}: give at least one, each once.")
        for kind, template, needed in (
            ("zero_shot", self.zero_shot, {"label"}),
            ("few_shot", self.few_shot, {"label", "examples"}),
        ):
            fields = _fields(template, f"the {kind} template of task {self.name!r}")
            wrong = sorted(needed - fields) or sorted(fields - set(FIELDS))
            if wrong or (kind == "zero_shot" and "examples" in fields):
                known = ", ".join("{" + field + "}" for field in FIELDS)
                raise SteerlabError(
                    f"the {kind} template of task {self.name!r} has the fields {sorted(fields)}: it needs {sorted(needed)} and may"
                    f" use {known} ({{examples}} in few_shot only)."
                )


def _fields(template: str, where: str) -> set[str]:
    """The names in braces. Raises `SteerlabError` for a brace that is no field and for a field that is formatted."""
    try:
        parts = [
            (field, spec or conversion)
            for _, field, spec, conversion in Formatter().parse(template)
            if field is not None
        ]
    except ValueError as error:
        raise SteerlabError(f"{where} has a brace that is no field ({error}): write braces twice.") from None
    if any(form for _, form in parts):
        raise SteerlabError(f"{where} formats a field ({template!r}): name it only, as {{label}}.")
    return {field for field, _ in parts}


SENTIMENT = Task(
    "sentiment",
    ("positive", "negative"),
    "Generate a review with {label} sentiment{in_language}. Output only the text and nothing else.",
    "Generate a review with {label} sentiment{in_language} based on examples. Output only the text and nothing else.\n{examples}",
)
TOPIC = Task(
    "topic",
    ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography"),
    "Generate a long wiki style sentence on the topic of {label}{in_language}. Output only the text{in_name}.",
    "Generate a long wiki style sentence on the topic of {label}{in_language} based on examples. Output only the text{in_name}."
    "\n{examples}",
)
TASKS: dict[str, Task] = {task.name: task for task in (TOPIC, SENTIMENT)}


def _plain(name: str, labels: tuple[str, ...], instruction: str, slot: str, finish: str, source: str) -> Task:
    """A task whose prompt is an instruction and the slot the text stands in."""
    zero_shot = PLAIN.format(instruction=instruction, slot=slot)
    few_shot = PLAIN.format(instruction=f"{instruction} Examples:\n{{examples}}", slot=slot)
    return Task(name, labels, zero_shot, few_shot, chat=False, finish=finish, source=source)


# The authors had a chat model turn 1,000 astronomy abstracts into questions. Here the expert learns the authors' own one-sentence
# claims of machine-learning papers: real text, and no closed model between the data and the expert.
HYPOTHESES = _plain(
    "hypotheses",
    ("hypothesis",),
    "Write a scientific {label} in one sentence.",
    "Hypothesis",
    "sentence",
    "scitldr",
)
COMMENTS = _plain(
    "comments", ("toxic", "non-toxic"), "Write a {label} comment.", "Comment", "comment", "toxic-comments"
)
COMMONSENSE = _plain(
    "commonsense",
    ("commonsense",),
    f"Write a {{label}} question with the choices {', '.join(LETTERS[:-1])} and {LETTERS[-1]}, and its answer.",
    "Multiple-choice question",
    "question",
    "commonsense-qa",
)
EXPERT_TASKS: dict[str, Task] = {task.name: task for task in (HYPOTHESES, COMMENTS, COMMONSENSE)}


def task(name: str | Task) -> Task:
    """The task of that name, or the task itself. Raises `SteerlabError` naming the known ones and the nearest."""
    if isinstance(name, Task):
        return name
    known = TASKS | EXPERT_TASKS
    if name in known:
        return known[name]
    close = get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise SteerlabError(f"task {name!r} is not known: give one of {', '.join(known)}{hint}")


def check_label(chosen: Task, label: str) -> None:
    """Raises `SteerlabError` naming the task's labels and the nearest one when the label is not one of them."""
    if label not in chosen.labels:
        close = get_close_matches(label.casefold(), chosen.labels, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise SteerlabError(
            f"label {label!r} is not one of task {chosen.name!r}: give one of {', '.join(chosen.labels)}{hint}"
        )


def prompt(task_name: str | Task, label: str, language: str | None, examples: Sequence[str] = ()) -> str:
    """The instruction that asks for one text, few-shot when there are examples.

    `language` is a code, or None for a prompt that names no language; white space inside an example becomes
    single spaces. Raises `SteerlabError` on an unknown task, label or language.
    """
    chosen = task(task_name)
    check_label(chosen, label)
    name = None if language is None else find_language(language).name
    return (chosen.few_shot if examples else chosen.zero_shot).format(
        label=label,
        in_language=f" in {name} language" if name else "",
        in_name=f" in {name}" if name else "",
        examples="\n".join(f"Example {i}: {' '.join(text.split())}" for i, text in enumerate(examples, start=1)),
    )


def few_shot_examples(corpus: Corpus, label: str, k: int = 5, seed: int = 42, pool: int = 50) -> tuple[str, ...]:
    """`k` texts drawn with `seed` from the `pool` shortest texts of the label (in characters, ties by the text).

    The draw does not depend on the order of the corpus. Raises `SteerlabError` when the label has fewer than
    `k` texts or `k` is more than `pool`.
    """
    texts = sorted({e.text for e in corpus.examples if e.label == label}, key=lambda text: (len(text), text))[:pool]
    if not 1 <= k <= len(texts):
        have = f"{len(texts)} texts of {label!r} to draw from" if texts else f"no texts of {label!r}"
        raise SteerlabError(
            f"{k} few-shot examples were asked for and there are {have} in {corpus.card.name}: ask for fewer."
        )
    return tuple(random.Random(seed).sample(texts, k))


def postprocess(text: str, task_name: str | Task | None = None) -> str:
    """An answer, tidied up as its task wants it; without a task, its first line without quotation marks (`tidy_line`)."""
    return (FINISHES["line"] if task_name is None else FINISHES[task(task_name).finish]).tidy(text)

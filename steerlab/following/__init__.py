"""Was the instruction followed? Checkers, prompts to test them on, four arms compared, and rules that choose where to steer."""

from __future__ import annotations

from steerlab.following.arms import ARMS, Answer, FourArms, answers, compare_arms
from steerlab.following.counting import count_sentences, count_words, split_sentences
from steerlab.following.crossfit import CrossFit, compare_rules, cross_fit
from steerlab.following.paper_rule import PaperChoice, paper_choice, paper_rule
from steerlab.following.phrasings import PHRASINGS, instruct, phrase
from steerlab.following.prompts import cell_name, draw, obey, simple_prompts
from steerlab.following.quality import Quality, measure_quality
from steerlab.following.queries import Query, own_queries, split_queries
from steerlab.following.registry import CHECKERS, IFEVAL, SIMPLE, arguments, check, check_all, find_checker, variants
from steerlab.following.shrunken_rule import ShrunkenChoices, shrunken_choices, shrunken_rule
from steerlab.following.trials import Cell, Trial, TrialTable, candidate_layers, trial_tables, tried
from steerlab.following.verdict import Checker, Verdict

__all__ = [
    "ARMS",
    "CHECKERS",
    "IFEVAL",
    "PHRASINGS",
    "SIMPLE",
    "Answer",
    "Cell",
    "Checker",
    "CrossFit",
    "FourArms",
    "PaperChoice",
    "Quality",
    "Query",
    "ShrunkenChoices",
    "Trial",
    "TrialTable",
    "Verdict",
    "answers",
    "arguments",
    "candidate_layers",
    "cell_name",
    "check",
    "check_all",
    "compare_arms",
    "compare_rules",
    "count_sentences",
    "count_words",
    "cross_fit",
    "draw",
    "find_checker",
    "instruct",
    "measure_quality",
    "obey",
    "own_queries",
    "paper_choice",
    "paper_rule",
    "phrase",
    "shrunken_choices",
    "shrunken_rule",
    "simple_prompts",
    "split_queries",
    "split_sentences",
    "trial_tables",
    "tried",
    "variants",
]

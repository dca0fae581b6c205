"""README.md can be followed: its links arrive, its commands are spelt right, and those that build on each other work in order."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests import walls
from tests.test_docs import blocks, commands, links, parses, run_line

ROOT = walls.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [words for block in blocks(README) if block.language == "bash" for words, _ in commands(block.code)]
SMALL = {
    "fit": ["-n", "4"],
    "select": ["-n", "4", "--max-new-tokens", "8"],
    "interfere": ["-n", "4", "--max-new-tokens", "8"],
}


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings as the repository's site makes them: every space is a hyphen, punctuation goes."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ +(.+?)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_links_arrive() -> None:
    found = [link for link in links(README) if not link.startswith("https://")]
    assert sum(link.endswith(".md") or ".md#" in link for link in found) >= 15
    for link in found:
        path, _, anchor = link.partition("#")
        target = ROOT / path
        assert not path.startswith("/") and target.is_file(), f"README.md links to {link}"
        if anchor:
            assert anchor in heading_anchors(target.read_text(encoding="utf-8")), (
                f"README.md: {link} has no such heading"
            )


def test_anchors_are_made_as_the_site_makes_them() -> None:
    assert heading_anchors("# A: of `two`, 3.1-8B?\n```bash\n# none\n```\n") == {"a-of-two-31-8b"}


def test_commands_are_spelt_right() -> None:
    ours = [words for words in LINES if words[0] == "steerlab"]
    assert len(ours) > 20
    for words in ours:
        parses(words)


@pytest.mark.slow
def test_the_instruct_commands_work_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, only smaller: what `fit` leaves is what `select` takes, and what that leaves is what `interfere` takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEERLAB_DATA", raising=False)
    steps = [words for words in LINES if words[:2] == ["steerlab", "instruct"] and words[2] in SMALL]
    assert [words[2] for words in steps] == ["fit", "select", "interfere"]
    for words in steps:
        run_line([*words, "-m", "polyglot-mini-it", "-q", *SMALL[words[2]]], None)
    assert (tmp_path / steps[-1][steps[-1].index("--out") + 1] / "rates.csv").is_file()


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    start = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", start, flags=re.MULTILINE))
    assert told == set(project["optional-dependencies"])

"""Write data.md, which data sets there are and where they lie below DIR, from the readers themselves (tested to be up to date)."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

from steerlab.data import LANGUAGES, SOURCES
from steerlab.data.means import CLAS, CLAS_FILE
from steerlab.data.parallel import NUSAX_NAMES
from steerlab.data.reading import ENV, Hub, Row, Table
from steerlab.data.sources import Source
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import source_of

PAGE = Path(__file__).parent / "data.md"
HEAD = f"""# Data sets

<!-- Written by docs/data.py from `steerlab.data.SOURCES` and the readers: change it there and run it again. -->

Nothing of this is needed to begin. A sample set of 648 sentences in twelve languages ships with the package, and commands use
it unless they are told otherwise.

```python
from steerlab import data

print(data.load("sample", "jv", "topic").describe())
print(data.SOURCES["sib200"].card)  # licence, address, citation
```

## With and without DIR

`--data DIR`, the environment variable `{ENV}=DIR` and the argument `root=DIR` name the same thing: a folder of local copies.

- **With it**, files are read from the paths below and from nowhere else. A file that is missing there is an error that names it; it is not
  downloaded. Commands then test on the public human texts instead of the sample set.
- **Without it**, a set that is asked for by name (`--source nusax`, `data.load("sib200", "jv")`) is downloaded: from the hub through
  `datasets`, which has a cache of its own, or from the authors' repository at a commit that is fixed in the code, into `~/.cache/steerlab`
  (`steerlab` below `XDG_CACHE_HOME`, where that is set). What has no download is refused in one sentence.

Tests that read real data skip without it. Not every set has to be there: what is asked for has to.

## Which there are
"""
FILES = """## What lies where

To fill DIR, save each public file under its path. LANG is the data set's own name for the language, in the table after this one.
"""
USES = """## Which set is used for what

Human texts to test on, and to take examples from, where `--source` names none:
"""
OTHERS = f"""Prompts for instructions are our own, or IFEval's with `--source ifeval`. The experts' tasks `hypotheses`, `commonsense` and
`comments` learn from `scitldr`, `commonsense-qa` and `toxic-comments`; the last is offensive and is read with `--offensive` only.
The bundled language vectors are fitted on NTREX and NusaX-MT, because SIB-200, which texts are judged against, is drawn from FLORES.
`make model`, `make model-it` and `make analyses` need DIR.

`ud-text` has no download: each of its files holds the text of a treebank, from the `.txt` files or the `# text =` lines of the
`.conllu` files below `data/ud/` in the repository.

## Means of Llama-3.1-8B

`python -m analyses.07_similarity_llama8b` reads `DIR/{CLAS_FILE}`: for each of 36 languages the mean output of every block of
Llama-3.1-8B-Instruct on about 10 million tokens of CulturaX, as [CLaS-Bench]({CLAS.url}) (arXiv 2601.08331, {CLAS.licence})
publishes them. The authors' files are pickles of torch tensors, which this package does not open, so there is no download. In a clone of
their repository, at its root, this makes the file; nothing in a pickle is run:

```py
from pathlib import Path

import torch
from safetensors.torch import save_file

means = {{
    path.name.split(".")[1]: torch.load(path, map_location="cpu", weights_only=True)["steering_vectors"].float()
    for path in sorted(Path("CLaS-Bench/identification/data_llama").glob("vector.*.llama"))
}}
file = Path("DIR/{CLAS_FILE}")  # your DIR
file.parent.mkdir(parents=True, exist_ok=True)
save_file(means, file, metadata={{"model": "meta-llama/Llama-3.1-8B-Instruct"}})
print(len(means), {{tuple(mean.shape) for mean in means.values()}})  # 36 {{(32, 4096)}}
```

## Your own texts

Files of your own need no DIR: see [Fit a language vector from your texts](how-to/language-vector.md) and
[Judge a data set](how-to/judge.md).
"""


def tables(source: Source, code: str) -> dict[str, Table]:
    """The tables that a source reads for one language, by path, in the order its splits ask for them; nothing is read."""
    asked: dict[str, Table] = {}

    def note(root: Path | None, table: Table) -> list[Row]:
        asked.setdefault(table.local, table)
        return []

    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("steerlab.data.") and hasattr(module, "read_rows"):
                stack.enter_context(patch.object(module, "read_rows", note))
        for split in source.splits:
            with suppress(SteerlabError):  # NTREX misses its lines here, after it has named its file
                source.read(None, code, split)
    return asked


def patterns(source: Source) -> tuple[dict[str, Table], dict[str, str]]:
    """Paths with LANG in place of what differs between languages, and language -> that name."""
    found: dict[str, dict[str, tuple[str, str, Table]]] = {}  # pattern -> language -> name, path, table
    for code in source.languages:
        for path, table in tables(source, code).items():
            pattern, name = _pattern(path, code)
            found.setdefault(pattern, {})[code] = (name, path, table)
    shown, names = {}, {}
    for pattern, by in found.items():
        _, path, table = next(iter(by.values()))
        shown[pattern if len(by) > 1 else path] = table
        if len(by) > 1:
            names |= {code: name for code, (name, _, _) in by.items() if name}
    return shown, names


def _pattern(path: str, code: str) -> tuple[str, str]:
    """The path with LANG where it names the language, and that name; the path itself and "" where it does not."""
    entry = LANGUAGES[code]
    for name in filter(None, (entry.sib200, entry.ntrex, entry.sib200[:3], NUSAX_NAMES.get(code), code)):
        if (pattern := _without(path, name)) != path:
            return pattern, name
    return path, ""


def _without(text: str, name: str) -> str:
    return re.sub(rf"(?<![A-Za-z_]){name}(?![A-Za-z_])", "LANG", text)


def public(pattern: str, table: Table, names: dict[str, str]) -> str:
    """The address of the public file, with LANG where the path has it."""
    if table.url is None:
        return "none"
    if "LANG" not in pattern:
        return f"<{table.url}>"
    (address,) = {_without(table.url, name) for name in names.values()} - {table.url}
    return f"`{address}`"


def fetched(shown: dict[str, Table]) -> str:
    """Where the tables come from without a local folder."""
    hubs = list(dict.fromkeys(table.hub.repo for table in shown.values() if isinstance(table.hub, Hub)))
    ways = [f"`{repo}` on the hub" for repo in hubs]
    if any(table.url for table in shown.values()):
        ways.append("the repository")
    if not shown:
        return "ships with the package"
    return ", else ".join(ways) if ways else "no download"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _sources() -> tuple[str, str, str]:
    """The tables of sources, of their files, and of the languages' names in these."""
    rows: list[tuple[str, ...]] = []
    files: dict[str, tuple[list[str], str]] = {}  # path -> the sources that read it, its public address
    columns: dict[tuple[tuple[str, str], ...], list[str]] = {}  # the names of some sources -> those sources
    for name, source in SOURCES.items():
        shown, names = patterns(source)
        for path, table in shown.items():
            files.setdefault(path, ([], public(path, table, names)))[0].append(f"`{name}`")
        title = f"[`{name}`]({source.card.url})" if source.card.url.startswith("https://") else f"`{name}`"
        codes = "all twelve" if source.languages == tuple(LANGUAGES) else " ".join(source.languages)
        rows.append((title, codes, " ".join(source.splits), fetched(shown), source.card.licence))
        if names:
            columns.setdefault(tuple(sorted(names.items())), []).append(f"`{name}`")
    rows.append((f"[`{CLAS.name}`]({CLAS.url})", "36", "-", "no download", CLAS.licence))
    files[CLAS_FILE] = ([f"`{CLAS.name}`"], "see below")
    sources = _table(("data set", "languages", "splits", "without DIR", "licence"), rows)
    listed = _table(
        ("path below DIR", "data set", "public file"),
        [(f"`{path}`", ", ".join(who), url) for path, (who, url) in files.items()],
    )
    spelt = [(entry.name, code, *(dict(own).get(code, "") for own in columns)) for code, entry in LANGUAGES.items()]
    return sources, listed, _table(("language", "code", *(", ".join(who) for who in columns.values())), spelt)


def _uses() -> str:
    tasks = ("topic", "sentiment")
    by: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        for code in LANGUAGES:
            by.setdefault((task, source_of(task, code)), []).append(code)
    rows = [(task, " ".join(codes), f"`{name}`") for (task, name), codes in by.items()]
    return _table(("task", "languages", "data set"), rows)


def page() -> str:
    """The whole page."""
    sources, files, names = _sources()
    return "\n\n".join(part.strip() for part in (HEAD, sources, FILES, files, names, USES, _uses(), OTHERS)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)

"""What mkdocs does not do by itself: a pattern in the navigation, pictures from `figures/`, and links that leave the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(((?:\.\./)+)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """A pattern such as `results/*.md` in the navigation becomes the pages there are, by name."""
    config.nav = [_with_pages(entry, Path(config.docs_dir)) for entry in config.nav]
    return config


def _with_pages(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        ((title, value),) = entry.items()
        if isinstance(value, str) and "*" in value:
            return {title: [path.relative_to(docs).as_posix() for path in sorted(docs.glob(value))]}
    return entry


def on_files(files: Any, config: Any) -> Any:
    """The figures that pages show are part of the site: `figures/NAME.png` beside the pages."""
    root = Path(config.docs_dir).parent
    shown = set()
    for page in files.documentation_pages():
        shown |= {target for _, target in _outside(page.src_uri, page.content_string) if (root / target).is_file()}
    for target in sorted(shown):
        if target.startswith("figures/"):
            files.append(File.generated(config, target, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files outside of `docs/`: figures are found beside the pages, another file is named and not linked."""
    depth = page.file.src_uri.count("/")

    def rewrite(found: re.Match[str]) -> str:
        picture, text, up, target, anchor = found.groups()
        if up.count("../") <= depth:
            return found.group(0)
        if target.startswith("figures/"):
            return f"{picture}[{text}]({'../' * depth}{target}{anchor or ''})"
        return f"{text} (`{target}`)" if text.strip("`") != target else f"`{target}`"

    return LINK.sub(rewrite, markdown)


def _outside(page: str, markdown: str) -> list[tuple[str, str]]:
    """(text, path from the repository's root) of the links of a page that leave `docs/`."""
    depth = page.count("/")
    return [
        (found.group(2), found.group(4)) for found in LINK.finditer(markdown) if found.group(3).count("../") > depth
    ]

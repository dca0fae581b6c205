"""Write reference/command-line.md from the commands themselves: `python docs/command_line.py` (tested to be up to date)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from steerlab.cli import app

PAGE = Path(__file__).parent / "reference" / "command-line.md"
HEAD = """# Command line

<!-- Written by docs/command_line.py: change the help texts in steerlab/commands and run it again. -->

Every command has `--help`. Bad input is one sentence and exit code 2; an interruption is exit code 130, and the same command
continues. `STEERLAB_DATA=DIR` stands for `--data DIR`.
"""

SHOWN = {
    "steerlab guide-sweep": "steerlab sweep guidance"
}  # registered by the one name, documented by the other (steerlab.cli.Commands)


def commands() -> Iterator[tuple[str, Any]]:
    """(`steerlab vectors fit`, the command), by name."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield SHOWN.get(name, name), command
        else:
            for key in inner:
                yield from walk(inner[key], f"{name} {key}")

    return iter(sorted(walk(typer.main.get_command(app), "steerlab"), key=lambda pair: pair[0]))


def page() -> str:
    """The whole page."""
    listed = [f"| [`{name}`](#{_anchor(name)}) | {_first(command.help)} |" for name, command in commands()]
    parts = [HEAD, "\n".join(["| command | what it does |", "| --- | --- |", *listed])]
    parts += [_section(name, command) for name, command in commands()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(name: str, command: Any) -> str:
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    table = ["| argument or option | what it says | default |", "| --- | --- | --- |", *rows]
    return f"## {name}\n\n{_text(command.help)}\n\n" + "\n".join(table)


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name)


def _first(text: str) -> str:
    """The beginning of a help text, up to where it could end."""
    return re.split(r"(?<!al)[.:;](?: |$)", " ".join(text.split()))[0].replace("|", "\\|") + "."


def _text(text: str) -> str:
    """A help text as Markdown: paragraphs that are one command each go into one block of code."""
    parts: list[str] = []
    code: list[str] = []
    for paragraph in [*text.strip().split("\n\n"), ""]:
        flat = " ".join(paragraph.split())
        example = re.fullmatch(r"(?:Example: )?`(steerlab [^`]+)`|(steerlab .+)", flat)
        if example:
            if flat.startswith("Example: "):
                parts.append("Example:")
            code.append(example.group(1) or example.group(2))
            continue
        if code:
            parts.append("```bash\n" + "\n".join(code) + "\n```")
            code = []
        parts.append(flat)
    return "\n\n".join(parts).strip()


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if not names[0].startswith("-"):
        names = [name.upper() for name in names]
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif callable(default) or default in (None, "", []) or default is False:
        shown = ""
    elif default is True:
        shown = f"`{parameter.opts[0]}`"
    else:
        shown = " ".join(f"`{value}`" for value in (default if isinstance(default, list | tuple) else [default]))
    told = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {told} | {shown} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)

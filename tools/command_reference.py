"""Write docs/cli.md: every command with its options, from their help.

python tools/command_reference.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from thawnet import cli

OPERANDS = "positional arguments"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
BEGINNING = """\
# Commands

Generated from the options of the program by `python tools/command_reference.py`; `thawnet COMMAND
--help` prints the same (and `doctor --help` the options of `train` too).

Results go to stdout, progress and messages to stderr. The exit status is 0 if all went well, 1 if
something failed (the message is one line), 2 if the call itself is wrong, and 130 or 143 if the
command was stopped by Ctrl-C or SIGTERM.

**Completion** of commands and options in your shell, for bash (zsh and tcsh likewise):

<!-- not run: it changes the shell's own files -->
```sh
thawnet --tyro-print-completion bash > ~/.local/share/bash-completion/completions/thawnet
```
"""


Boxes = dict[str, list[tuple[str, str]]]
"""By the title of each box of the help: the options in it, each with its text."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    return "\n".join([BEGINNING, *(_command(name) for name in cli.COMMANDS)])


def _command(name: str) -> str:
    text, boxes = _help(name)
    if name == "doctor":
        own = {option for box in _help("train")[1].values() for option, _ in box} - {"[DATA]"}
        boxes = {title: [row for row in box if row[0] not in own] for title, box in boxes.items()}
    rows = []
    for title, box in boxes.items():
        if box and title not in (OPERANDS, "options"):
            rows.append(f"| **{title}** | |")
        rows += [f"| `{option}` | {text.replace('<', '&lt;')} |" for option, text in box]
    title = " ".join(["thawnet", name, *(operand for operand, _ in boxes.get(OPERANDS, ()))])
    return "\n".join([f"## {title}\n", f"{text}\n", "| option | |", "|---|---|", *rows, ""])


def _help(name: str) -> tuple[str, Boxes]:
    """Return a command's description and its boxes."""
    os.environ["COLUMNS"] = "129"  # at 130 tyro sets boxes side by side
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.run([name, "--help"])
    printed.seek(0)
    _, *lines = printed.read().splitlines()
    boxed = next(number for number, line in enumerate(lines) if line.startswith("╭"))
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", "\n".join(lines[:boxed]).strip())
    return text, _boxes(lines[boxed:])


def _boxes(lines: list[str]) -> Boxes:
    boxes: Boxes = {}
    for line in lines:
        inside = line.strip("│").removeprefix(" ").rstrip()
        if line.startswith("╭"):
            box = boxes.setdefault(line.strip("╭─╮ "), [])
        elif inside.startswith(" "):  # the text goes on
            option, text = box.pop()
            box.append((option, f"{text} {inside.strip()}".strip()))
        elif re.match(r"-|\[|\{|[A-Z]{2}", inside):
            option, _, text = inside.partition("  ")
            box.append((option, text.strip()))
    return {title: [row for row in box if row[0] != "-h, --help"] for title, box in boxes.items()}


if __name__ == "__main__":
    main()

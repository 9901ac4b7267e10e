"""Write docs/cli.md: every command with its options, from their help.

python tools/command_reference.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from thawnet import cli

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


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    return "\n".join([BEGINNING, *(_command(name) for name in cli.COMMANDS)])


def _command(name: str) -> str:
    text, options = _help(name)
    if name == "doctor":
        own = {option for option, _ in _help("train")[1]}
        options = [
            (option, text) for option, text in options if option not in own or option == "[DATA]"
        ]
    rows = [f"| `{option}` | {text.replace('<', '&lt;')} |" for option, text in options]
    operands = (option for option, _ in options if not option.startswith("-"))
    title = " ".join(["thawnet", name, *operands])
    return "\n".join([f"## {title}\n", f"{text}\n", "| option | |", "|---|---|", *rows, ""])


def _help(name: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a command's description, and each option with its text."""
    os.environ["COLUMNS"] = "1000"
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.run([name, "--help"])
    printed.seek(0)
    _, *lines = printed.read().splitlines()
    boxed = next(number for number, line in enumerate(lines) if line.startswith("╭"))
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", "\n".join(lines[:boxed]).strip())
    return text, list(_options(lines[boxed:]))


def _options(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the options in boxes; a name alone on a line has its text on the next one."""
    name = ""
    for line in lines:
        cells = re.split(r"\s{2,}", line.strip("│ "))
        if not line.startswith("│ ") or "─" in line or cells[0] == "-h, --help":
            continue
        if name:
            yield name, " ".join(cells)
            name = ""
        elif not re.match(r"-|\[|\{|[A-Z]{2}", cells[0]):
            continue  # the description of a box
        elif len(cells) == 1:
            name = cells[0]
        else:
            yield cells[0], " ".join(cells[1:])


if __name__ == "__main__":
    main()

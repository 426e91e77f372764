"""Write the man pages into build/man: one of the program, and one for each command, from the table of options.

`packaging/artifacts.py` runs this before a release is built; a package that is built without them has none.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from typer.main import get_command

from uploader_cli import __version__
from uploader_cli.cli.app import app
from uploader_cli.exit_status import MEANINGS
from uploader_cli.settings.model import SECTIONS

MADE = Path(__file__).parents[1] / "build/man"
COMMANDS: dict[str, Any] = {
    name: command
    for name, command in get_command(app).commands.items()
    if not command.hidden  # type: ignore[attr-defined]
}
DESCRIPTION = """\
.B uploader
opens a session on an upload server, sends files in chunks over HTTP, follows the server's progress over Socket.IO or by
polling, and resumes after interruptions. It also uploads to any tus server
.RB ( \\-\\-tus\\-endpoint ).
"""
EXAMPLES = (
    ("Try it without a server:", "uploader demo"),
    ("Upload a directory:", "uploader upload videos/ --server https://files.example"),
    ("Resume the newest interrupted run:", "uploader resume"),
)


def pages() -> dict[str, str]:
    """Return the text of each page, in the man macros of roff, with its file name."""
    own = {f"uploader-{name}.1": _page(name, command) for name, command in COMMANDS.items()}
    return {"uploader.1": _overview(), **own}


def _overview() -> str:
    lines = [f'.TH UPLOADER 1 "" "uploader {__version__}" "User Commands"', ".SH NAME"]
    lines += ["uploader \\- upload files and follow the server's progress", ".SH SYNOPSIS"]
    lines += [".B uploader", ".I command", r"[\fIoption\fR ...] [\fIargument\fR ...]", ".SH DESCRIPTION"]
    lines += [DESCRIPTION.rstrip(), ".SH COMMANDS"]
    for name, command in COMMANDS.items():
        lines += [".TP", rf".BR uploader\-{_text(name)} (1)", _text(command.help.splitlines()[0])]
    lines += [*_exit_status(), ".SH EXAMPLES"]
    for what, line in EXAMPLES:
        lines += [".PP", _text(what), ".PP", ".nf", ".RS", _text(line), ".RE", ".fi"]
    return "\n".join(lines) + "\n"


def _page(name: str, command: Any) -> str:
    """Return the page of one command, with all of its options."""
    what, *more = command.help.splitlines()
    arguments = [
        param.make_metavar(command.make_context(name, [], resilient_parsing=True))
        for param in command.params
        if param.param_type_name == "argument"
    ]
    lines = [f'.TH UPLOADER\\-{_text(name.upper())} 1 "" "uploader {__version__}" "User Commands"', ".SH NAME"]
    lines += [rf"uploader\-{_text(name)} \- {_text(what[0].lower() + what[1:].rstrip('.'))}", ".SH SYNOPSIS"]
    lines += [f".B uploader {_text(name)}", " ".join([r"[\fIoption\fR ...]", *map(_text, arguments)])]
    lines += [".SH DESCRIPTION", _text(what), *map(_text, filter(None, more))]
    options = [param for param in command.params if param.param_type_name == "option"]
    lines += [*([".SH OPTIONS"] if options else []), *_rows(options), *_exit_status()]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR uploader (1)"]) + "\n"


def _exit_status() -> list[str]:
    lines = [".SH EXIT STATUS"]
    for code, meaning in {0: "success", **MEANINGS}.items():
        lines += [".TP", f".B {code}", _text(meaning)]
    return lines


def _rows(options: list[Any]) -> list[str]:
    """Return the options by section, as in the help."""
    lines = []
    for section in SECTIONS:
        rows = [param for param in options if (param.rich_help_panel or "Options") == section]
        if rows and section != "Options":
            lines += [f'.SS "{_text(section)}"']
        for param in rows:
            names = ", ".join(rf"\fB{_text(flag)}\fR" for flag in param.opts)
            value = rf" \fI{_text(param.metavar)}\fR" if param.metavar else ""
            lines += [".TP", names + value, _text(param.help or "")]
    return lines


def _text(plain: str) -> str:
    escaped = plain.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir(parents=True)
    for page, text in pages().items():
        (MADE / page).write_text(text, encoding="utf-8")

"""Update docs/uploader.1, the man page, from the commands and their options: `python docs/man_page.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.main import get_command

from uploader_cli.cli.app import app
from uploader_cli.exit_status import MEANINGS
from uploader_cli.settings.model import SECTIONS

PAGE = Path(__file__).with_name("uploader.1")
GROUP: Any = get_command(app)
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


def man_page() -> str:
    """Return the text of the page, in the man macros of roff."""
    lines = ['.TH UPLOADER 1 "" "uploader" "User Commands"', ".SH NAME"]
    lines += ["uploader \\- upload files and follow the server's progress", ".SH SYNOPSIS"]
    lines += [".B uploader", ".I command", r"[\fIoption\fR ...] [\fIargument\fR ...]", ".SH DESCRIPTION"]
    lines += [DESCRIPTION.rstrip(), ".SH COMMANDS"]
    for name, command in GROUP.commands.items():
        lines += [".TP", f".B {_text(name)}", _text(command.help.splitlines()[0])]
    for name, command in GROUP.commands.items():
        lines += _options(name, command)
    lines += [".SH EXIT STATUS"]
    for code, meaning in {0: "success", **MEANINGS}.items():
        lines += [".TP", f".B {code}", _text(meaning)]
    lines += [".SH EXAMPLES"]
    for what, line in EXAMPLES:
        lines += [".PP", _text(what), ".PP", ".nf", ".RS", _text(line), ".RE", ".fi"]
    return "\n".join(lines) + "\n"


def _options(name: str, command: Any) -> list[str]:
    """Return the options of a command; those of `upload` are described there alone."""
    shared = set() if name == "upload" else {param.name for param in GROUP.commands["upload"].params}
    options = [param for param in command.params if param.param_type_name == "option"]
    own = [param for param in options if param.name not in shared]
    others = ", ".join(param.opts[0] for param in options if param.name in shared)
    lines = [f'.SH "OPTIONS OF {_text(name.upper())}"'] if options else []
    for section in SECTIONS:
        rows = [param for param in own if (param.rich_help_panel or "Options") == section]
        if rows and section != "Options":
            lines += [f'.SS "{_text(section)}"']
        for param in rows:
            names = ", ".join(rf"\fB{_text(flag)}\fR" for flag in param.opts)
            value = rf" \fI{_text(param.metavar)}\fR" if param.metavar else ""
            lines += [".TP", names + value, _text(param.help or "")]
    return [*lines, ".PP", _text(f"As in upload: {others}.")] if others else lines


def _text(plain: str) -> str:
    escaped = plain.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    PAGE.write_text(man_page(), encoding="utf-8")

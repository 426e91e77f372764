"""`uploader config`: show the effective settings and their sources, without secrets, or create a config file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from uploader_cli import signals
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render import columns, use_color
from uploader_cli.render.words import safe
from uploader_cli.settings import MASK, OPTIONS, Layer, Settings, mask
from uploader_cli.settings.values import Header, written_size

_SECRET = ("token", "session_secret", "token_command", "on_failure", "upload_url")
"""Always masked. Proxies and headers are masked only where they look secret."""


def show(settings: Settings, file: Path, known: Sequence[str]) -> int:
    """Print each setting with its value and source, on stderr or with `--json` as one object on stdout.

    `file` is the user's config file, `known` are the defined profiles.
    """
    if settings.json:
        shown = {
            name: {"value": _value(settings, name), "source": source.layer.value, "from": safe(source.name)}
            for name, source in settings.sources.items()
        }
        body = {
            "file": str(file),
            "profiles": list(known),
            "settings": shown,
            "token_withheld": settings.token_withheld,
            "notes": list(settings.notes),
        }
        sys.stdout.write(json.dumps(body) + "\n")
        return Exit.OK
    there = "" if os.path.exists(file) else " (does not exist; create it with: uploader config init)"
    head = [f"your config file: {safe(str(file))}{there}"]
    head += [f"profiles: {safe(', '.join(known))}"] if known else []
    sys.stderr.write("\n".join([*head, "", *_rows(settings)]) + "\n")
    return Exit.OK


def _rows(settings: Settings) -> Iterator[str]:
    """Format a row for each setting; a source that does not fit goes to a line of its own."""
    width, dim = columns(80), use_color(os.environ, is_tty=sys.stderr.isatty())
    names = max(map(len, OPTIONS))
    values = {name: _words(name, _value(settings, name)) for name in OPTIONS}
    column = min(max(map(len, values.values())), 28)
    for name, value in values.items():
        source = settings.sources[name]
        where = safe(source.name)
        row = f"{name:<{names}}  {value:<{column}}  {where}"
        if len(row) > width:
            row = f"{name:<{names}}  {value}\n{'':<{min(names + 2, 8)}}{where}"
        yield f"\x1b[2m{row}\x1b[0m" if dim and source.layer is Layer.DEFAULT else row
    if settings.token_withheld:
        yield "the token and secret headers are withheld: only the config of the working directory names the server"


def _value(settings: Settings, name: str) -> Any:
    """Return the value as in the JSON output."""
    value = settings.state_path if name == "state_dir" else getattr(settings, name)
    if name in _SECRET:
        return MASK if value else None
    return [_plain(item) for item in value] if type(value) is tuple else _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case Header():
            return f"{value.name}: {MASK if value.secret else value.value}"
        case None | bool() | int() | float():
            return value
    return mask(str(value))


def _words(name: str, value: Any) -> str:
    match value:
        case None | "" | []:
            return "–"
        case bool():
            return "on" if value else "off"
        case list():
            return safe(", ".join(map(str, value)))
        case float():
            return f"{value:g}"
        case int() if name in ("chunk_size", "limit_rate", "min_size", "max_size"):
            return written_size(value)
    return safe(str(value))


def init(file: Path, content: str, *, force: bool) -> int:
    """Create the user's config file, private to the user. Raises `UsageError` if it exists."""
    try:
        if file.exists() and not force:
            raise UsageError(
                f"{file} exists already", hint="edit it, or overwrite it with: uploader config init --force"
            )
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with signals.unwinding():
            handle, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.resolve().parent)  # private
            try:
                with open(handle, "w", encoding="utf-8") as stream:
                    stream.write(content)
                os.replace(temporary, file.resolve())
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}") from None
    sys.stderr.write(f"{safe(str(file))}: written with every setting commented out\n")
    return Exit.OK

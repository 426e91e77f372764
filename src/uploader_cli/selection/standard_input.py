"""Standard input, or a file object of a program, as the only file of a run."""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import UsageError
from uploader_cli.feature import features, instead
from uploader_cli.settings import OPTIONS, Layer, Settings
from uploader_cli.settings.values import FIELD

STDIN = "-"
SELECTING = "include exclude exclude_from min_size max_size newer_than follow_links from_file failed_to"
"""Options for files that are found or listed: on the command line an error, in the environment or a config unused."""
UNKNOWN = ("size", "sha256")
"""Fields of metadata that are unknown before the end."""


def standard_input(settings: Settings, paths: Sequence[str]) -> tuple[Settings, LocalFile | None]:
    """Return the file of the PATH `-`, with the settings for it; None for other paths. Raises `UsageError`."""
    if STDIN not in paths:
        if settings.name is not None and settings.source("name").layer is Layer.FLAG:
            raise UsageError("--name names standard input", hint="give - as the PATH, or omit --name")
        return settings, None
    if len(paths) > 1:
        raise UsageError("- excludes other PATHs", hint=f"run twice; a file named - is .{os.sep}-")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "-: standard input is closed, or a terminal", hint="pipe the data, as in: COMMAND | uploader upload -"
        )
    return file_of(settings, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), STDIN)


def file_of(settings: Settings, source: BinaryIO, what: str) -> tuple[Settings, LocalFile]:
    """Return the file with the bytes of `source`, and the settings for it; `what` stands for it in messages.

    Raises `UsageError`.
    """
    from uploader_cli.selection.manifest_lines import relative_name
    from uploader_cli.sources.content import content_of

    if settings.name is None:
        option = "--name NAME" if what == STDIN else "name=…"
        raise UsageError(f"{what} has no name", hint=f"give its name on the server: {option}")
    try:
        name = relative_name(settings.name)
    except ValueError as error:
        raise UsageError(f"--name: {error}") from None
    if (other := instead(settings)) is not None:
        raise UsageError(f"{OPTIONS[other.options[0].name].flag} does not read {what}", hint="omit it")
    content = content_of(source, name)
    own = [feature.options[0].name for feature in features() if feature.consumes or feature.part or feature.unending]
    useless = [*SELECTING.split(), *own]
    if content.once:
        useless += ["skip_existing", "upload_url"]
        if settings.protocol == "batch":
            raise UsageError(f"the length of {what} is unknown, and a batch needs it", hint="use --protocol auto")
        for item in settings.metadata:
            field = next((field for field in FIELD.findall(item.template or "") if field in UNKNOWN), None)
            if field is not None:
                raise UsageError(f"--metadata {item.name}: {{{field}}} of {what} is unknown before its end")
    for option in useless:
        if settings.source(option).layer is Layer.FLAG and getattr(settings, option):
            raise UsageError(f"{OPTIONS[option].flag} and {what} exclude each other", hint="omit the option")
    changed = {option: OPTIONS[option].default for option in useless}
    if content.once and settings.verify:
        changed["digest"] = True  # computed as it is sent: it can't be read again
    # The random destination keeps it apart from other content of this name in the journal.
    size, destination = content.length or 0, f" input {secrets.token_hex(8)}"
    file = LocalFile(0, name, name, size, _changed(source), named=True, destination=destination, content=content)
    return replace(settings, **changed), file


def _changed(source: BinaryIO) -> int:
    """Return the mtime of a regular file in ns, for other sources the time now."""
    with suppress(AttributeError, OSError):
        info = os.fstat(source.fileno())
        if stat.S_ISREG(info.st_mode):
            return info.st_mtime_ns
    return time.time_ns()

"""The file of a report, written atomically; `named_files.check_output` checks it before anything is sent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO

from uploader_cli.named_files import Pipe

_DESCRIPTORS = Path("/proc/self/fd")


def write(path: Path, text: Iterable[str], tag: str, *, sync: bool = True) -> None:
    """Write `text` to `path` atomically; `tag` makes the name of the temporary file unique.

    Without `sync` the text may be lost if the system crashes. A pipe or a device is written directly. Undecodable
    bytes are encoded with `surrogateescape`. Raises OSError.
    """
    if is_special(path):
        with BufferedWriter(Pipe(path, os.O_WRONLY)) as stream:
            stream.writelines(map(_encoded, text))
        return
    target = Path(os.path.realpath(path))  # follows links
    made = target.with_name(f".uploader-{tag}")
    try:
        with _new(made) as stream:
            stream.writelines(map(_encoded, text))
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        if target.exists():
            made.chmod(stat.S_IMODE(target.stat().st_mode))
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Create a file. On Linux it has no name until it is complete, so that a killed process leaves nothing behind."""
    handle = None
    if hasattr(os, "O_TMPFILE") and _DESCRIPTORS.exists():
        with suppress(OSError):  # not supported by every file system
            handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    if handle is None:
        with path.open("xb") as stream:
            yield stream
        return
    with os.fdopen(handle, "wb") as stream:
        yield stream
        os.link(_DESCRIPTORS / str(handle), path, src_dir_fd=handle)  # so that it follows the link in /proc


def is_special(path: Path) -> bool:
    """Return True for a pipe, a device or a directory, which no file may replace."""
    return path.exists() and not path.is_file()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

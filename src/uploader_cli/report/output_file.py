"""Where a report goes: looked at before anything is sent, and written at the end as a whole."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = 1 << 16
_DESCRIPTORS = Path("/proc/self/fd")


def check(path: Path, option: str) -> None:
    """Raises `UsageError`, naming `option`, where no file can be written at `path`."""
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a directory", hint="name a file")
    if is_special(path):
        where, able = path, os.access(path, os.W_OK)
    else:
        where = path.resolve().parent
        if not where.is_dir():
            raise UsageError(f"{option}: there is no directory {where}", hint="make it, or name another place")
        able = os.access(where, os.W_OK | os.X_OK)
    if not able:
        raise UsageError(f"{option}: {where} can't be written to", hint="name a place that you may write to")


def write(path: Path, text: Iterable[str], tag: str) -> None:
    """Put `text` at `path`, as a whole or not at all; `tag` makes the name of the file in the making its own.

    A pipe or a device is written to as it is. Bytes that are no UTF-8 are those of `surrogateescape`. Raises OSError.
    """
    if is_special(path):
        with path.open("wb") as stream:
            _pour(text, stream)
        return
    target = path.resolve()  # of a link what it points to
    made = target.with_name(f".{target.name[:200]}.{tag}")
    try:
        with _new(made) as stream:
            _pour(text, stream)
            stream.flush()
            os.fsync(stream.fileno())
        _keep_mode(target, made)
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A new file. On Linux it has no name before its end: a process that is killed leaves nothing half-written."""
    handle = None
    if hasattr(os, "O_TMPFILE") and _DESCRIPTORS.exists():
        with suppress(OSError):  # not every file system can
            handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    if handle is None:
        with path.open("xb") as stream:
            yield stream
        return
    with os.fdopen(handle, "wb") as stream:
        yield stream
        os.link(_DESCRIPTORS / str(handle), path, src_dir_fd=handle)  # which makes it follow the link in /proc


def append(path: Path, text: Iterable[str]) -> None:
    """Add `text` at the end of the file, or nothing of it. Raises OSError."""
    with path.open("ab", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            _pour(text, stream)
        except OSError:
            if path.is_file():
                stream.truncate(size)
            raise


def is_special(path: Path) -> bool:
    """True for a pipe, a device, a directory: what no file may take the place of."""
    return path.exists() and not path.is_file()


def _keep_mode(target: Path, made: Path) -> None:
    if target.exists():
        made.chmod(stat.S_IMODE(target.stat().st_mode))


def _pour(text: Iterable[str], stream: BinaryIO) -> None:
    held, size = [], 0
    for piece in text:
        held.append(piece.encode("utf-8", "surrogateescape"))
        size += len(held[-1])
        if size >= _BLOCK:
            _write(b"".join(held), stream)
            held, size = [], 0
    _write(b"".join(held), stream)


def _write(data: bytes, stream: BinaryIO) -> None:
    left = memoryview(data)
    while left:  # a stream without a buffer may take a part
        left = left[stream.write(left) :]

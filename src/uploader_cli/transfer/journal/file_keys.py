"""How rows of the journal name files, and tell a file from another one at its path."""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

from uploader_cli.sources.files import absolute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.plan import LocalFile

    Files = Mapping[bytes, LocalFile]

_two_numbers, _64_BITS = Struct(">QQ").pack, (1 << 64) - 1


def path_key(file: LocalFile) -> bytes:
    """Return the absolute path of `file` as bytes, with the file's own destination after a NUL."""
    name = file.path
    if name[:1] != "/" or "//" in name or "/." in name or name[-1:] == "/":  # else it is absolute: `abspath` costs 5 µs
        name = absolute(name)
    path = os.fsencode(name)
    return path + b"\0" + file.destination.encode() if file.destination else path


def written_identity(file: LocalFile) -> bytes | None:
    """Return what distinguishes a file from others of its size and mtime; no device, whose number a restart changes."""
    known = file.identity
    return None if known is None else _two_numbers(known.inode & _64_BITS, known.ctime_ns & _64_BITS)


def is_same(one: LocalFile, other: LocalFile) -> bool:
    return one.size == other.size and one.mtime_ns == other.mtime_ns


def paths_in(files: Files) -> str:
    """Return the end of a query for a group of files: three times as fast as one query each."""
    return f" AND path IN ({','.join(f'?{number}' for number in range(3, len(files) + 3))})"

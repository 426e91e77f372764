"""The bytes of a manifest → its lines, each an `Entry` or, where it can't be used, a `BadLine`.

One line is in memory at a time. Four formats: paths line by line, paths with a NUL after each, CSV (RFC 4180) with a
header, JSONL. What the columns are called is the same in the last two.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import os
import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from uploader_cli.core.events import FailureCode
from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST = 1 << 20
"""Bytes of a line; what is longer is no line of a manifest."""
CATEGORIES = ("personal", "scenic")
"""The server's categories (wire contract 1)."""
COLUMNS = ("path", "path_b64", "name", "category", "sha256")
_OF_AN_EVENT = ("v", "seq", "run", "ts", "type", "file", "code", "message", "retryable")
_OF_A_REPORT = (
    *("relative_path", "destination", "outcome", "size", "bytes", "session", "server_id", "location"),
    *("checksum", "verified", "attempts", "seconds", "reason", "stored_as"),
)
OTHERS = frozenset((*_OF_AN_EVENT, *_OF_A_REPORT))
"""Columns of what we write ourselves. They mean nothing here, but `relative_path`: it stands in for `name`."""
_BLOCK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_ODD = re.compile("[\ud800-\udfff]")
"""Bytes that are no UTF-8, as they are decoded here."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Format(StrEnum):
    """How a manifest is written."""

    PLAIN = "plain"
    NUL = "nul"
    CSV = "csv"
    JSONL = "jsonl"

    @property
    def unit(self) -> str:
        """What its lines are called."""
        return "record" if self is Format.NUL else "line"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that names a file: `line` counts from 1, `name` is the relative path that the server is to use."""

    line: int
    path: str
    name: str
    category: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't be used, and why; `path` as far as it is known."""

    line: int
    message: str
    path: str = ""
    code: FailureCode = FailureCode.BAD_LINE


class _Malformed(ValueError):
    """Why a line can't be used."""


def parse(stream: IO[bytes], kind: Format, *, strict: bool = True) -> Iterator[Entry | BadLine]:
    """The lines of a manifest; blank ones are left out, and still counted.

    `strict`: a column that nobody knows is an error, of the line in JSONL, of the whole in CSV. Raises `UsageError` for
    a CSV header that names no path.
    """
    match kind:
        case Format.CSV:
            yield from _csv(stream, strict=strict)
        case Format.JSONL:
            yield from _jsonl(stream, strict=strict)
        case _:
            yield from _paths(stream, b"\0" if kind is Format.NUL else b"\n")


def _pieces(stream: IO[bytes], separator: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands between separators, numbered from 1; of a piece that is too long only the start."""
    number, rest = 1, b""
    while block := stream.read(_BLOCK):
        if number == 1 and not rest:
            block = block.removeprefix(_BOM)
        *whole, rest = (rest + block).split(separator)
        for number, piece in enumerate(whole, number):  # noqa: B020 - it goes on from where it was
            yield number, piece
        number += bool(whole)
        rest = rest[: LONGEST + 1]
    if rest:
        yield number, rest


def _paths(stream: IO[bytes], separator: bytes) -> Iterator[Entry | BadLine]:
    """Any bytes that the file system takes; nothing is a comment, a `#` may begin a name."""
    for number, piece in _pieces(stream, separator):
        raw = piece if separator == b"\0" else piece.removesuffix(b"\r")
        if not raw:
            continue
        try:
            if len(raw) > LONGEST:
                raise _Malformed(f"longer than {LONGEST} bytes")
            if b"\0" in raw:
                raise _Malformed("it holds a NUL character: a list that is NUL-separated needs -0")
            yield _entry(number, {"path": os.fsdecode(raw)})
        except (_Malformed, UnicodeDecodeError) as problem:
            yield BadLine(number, _words(problem))


def _csv(stream: IO[bytes], *, strict: bool) -> Iterator[Entry | BadLine]:
    columns: list[str] | None = None
    for number, row in _records(stream):
        if isinstance(row, str):
            if columns is None:
                raise UsageError(f"line {number}: the header is not valid CSV: {row}", hint=_HEADER)
            yield BadLine(number, f"not valid CSV: {row}")
            continue
        if columns is None:
            columns = _header(row, strict=strict)
            continue
        try:
            if len(row) != len(columns):
                raise _Malformed(f"{_count(len(row), 'value')} for {_count(len(columns), 'column')}")
            if _ODD.search("".join(row)):
                raise _Malformed("not UTF-8; the bytes of such a path go into a column path_b64, in base64")
            yield _entry(number, {name: value or None for name, value in zip(columns, row, strict=True)})
        except _Malformed as problem:
            yield BadLine(number, str(problem))


def _records(stream: IO[bytes]) -> Iterator[tuple[int, list[str] | str]]:
    """Each record with the number of its first line, for quoted values may hold line breaks; or what is wrong with it.

    Only its first line is lost then: the lines after it are read as if a quote in it had been none.
    """
    source = ((piece + b"\n").decode("utf-8", "surrogateescape") for _, piece in _pieces(stream, b"\n"))
    again, taken = deque[str](), list[str]()

    def lines() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            taken.append(line)
            yield line

    rows, number = csv.reader(lines(), strict=True), 1
    while True:
        taken.clear()
        try:
            row = next(rows, None)
        except csv.Error as problem:
            yield number, "a quote is not closed" if len(taken) > 1 else str(problem)
            again.extendleft(reversed(taken[1:]))
            rows, number = csv.reader(lines(), strict=True), number + 1
            continue
        if row is None:
            return
        if row:
            yield number, row
        number += len(taken)


_HEADER = "the first line of a CSV manifest names its columns: path, and name, category, sha256 where you need them"


def _header(row: list[str], *, strict: bool) -> list[str]:
    columns = [name.strip() for name in row]
    if not {"path", "path_b64"} & set(columns):
        separated = "; columns are separated by commas" if len(row) == 1 and re.search(r"[;\t|]", row[0]) else ""
        raise UsageError(f"line 1: there is no column path{separated}", hint=_HEADER)
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"line 1: column {twice!r} is there twice", hint=_HEADER)
    if strict and (strange := _strange(columns)) is not None:
        raise UsageError(
            f"line 1: there is no column {strange!r}", hint=f"{_HEADER}. With --lenient others are ignored"
        )
    return columns


def _jsonl(stream: IO[bytes], *, strict: bool) -> Iterator[Entry | BadLine]:
    for number, piece in _pieces(stream, b"\n"):
        if not piece.strip():
            continue
        try:
            if len(piece) > LONGEST:
                raise _Malformed(f"longer than {LONGEST} bytes")
            yield _entry(number, _object(piece, strict=strict))
        except _Malformed as problem:
            yield BadLine(number, _words(problem))


def _object(piece: bytes, *, strict: bool) -> Mapping[str, str | None]:
    try:
        found = json.loads(piece.decode("utf-8"))
    except UnicodeDecodeError:
        raise _Malformed("not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise _Malformed(f"not valid JSON: {problem.msg} (column {problem.colno})") from None
    except RecursionError:
        raise _Malformed("not valid JSON: nested too deeply") from None
    if not isinstance(found, dict):
        raise _Malformed('it must be an object as {"path": "a.mp4"}')
    if strict and (strange := _strange(found)) is not None:
        raise _Malformed(f"there is no key {strange!r}")
    for name in (*COLUMNS, "relative_path"):
        if not isinstance(found.get(name), str | None):
            raise _Malformed(f"{name} must be text")
    return found


def _strange(names: Mapping[str, object] | list[str]) -> str | None:
    return next((name for name in names if name not in COLUMNS and name not in OTHERS), None)


# --- one line's values ------------------------------------------------------------------------------------------------


def _entry(number: int, values: Mapping[str, str | None]) -> Entry:
    """Raises `_Malformed`."""
    path = _path(values)
    category, digest = values.get("category"), values.get("sha256")
    name = values.get("name")
    if name is None:
        name = values.get("relative_path")
    if category is not None and category not in CATEGORIES:
        raise _Malformed(f"category must be {' or '.join(CATEGORIES)}, not {_short(category)}")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise _Malformed(f"sha256 must be 64 hexadecimal digits, not {_short(digest)}")
    return Entry(
        number,
        path,
        _own_name(path) if name is None else _checked_name(name.removeprefix("./")),
        category,
        digest.lower() if digest is not None else None,
    )


def _path(values: Mapping[str, str | None]) -> str:
    """`path_b64` outranks `path`, which it stands beside where that shows a name of odd bytes."""
    path, encoded = values.get("path"), values.get("path_b64")
    try:
        if encoded is not None:
            path = os.fsdecode(base64.b64decode(encoded, validate=True))
        os.fsencode(path or "")
    except binascii.Error:
        raise _Malformed("path_b64 is not base64") from None
    except UnicodeError:
        raise _Malformed("path is no name that a file can have here") from None
    if not path:
        raise _Malformed("it names no path")
    if "\0" in path:
        raise _Malformed("its path holds a NUL character")
    return path


def _own_name(path: str) -> str:
    """The path as it is listed, from the working directory on; of one that leads elsewhere only its last part."""
    normal = os.path.normpath(path)
    if os.path.isabs(normal) or normal.split(os.sep)[0] in (os.curdir, os.pardir):
        return os.path.basename(os.path.abspath(path))
    return normal.replace(os.sep, "/")


def _checked_name(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise _Malformed(f"name must be a relative path without . and .., as videos/a.mp4, not {_short(name)}")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in name):
        raise _Malformed(f"name holds a NUL character, or one that is no text: {_short(name)}")
    return name


def _short(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:79] + "…")


def _words(problem: Exception) -> str:
    return "its path is no text on this system" if isinstance(problem, UnicodeDecodeError) else str(problem)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Parse the bytes of a manifest into lines, each an `Entry` or, if invalid, a `BadLine`.

One line is in memory at a time. There are four formats: paths line by line, paths ending with NUL, CSV (RFC 4180) with
a header, and JSONL; the last two have the same columns.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import IO, Any

from uploader_cli.core.events import FailureCode, FileEnded
from uploader_cli.core.origins import usable
from uploader_cli.core.plan import is_url
from uploader_cli.errors import UsageError
from uploader_cli.sources.files import reader

LONGEST_LINE = 1 << 20  # maximum bytes of a line
CATEGORIES = ("personal", "scenic")  # the server's categories (docs/protocol.md section 1)
COLUMNS = ("path", "path_b64", "name", "category", "sha256", "upload_url")
OTHERS = frozenset({"v", "seq", "run", "ts", "type", *FileEnded.__struct_fields__})
"""Columns of reports and keys of events. They are ignored here, except `relative_path`, which replaces `name`."""
RESERVED = OTHERS | set(COLUMNS)
"""Columns that never set metadata."""
_BLOCK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_UNDECODABLE = re.compile("[\ud800-\udfff]")  # bytes that are not UTF-8, as decoded here
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Format(StrEnum):
    PLAIN = "plain"
    NUL = "nul"
    CSV = "csv"
    JSONL = "jsonl"

    @property
    def unit(self) -> str:
        """The word for one of its entries in messages."""
        return "record" if self is Format.NUL else "line"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line with a file: `line` counts from 1, `name` is the relative path to use on the server."""

    line: int
    path: str
    name: str
    category: str | None = None
    sha256: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    upload_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BadLine:
    """An invalid line with the reason; `path` as far as it is known."""

    line: int
    message: str
    path: str = ""
    code: FailureCode = FailureCode.BAD_LINE


class _Malformed(ValueError):
    """An invalid line."""


def parse(
    stream: IO[bytes], kind: Format, *, strict: bool = True, keys: Mapping[str, bool] | None = None
) -> Iterator[Entry | BadLine]:
    """Yield the lines of a manifest; blank ones are counted but not yielded.

    `strict`: an unknown column is an error, of the line in JSONL, of the whole list in CSV. Raises `UsageError` for a
    CSV header without a path. `keys` are keys of metadata, which may be columns; True: each line needs a value.
    """
    keys = {key: needed for key, needed in (keys or {}).items() if key not in RESERVED}
    records: Iterator[tuple[int, Any]]
    record: Any
    read: Callable[[Any], Mapping[str, str | None] | None]
    match kind:
        case Format.PLAIN:
            records, read = _pieces(stream, b"\n"), partial(_from_path, line_end=b"\r")
        case Format.NUL:
            records, read = _pieces(stream, b"\0"), partial(_from_path, line_end=b"")
        case Format.JSONL:
            records, read = _pieces(stream, b"\n"), partial(_from_json, strict=strict, keys=keys)
        case Format.CSV:
            records = _csv_records(stream)
            first = next(records, None)
            if first is None:
                return
            read = partial(_from_row, columns=_header(*first, strict=strict, keys=keys))
    for number, record in records:
        try:
            values = read(record)
            if values is not None:
                yield _entry(number, values, keys)
        except _Malformed as problem:
            yield BadLine(number, str(problem))


def _pieces(stream: IO[bytes], separator: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts between separators, numbered from 1; a part that is too long is cut."""
    number, rest = 1, b""
    may_be_marked = separator != b"\0"  # editors write a mark of the byte order, and no NUL characters
    while block := stream.read(_BLOCK):
        if may_be_marked:
            block, may_be_marked = block.removeprefix(_BOM), False
        *whole, rest = (rest + block).split(separator)
        for number, piece in enumerate(whole, number):  # noqa: B020 - continues the numbering
            yield number, piece
        number += bool(whole)
        rest = rest[: LONGEST_LINE + 1]
    if rest:
        yield number, rest


def _from_path(piece: bytes, *, line_end: bytes) -> Mapping[str, str | None] | None:
    """Read any bytes that the file system allows; there are no comments, since `#` may start a name."""
    raw = piece.removesuffix(line_end)
    _check_length(raw)
    if b"\0" in raw:
        raise _Malformed("contains a NUL character: a NUL-separated list needs -0")
    try:
        return {"path": os.fsdecode(raw)} if raw else None
    except UnicodeDecodeError:
        raise _Malformed("the path can't be decoded on this system") from None


def _from_json(piece: bytes, *, strict: bool, keys: Mapping[str, bool]) -> Mapping[str, str | None] | None:
    if not piece.strip():
        return None
    _check_length(piece)
    try:
        found = json.loads(piece.decode("utf-8"))
    except UnicodeDecodeError:
        raise _Malformed("not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise _Malformed(f"not valid JSON: {problem.msg} (column {problem.colno})") from None
    except RecursionError:
        raise _Malformed("not valid JSON: nested too deeply") from None
    except ValueError:  # json.loads converts no number of more than 4,300 digits
        raise _Malformed("not valid JSON: a number is too long") from None
    if not isinstance(found, dict):
        raise _Malformed('must be an object as {"path": "a.mp4"}')
    if strict and (unknown := _unknown(found, keys)) is not None:
        raise _Malformed(f"unknown key {unknown!r}")
    for name in (*COLUMNS, "relative_path", *keys):
        if not isinstance(found.get(name), str | None):
            raise _Malformed(f"{name} must be text")
    return found


def _check_length(raw: bytes) -> None:
    if len(raw) > LONGEST_LINE:
        raise _Malformed(f"longer than {LONGEST_LINE} bytes")


def _csv_records(stream: IO[bytes]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield each record, or its error, with the number of its first line; quoted values may contain line breaks.

    An invalid record loses only its first line: the following lines are parsed again.
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
            yield number, csv.Error("unclosed quote") if len(taken) > 1 else problem
            again.extendleft(reversed(taken[1:]))
            rows, number = csv.reader(lines(), strict=True), number + 1
            continue
        if row is None:
            return
        if row:
            yield number, row
        number += len(taken)


def _header(number: int, row: list[str] | csv.Error, *, strict: bool, keys: Container[str]) -> list[str]:
    hint = "the first line of a CSV manifest has its columns: path, and optionally name, category, sha256, upload_url"
    if isinstance(row, csv.Error):
        raise UsageError(f"line {number}: the header is not valid CSV: {row}", hint=hint)
    columns = [name.strip() for name in row]
    if not {"path", "path_b64"} & set(columns):
        separated = "; columns are separated by commas" if len(row) == 1 and re.search(r"[;\t|]", row[0]) else ""
        raise UsageError(f"line {number}: the column path is missing{separated}", hint=hint)
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"line {number}: duplicate column {twice!r}", hint=hint)
    if strict and (unknown := _unknown(columns, keys)) is not None:
        raise UsageError(f"line {number}: unknown column {unknown!r}", hint=f"{hint}. --lenient ignores others")
    return columns


def _from_row(row: list[str] | csv.Error, *, columns: list[str]) -> Mapping[str, str | None]:
    if isinstance(row, csv.Error):
        raise _Malformed(f"not valid CSV: {row}")
    if len(row) != len(columns):
        raise _Malformed(f"{_count(len(row), 'value')} for {_count(len(columns), 'column')}")
    if _UNDECODABLE.search("".join(row)):
        raise _Malformed("not UTF-8: put such a path into a column path_b64, in base64")
    return {name: value or None for name, value in zip(columns, row, strict=True)}


def _unknown(names: Iterable[str], keys: Container[str]) -> str | None:
    return next((name for name in names if name not in RESERVED and name not in keys), None)


# --- values of one line -----------------------------------------------------------------------------------------------


def _entry(number: int, values: Mapping[str, str | None], keys: Mapping[str, bool]) -> Entry:
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
    upload_url = values.get("upload_url") or ""
    if upload_url and not usable(upload_url):
        raise _Malformed("upload_url is not an http or https URL")  # which may be a secret all the same
    return Entry(
        number,
        path,
        _own_name(path) if name is None else relative_name(name.removeprefix("./")),
        category,
        digest.lower() if digest is not None else None,
        tuple(_metadata(values, keys)) if keys else (),
        upload_url,
    )


def _metadata(values: Mapping[str, str | None], keys: Mapping[str, bool]) -> Iterator[tuple[str, str]]:
    for key, needed in keys.items():
        value = values.get(key)
        if value is None and needed:
            raise _Malformed(f"no value for {key}: --metadata {key}=VALUE gives one for all lines")
        if value is not None:
            if _UNDECODABLE.search(value):
                raise _Malformed(f"{key} is not valid text: {_short(value)}")
            yield key, value


def _path(values: Mapping[str, str | None]) -> str:
    """Return the path: `path_b64` if present, which holds the exact bytes, else `path`."""
    path, encoded = values.get("path"), values.get("path_b64")
    try:
        if encoded is not None:
            path = os.fsdecode(base64.b64decode(encoded, validate=True))
        os.fsencode(path or "")
    except UnicodeError:
        raise _Malformed("path is not a valid file name on this system") from None
    except ValueError:  # binascii.Error, or a character that is not ASCII
        raise _Malformed("path_b64 is not base64") from None
    if not path:
        raise _Malformed("no path")
    if "\0" in path:
        raise _Malformed("the path contains a NUL character")
    return path


def _own_name(path: str) -> str:
    """Return the listed path relative to the working directory; only the last part of a path outside it."""
    if is_url(path):
        return reader(path).base_name(path)
    normal = os.path.normpath(path)
    if os.path.isabs(normal) or normal.split(os.sep)[0] in (os.curdir, os.pardir):
        return os.path.basename(os.path.abspath(path))
    return normal.replace(os.sep, "/")


def relative_name(name: str) -> str:
    """Return the name on the server if it is a safe relative path. Raise `ValueError`."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise _Malformed(f"name must be a relative path without . and .., as videos/a.mp4, not {_short(name)}")
    if "\0" in name or _UNDECODABLE.search(name):
        raise _Malformed(f"name contains a NUL character or an undecodable byte: {_short(name)}")
    return name


def _short(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:79] + "…")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

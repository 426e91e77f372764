"""Read a report, whatever its JSON layout, with one row in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from uploader_cli.core.events import Phase
from uploader_cli.errors import UsageError
from uploader_cli.report.document import FORMAT, VERSION
from uploader_cli.report.recorder import Row

_BLOCK = 1 << 20
_LONGEST = 64 << 20  # maximum characters of one value
_OUTCOMES = frozenset(str(phase) for phase in Phase if phase.terminal)


@dataclass(frozen=True, slots=True)
class Report:
    """A report on disk: its head and the path to its rows."""

    path: Path
    head: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Report:
        """Check the whole file. Raises `UsageError`, naming the file, if it is not a supported report."""
        head: dict[str, Any] = {}
        rows = 0
        for key, value in _members(path):
            if key == "files":
                rows += 1
                _check_row(path, rows, value)
            else:
                head[key] = value
        _check_head(path, head)
        return cls(path, head)

    def rows(self) -> Iterator[Row]:
        """Return the rows of the files in the order of the report."""
        return (value for key, value in _members(self.path) if key == "files")


def _check_head(path: Path, head: dict[str, Any]) -> None:
    if head.get("format") != FORMAT:
        raise UsageError(f"{path} is not a report of uploader", hint="write one with --report FILE.json")
    if head.get("v") != VERSION:
        raise UsageError(
            f"{path}: format version {head.get('v')!r} is not supported, only {VERSION}",
            hint="use the version of uploader that wrote it, or a newer one",
        )
    runs = head.get("runs") or [head]
    if not isinstance(runs, list) or not isinstance(head.get("counts"), dict) or not all(map(_is_run, runs)):
        raise _broken(path, "it does not identify its run")


def _is_run(head: Any) -> bool:
    if not _has(head, str, "run", "started", "finished"):
        return False
    return head.get("shard") is None or _has(head["shard"], int, "index", "count")


def _has(value: Any, kind: type, *names: str) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name in names)


def _check_row(path: Path, number: int, row: Any) -> None:
    numbers = ("size", "seconds", "attempts")
    if (
        not _has(row, str, "path", "outcome")
        or row["outcome"] not in _OUTCOMES
        or not all(isinstance(row.get(name, 0), int | float | None) for name in numbers)
    ):
        raise _broken(path, f"file {number} has no path, no outcome or invalid numbers")


def _broken(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is damaged: {why}", hint="fix the file, or omit it")


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the members of the JSON object in the file; the elements of `files` one by one."""
    try:
        with path.open(encoding="utf-8") as stream:
            yield from _Scanner(stream).members()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="check the path") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise _broken(path, f"not valid JSON ({error})") from error


class _Scanner:
    """Parses one JSON object, member by member. Raises ValueError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0

    def members(self) -> Iterator[tuple[str, Any]]:
        for _ in self._items("{", "}"):
            key = self._value()
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no text")
            self._take(":")
            if key == "files" and self._peek() == "[":
                for _ in self._items("[", "]"):
                    yield key, self._value()
            else:
                yield key, self._value()

    def _items(self, begin: str, end: str) -> Iterator[None]:
        """Yield before each item of an object or array."""
        self._take(begin)
        if self._peek() == end:
            self._take(end)
            return
        yield
        while self._take("," + end) == ",":
            yield

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():  # a number may continue
                continue
            self._at = end
            return value

    def _take(self, expected: str) -> str:
        found = self._peek()
        if not found or found not in expected:
            raise ValueError(f"{' or '.join(expected)} expected, not {found or 'its end'}")
        self._at += 1
        return found

    def _peek(self) -> str:
        """Return the next non-space character; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _more(self) -> bool:
        block = self._stream.read(_BLOCK)
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

"""Read a report: line by line, or as a whole if another program (`jq`) has changed its layout."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TextIO

from uploader_cli.errors import UsageError
from uploader_cli.features.reports.heads import read_heads
from uploader_cli.report.document import OUTCOMES, REPORT_FORMAT, REPORT_VERSION
from uploader_cli.report.formats import ROWS_BEGIN, ROWS_END
from uploader_cli.report.recorder import Row


@dataclass(frozen=True, slots=True)
class Report:
    """A report on disk. Its rows are read again each time, and are in memory only if they do not have a line each."""

    path: Path
    head: dict[str, Any]
    _rows: list[Any] | None = None

    @classmethod
    def open(cls, path: Path) -> Report:
        """Check the whole file. Raises `UsageError`, naming the file, if it is not a supported report."""
        with _reading(path) as stream:
            try:
                head, rows = _head(stream), None
                _check_rows(path, _lines(stream))
            except ValueError:  # another layout, or damaged
                stream.seek(0)
                head, rows = _whole(stream)
                _check_rows(path, rows)
        _check_head(path, head)
        return cls(path, head, rows)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the files in the order of the report."""
        if self._rows is not None:
            yield from self._rows
            return
        with _reading(self.path) as stream:
            _head(stream)
            yield from _lines(stream)


@contextmanager
def _reading(path: Path) -> Iterator[TextIO]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe may have no writer
            raise UsageError(f"{path} is not a regular file", hint="reports are read twice: save it to a file first")
        with path.open(encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="check the path") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise _broken(path, f"not valid JSON ({error})") from error


def _head(stream: TextIO) -> Any:
    """Read up to the rows in the layout of `formats.as_json`. Raises ValueError for another one."""
    text = "".join(takewhile(ROWS_BEGIN.__ne__, stream))
    return _parsed(f"{text.rstrip().removesuffix(',')}}}")


def _lines(stream: TextIO) -> Iterator[Any]:
    """Yield the rows, each of which has a line. Raises ValueError."""
    for line in iter(stream.readline, ROWS_END):  # at the end of the file an empty one, which is no JSON
        yield _parsed(line.rstrip().removesuffix(","))
    if stream.read().strip() != "}":
        raise ValueError("more than one object")


def _parsed(text: str) -> Any:
    """Parse JSON. Raises ValueError, also for half a surrogate pair, which no output can encode."""
    value = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _whole(stream: TextIO) -> tuple[dict[str, Any], list[Any]]:
    """Read a report in any layout. Raises ValueError."""
    head = _parsed(stream.read())
    if not isinstance(head, dict):
        raise ValueError("it is no object")
    rows = head.pop("files", [])
    return head, rows if isinstance(rows, list) else [rows]


def _check_head(path: Path, head: dict[str, Any]) -> None:
    if head.get("format") != REPORT_FORMAT:
        raise UsageError(f"{path} is not a report of uploader", hint="write one with --report FILE.json")
    if head.get("v") != REPORT_VERSION:
        raise UsageError(
            f"{path}: format version {head.get('v')!r} is not supported, only {REPORT_VERSION}",
            hint="use the version of uploader that wrote it, or a newer one",
        )
    runs = head.get("runs") or [head]
    if not isinstance(runs, list) or not isinstance(head.get("counts"), dict) or not all(map(_is_run, runs)):
        raise _broken(path, "it does not identify its run")


def _is_run(head: Any) -> bool:
    return _has(head, str, "run", "started", "finished") and all(one.is_valid(head) for one in read_heads())


def _has(value: Any, kind: type, *names: str) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name in names)


def _check_rows(path: Path, rows: Iterable[Any]) -> None:
    numbers = ("size", "seconds", "attempts")
    for count, row in enumerate(rows, 1):
        if (
            not _has(row, str, "path", "outcome")
            or row["outcome"] not in OUTCOMES
            or not all(isinstance(row.get(name, 0), int | float | None) for name in numbers)
        ):
            raise _broken(path, f"file {count} has no path, no outcome or invalid numbers")


def _broken(path: Path, why: str) -> UsageError:
    hint = "only the JSON report of a run can be read, as --report FILE.json writes it"
    return UsageError(f"{path} is not a JSON report, or damaged: {why}", hint=hint)

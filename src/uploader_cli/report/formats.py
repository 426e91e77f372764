"""Write a report as JSON or CSV, in pieces."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from uploader_cli.core.names import inert
from uploader_cli.core.tus import concealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.report.spool import Row, Spool

COLUMNS = (
    "file",
    "path",
    "path_b64",
    "relative_path",
    "outcome",
    "size",
    "bytes",
    "session",
    "attempts",
    "seconds",
    "server_id",
    "location",
    "checksum",
    "verified",
    "code",
    "message",
    "retryable",
    "reason",
    "category",
    "sha256",
    "run",
    "stored_as",
)
"""The columns of the CSV, in order."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PATHS = ("path", "relative_path", "name", "stored_as")


def as_json(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the head, and `files` last with one file per line, so that they can be read line by line."""
    opening = inert(json.dumps(head, indent=2, ensure_ascii=False))
    yield opening.removesuffix("\n}") + ',\n  "files": ['
    separator = "\n    "
    for row in spool.rows():
        if "upload_url" in row:
            row["upload_url"] = concealed(row["upload_url"])
        yield separator + inert(json.dumps(row, ensure_ascii=False))
        separator = ",\n    "
    yield "\n  ]\n}\n"


def as_csv(_head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield a header and one record per file (RFC 4180); unknown values are empty."""
    return csv_lines(COLUMNS, spool.rows())


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Yield a header and one record per row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(name, row.get(name)) for name in columns])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def cell(column: str, value: Any) -> Any:
    """Escape a value that a spreadsheet would take for a formula: a path as `./=a`, other values as `'=a`."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return f"./{value}" if column in _PATHS else f"'{value}"

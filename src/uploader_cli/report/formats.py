"""Write a report as JSON or CSV, or a list of digests or links, in pieces."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from uploader_cli.core.names import inert
from uploader_cli.render.words import safe
from uploader_cli.report.document import shown

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
    "url",
)
"""The columns of the CSV, in order."""

_LISTS = re.compile(r"\[\n([\d.,\s]+)\]")  # lists of numbers in indented JSON, which are put in one line
LINK_SUFFIXES = ("", ".txt", ".tsv", ".lst", ".list")  # the accepted suffixes of a list of links
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PATHS = ("path", "relative_path", "name", "stored_as")


def as_json(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the head, and `files` last with one file per line, so that they can be read line by line."""
    opening = _LISTS.sub(
        lambda found: f"[{' '.join(found[1].split())}]", inert(json.dumps(head, indent=2, ensure_ascii=False))
    )
    yield opening.removesuffix("\n}") + ',\n  "files": ['
    separator = "\n    "
    for row in spool.rows():
        yield separator + inert(json.dumps(shown(row), ensure_ascii=False))
        separator = ",\n    "
    yield "\n  ]\n}\n"


def as_csv(_head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield a header and one record per file (RFC 4180); unknown values are empty."""
    return csv_lines(COLUMNS, spool.rows())


def as_links(spool: Spool) -> Iterator[str]:
    """Yield a line for each file on the server: its URL, a tab, its path."""
    return (f"{safe(row['url'])}\t{safe(row['path'])}\n" for row in spool.rows() if row.get("url"))


def as_sha256(_head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield a line of `sha256sum` for each file on the server, with its path as selected."""
    for row in filter(_is_stored, spool.rows()):
        if checksum := row.get("checksum"):
            name = local_path(row)
            written = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            mark = "\\" if written != name else ""
            yield f"{mark}{checksum.removeprefix('sha256:')}  {written}\n"


def without_digest(spool: Spool) -> int:
    """Return the number of files on the server that `as_sha256` leaves out."""
    return sum(not row.get("checksum") for row in filter(_is_stored, spool.rows()))


def _is_stored(row: Row) -> bool:
    return row["outcome"] == "completed" or row.get("reason") in ("present", "receipt")


def local_path(row: Row) -> str:
    """Return the path as in the file system, with undecodable bytes as `surrogateescape` writes them."""
    raw = row.get("path_b64")
    return base64.b64decode(raw).decode("utf-8", "surrogateescape") if raw else row["path"]


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

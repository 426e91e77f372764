"""`--failed-to`: write the files that should be on the server but are not, as a list for `--from-file`.

These are the failed and cancelled files, and those that `--fail-fast` did not start. The suffix selects the format, as
for `--from-file`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.names import json_line
from uploader_cli.report.formats import csv_lines, local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_cli.report.spool import Row, Spool

SUFFIXES = ("", ".txt", ".lst", ".list", ".csv", ".jsonl", ".ndjson")  # the accepted suffixes
_COLUMNS = ("path", "path_b64", "name", "category", "sha256")


def is_left(row: Row) -> bool:
    """Return True for a file that another run should send; an invalid line of a list is none."""
    if row.get("code") == "bad_line":
        return False
    return row["outcome"] in ("failed", "cancelled") or row.get("reason") == "fail_fast"


def as_manifest(path: Path, spool: Spool) -> Iterator[str]:
    """Return the list in the format of the suffix of `path`."""
    entries = map(_entry, _left(spool))
    match path.suffix.lower():
        case ".csv":
            keys = {key: None for row in _left(spool) for key in _own(row)}
            return csv_lines((*_COLUMNS, *keys), entries)
        case ".jsonl" | ".ndjson":
            return (json_line({name: value for name, value in entry.items() if value}) for entry in entries)
    end = "\0" if needs_nul(path, spool) else "\n"
    return (local_path(row) + end for row in _left(spool))


def needs_nul(path: Path, spool: Spool) -> bool:
    """Return True where plain paths need NUL separators: one has a line break, or begins with U+FEFF."""
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        return False
    return any(
        "\n" in name or name.endswith("\r") or name.startswith("\ufeff") for name in map(local_path, _left(spool))
    )


def _left(spool: Spool) -> Iterator[Row]:
    return filter(is_left, spool.rows())


def _entry(row: Row) -> Row:
    given = {"path": row["path"], "name": row.get("relative_path")}
    entry = {column: given.get(column, row.get(column)) for column in _COLUMNS}
    return entry | _own(row)


def _own(row: Row) -> Row:
    """Return the columns that only some lists have."""
    existing = {"upload_url": row["upload_url"]} if "upload_url" in row else {}
    return existing | (row.get("upload_metadata") or {})

"""`--failed-to`: the files that are not on the server although they were to be, as a list that `--from-file` takes.

Those are the failed ones, the cancelled ones, and those that `--fail-fast` did not start. The format follows the
suffix, as that of `--from-file` does.
"""

from __future__ import annotations

import base64
import csv
import io
from typing import TYPE_CHECKING

from uploader_cli.core.names import json_line
from uploader_cli.report.formats import cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_cli.report.spool import Row, Spool

SUFFIXES = ("", ".txt", ".lst", ".list", ".csv", ".jsonl", ".ndjson")
"""Of the files that may be written."""
_COLUMNS = ("path", "path_b64", "name", "category", "sha256")


def is_left(row: Row) -> bool:
    """True for a file that another run should send; a line of a list that names no file is none."""
    if row.get("code") == "bad_line":
        return False
    return row["outcome"] in ("failed", "cancelled") or row.get("reason") == "fail_fast"


def as_manifest(path: Path, spool: Spool) -> Iterator[str]:
    """The list, in the format of the suffix of `path`."""
    match path.suffix.lower():
        case ".csv":
            return _as_csv(spool)
        case ".jsonl" | ".ndjson":
            return _as_jsonl(spool)
    return _as_paths(spool, "\0" if needs_nul(path, spool) else "\n")


def needs_nul(path: Path, spool: Spool) -> bool:
    """True where a list of plain paths can only be told apart by NUL characters: a name in it has a line break."""
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        return False
    return any("\n" in name or name.endswith("\r") for name in map(_name, _left(spool)))


def _left(spool: Spool) -> Iterator[Row]:
    return filter(is_left, spool.rows())


def _as_paths(spool: Spool, end: str) -> Iterator[str]:
    for row in _left(spool):
        yield _name(row) + end


def _as_jsonl(spool: Spool) -> Iterator[str]:
    for row in _left(spool):
        yield json_line({name: value for name, value in _entry(row).items() if value})


def _as_csv(spool: Spool) -> Iterator[str]:
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for row in _left(spool):
        writer.writerow([cell(column, value or "") for column, value in _entry(row).items()])
        yield held.getvalue()
        held.seek(0)
        held.truncate()
    yield held.getvalue()


def _entry(row: Row) -> dict[str, str | None]:
    given = {"path": row["path"], "name": row.get("relative_path")}
    return {column: given.get(column, row.get(column)) for column in _COLUMNS}


def _name(row: Row) -> str:
    """The path as the file system has it, odd bytes as `surrogateescape` writes them."""
    raw = row.get("path_b64")
    return base64.b64decode(raw).decode("utf-8", "surrogateescape") if raw else row["path"]

"""Write a report as JSON or CSV, or a list of links, or of the files to retry, in pieces.

`--failed-to` lists the files that should be on the server but are not: failed and cancelled ones, and those that
`--fail-fast` did not start. The suffix selects the format, as for `--from-file`.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from uploader_cli.core.names import inert, json_line
from uploader_cli.feature import fields_of
from uploader_cli.render.words import safe
from uploader_cli.report.document import shown
from uploader_cli.report.recorder import Row, Spool

CSV_COLUMNS: tuple[str, ...] = ("file", "path", "path_b64", "relative_path", "outcome", "size", "bytes", "session")
CSV_COLUMNS += ("attempts", "seconds", "server_id", "location", "checksum", "verified", "code", "message", "retryable")
CSV_COLUMNS += ("reason", "category", "sha256", "run", "stored_as", "url", "verified_by")
CSV_COLUMNS += tuple(name for name, _, _ in fields_of("FileEnded"))  # of the CSV, in order
LIST_COLUMNS = ("path", "path_b64", "name", "category", "sha256")
LIST_SUFFIXES = ("", ".txt", ".lst", ".list", ".csv", ".jsonl", ".ndjson")  # the accepted suffixes of `--failed-to`
LINK_SUFFIXES = ("", ".txt", ".tsv", ".lst", ".list")  # and of `--links`
ROWS_BEGIN, ROWS_END = '  "files": [\n', "  ]\n"
"""The lines around the rows of a JSON report, each of which has a line: so a report can be read line by line."""
_LISTS = re.compile(r"\[\n([\d.,\s]+)\]")  # lists of numbers in indented JSON, which are put in one line
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PATHS = ("path", "relative_path", "name", "stored_as")


def as_json(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the head, and the rows of the files last, in the layout that `read` expects."""
    text = inert(json.dumps(head, indent=2, ensure_ascii=False))
    opening = _LISTS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    yield opening.removesuffix("\n}") + ",\n" + ROWS_BEGIN.rstrip()
    separator = "\n    "
    for row in spool.rows():
        yield separator + inert(json.dumps(shown(row), ensure_ascii=False))
        separator = ",\n    "
    yield f"\n{ROWS_END}}}\n"


def as_csv(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield a header and one record per file (RFC 4180); unknown values are empty.

    A CSV file has no head, so each record has the run and the category. The digest is also written as lists have it.
    """
    return _csv_lines(CSV_COLUMNS, (_with_head(row, head) for row in spool.rows()))


def _with_head(row: Row, head: dict[str, Any]) -> Row:
    """Return a row with the run and the category of `head`, and the SHA-256 of its checksum, where it has none."""
    digest = (row.get("checksum") or "").removeprefix("sha256:") or None
    return {"run": head.get("run"), "category": head.get("category"), "sha256": digest} | row


def as_links(spool: Spool) -> Iterator[str]:
    """Yield a line for each file on the server: its URL, a tab, its path."""
    return (f"{safe(row['url'])}\t{safe(row['path'])}\n" for row in spool.rows() if row.get("url"))


def stored(spool: Spool) -> Iterator[Row]:
    """Yield the files on the server."""
    return (row for row in spool.rows() if row["outcome"] == "completed" or row.get("reason") in ("present", "receipt"))


def without_digest(spool: Spool) -> int:
    """Return the number of files on the server whose digest is not known."""
    return sum(not row.get("checksum") for row in stored(spool))


def local_path(row: Row) -> str:
    """Return the path as in the file system, with undecodable bytes as `surrogateescape` writes them."""
    raw = row.get("path_b64")
    return base64.b64decode(raw).decode("utf-8", "surrogateescape") if raw else row["path"]


def _csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    writer: Any = csv.writer(SimpleNamespace(write=str), lineterminator="\r\n")  # `writerow` returns what it writes
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([_cell(name, row.get(name)) for name in columns])


def _cell(column: str, value: Any) -> Any:
    """Escape a value that a spreadsheet would take for a formula: a path as `./=a`, other values as `'=a`."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return f"./{value}" if column in _PATHS else f"'{value}"


# --- the list of files to retry ---------------------------------------------------------------------------------------


def as_manifest(path: Path, spool: Spool) -> Iterator[str]:
    """Return the list in the format of the suffix of `path`."""
    entries = map(_entry, _left(spool))
    match path.suffix.lower():
        case ".csv":
            keys = {key: None for row in _left(spool) for key in _own(row)}
            return _csv_lines((*LIST_COLUMNS, *keys), entries)
        case ".jsonl" | ".ndjson":
            return (json_line({name: value for name, value in entry.items() if value}) for entry in entries)
    end = "\0" if needs_nul(path, spool) else "\n"
    return (local_path(row) + end for row in _left(spool))


def needs_nul(path: Path, spool: Spool) -> bool:
    """Return True where plain paths need NUL separators: one has a line break, or begins with U+FEFF."""
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        return False
    names = map(local_path, _left(spool))
    return any("\n" in name or name.endswith("\r") or name.startswith("\ufeff") for name in names)


def _left(spool: Spool) -> Iterator[Row]:
    """Yield the files that another run should send; an invalid line of a list is none."""
    for row in spool.rows():
        unsent = row["outcome"] in ("failed", "cancelled") or row.get("reason") == "fail_fast"
        if unsent and row.get("code") != "bad_line":
            yield row


def _entry(row: Row) -> Row:
    entry = {column: row.get("relative_path" if column == "name" else column) for column in LIST_COLUMNS}
    return entry | _own(row)


def _own(row: Row) -> Row:
    """Return the columns that only some lists have."""
    existing = {"upload_url": row["upload_url"]} if "upload_url" in row else {}
    return existing | (row.get("upload_metadata") or {})

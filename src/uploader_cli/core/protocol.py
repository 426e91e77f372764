"""The wire contract's JSON as values: the one parser of what servers say. Quirks live here.

Nothing here trusts a shape: proxies and the reference backend answer some errors with an empty body or HTML, so a
body is `object` until a function of this module has read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from unicodedata import normalize
from urllib.parse import quote, unquote

from uploader_cli.core.events import AnalysisMessage, FileStatus, SessionProgress, Transport
from uploader_cli.core.names import escaped
from uploader_cli.core.plan import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uploader_cli.core.plan import LocalFile

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Session:
    """An upload session as the server opened it."""

    session_id: str
    category: str
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a batch answer. `name` comes back as it was sent; `location` is the path under `/uploads/`."""

    name: str
    status: str
    server_id: str | None
    location: str | None
    error: str | None
    size: int | None = None
    relative_path: str | None = None
    file_path: str | None = None


def as_object(body: object) -> JsonObject:
    """`body` where it is a JSON object, else an empty one."""
    return body if isinstance(body, dict) else {}


def error_code(body: object) -> str:
    """The server's own error code (`{"error": "CODE"}`), empty where there is none."""
    return text(as_object(body).get("error")) or ""


def error_sentence(body: object) -> str:
    """What the server says to people about an error: message and details, on one line."""
    fields = as_object(body)
    details = fields.get("details")
    if isinstance(details, list):
        details = "; ".join(escaped(str(item)) for item in details)
    parts = [part for part in (text(fields.get("message")), text(details)) if part]
    return " ".join(": ".join(parts).split())


def parse_limits(body: object) -> Limits | None:
    """Limits from a session answer, or from `limits` of `/health`; None where it names none (wire contract 3.12)."""
    fields = as_object(body)
    max_files, max_size = number(fields.get("maxFiles")), number(fields.get("maxFileSize"))
    types = fields.get("allowedTypes")
    if max_files is None or max_size is None or not isinstance(types, list) or max_files < 1:
        return None
    return Limits(
        max_files=int(max_files),
        max_file_size=int(max_size),
        allowed_types=frozenset(str(item).lower().lstrip(".") for item in types),
        mixed_types=fields.get("mixedTypes") is True,
        relative_paths=fields.get("relativePaths") is True,
    )


def parse_session(body: object) -> Session | None:
    """The answer to `POST /api/upload/session`; None where it holds no session id."""
    fields = as_object(body)
    session_id = text(fields.get("sessionId"))
    if not session_id:
        return None
    return Session(session_id, text(fields.get("category")) or "", parse_limits(fields))


def parse_batch(body: object) -> tuple[StoredFile, ...] | None:
    """The files of a batch answer, in its order; None where it is no batch answer.

    `success: true` may hold failed files (wire contract 3.5): look at every `status`.
    """
    files = as_object(body).get("files")
    if not isinstance(files, list):
        return None
    out = []
    for item in files:
        fields = as_object(item)
        size = number(fields.get("fileSize"))
        out.append(
            StoredFile(
                name=text(fields.get("originalName")) or "",
                status=text(fields.get("status")) or "",
                server_id=text(fields.get("id")),
                location=text(fields.get("fileName")),
                error=text(fields.get("errorMessage")) or text(fields.get("errorCode")),
                size=None if size is None else int(size),
                relative_path=text(fields.get("relativePath")),
                file_path=text(fields.get("filePath")),
            )
        )
    return tuple(out)


def parse_progress(body: object, source: Transport) -> SessionProgress | None:
    """An `upload-progress` message or a `/progress` answer; None where it is neither.

    `/progress` of the reference backend leaves `totalProgress` at 0 and doubles `completedFiles` (wire contract 3.6),
    which is why its totals are taken from its files.
    """
    fields = as_object(body)
    session = text(fields.get("sessionId"))
    if not session:
        return None
    listed = fields.get("files")
    current = fields.get("currentFile")
    items = listed if isinstance(listed, list) else [current] if isinstance(current, dict) else []
    files = tuple(status for status in map(_file_status, items) if status is not None)
    polled = isinstance(listed, list)
    percent = number(fields.get("totalProgress"))
    completed = number(fields.get("completedFiles"))
    if polled and files:
        completed = sum(file.status == "completed" for file in files)
        percent = percent or None
    total = number(fields.get("totalFiles"))
    failed = number(fields.get("failedFiles"))
    return SessionProgress(
        session=session,
        source=source,
        timestamp=parse_time(fields.get("timestamp") or fields.get("lastUpdate")),
        status=text(fields.get("overallStatus")),
        percent=percent,
        completed=None if completed is None else int(completed),
        failed=None if failed is None else int(failed),
        total=None if total is None else int(total),
        files=files,
        message=text(fields.get("message")) or "",
    )


def _file_status(item: object) -> FileStatus | None:
    fields = as_object(item)
    name = text(fields.get("relativePath")) or text(fields.get("originalName"))
    if not name:
        return None
    return FileStatus(
        name=name,
        status=text(fields.get("status")) or "",
        percent=number(fields.get("progress")),
        server_id=text(fields.get("id")),
        error=text(fields.get("error")),
    )


MOST_WORDS = 500
"""Characters of a message about an analysis that are kept."""


def parse_analysis(body: object, *, failed: bool = False) -> AnalysisMessage | None:
    """An `analysis:progress` message, or with `failed` an `analysis:error` (wire contract 2); None where it is none."""
    fields = as_object(body)
    percent = number(fields.get("progress"))
    message = " ".join((text(fields.get("message")) or "")[:MOST_WORDS].split())
    if not failed and percent is None and not message:
        return None
    return AnalysisMessage(percent, message, failed=failed)


@dataclass(frozen=True, slots=True)
class AnalysisStatus:
    """How an analysis stands: under way or not, what is told of it, and its result where the server keeps that."""

    running: bool
    message: AnalysisMessage | None
    data: JsonObject | None = None


def parse_analysis_status(body: object) -> AnalysisStatus:
    """The answer to `GET /api/ai/analysis/{id}/status`: the fields of an event, at its top or in `data`, and `status`.

    The bundled server has the result of a completed one in `data`.
    """
    fields = as_object(body)
    data = as_object(fields.get("data"))
    fields = fields if "progress" in fields else data
    status = text(fields.get("status")) or ""
    message = parse_analysis(fields, failed=status in ("failed", "error"))
    result = data if status == "completed" and data and data is not fields else None
    return AnalysisStatus(status in ("running", "processing", "pending"), message, result)


def analysis_data(body: object) -> JsonObject | None:
    """`data` of `{success, data:{analysisId, …, finalReport}}` (wire contract 4); None for any other answer."""
    fields = as_object(body)
    data = fields.get("data")
    return data if fields.get("success") is True and isinstance(data, dict) else None


def parse_time(value: object) -> float | None:
    """An ISO 8601 time as unix seconds, UTC where it names no zone; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def parse_http_date(value: str | None) -> float | None:
    """The date of an HTTP header (RFC 9110, 5.6.7) as unix seconds; None where it is none."""
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):  # a year or a time zone that no integer of C holds
        return None
    return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()


def server_time(headers: Mapping[str, str], body: object) -> tuple[float, float] | None:
    """The server's time as an answer tells it, in unix seconds, and by how many seconds it may be off; None for none.

    `timestamp` of the body, else the header Date, which leaves out the fraction of the second (RFC 9110, 6.6.1).
    """
    stamp = parse_time(as_object(body).get("timestamp"))
    if stamp is not None:
        return stamp, 0.001
    date = parse_http_date(headers.get("Date"))
    return None if date is None else (date + 0.5, 0.5)


def wire_name(name: str) -> str:
    """`name` as it goes into `filename="…"`: plain UTF-8, with quotes and line breaks percent-escaped as browsers do.

    Wire contract 3.13.
    """
    return utf8(name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A"))


def renamed(location: str | None, name: str, session: str) -> str | None:
    """Return the path below the category at `location`, where its last part is not `name`: the server renamed the file.

    Names that the server makes of the id of each session (the reference backend does) are no renaming.
    """
    if not location or location.rpartition("/")[2] == name:  # nearly always: the rest takes longer
        return None
    place = re.split("[?#]", location)[0].partition("/uploads/")[2].partition("/")[2]
    path = unquote(place)
    stored = path.rpartition("/")[2]
    same = any(normalize("NFC", stored) == normalize("NFC", known) for known in (name, utf8(name), wire_name(name)))
    return None if not stored or same or (session and session in stored) else path


def utf8(name: str) -> str:
    """`name` as UTF-8 can carry it: bytes of the file system that are none (surrogate escapes) become `%XX`."""
    if name.isascii():
        return name
    return re.sub("[\udc80-\udcff]", lambda match: quote(match.group().encode("utf-8", "surrogateescape")), name)


def text(value: object) -> str | None:
    """`value` where it is a string, else None. Unpaired surrogates, which no encoding can carry, become escapes."""
    return escaped(value) if isinstance(value, str) else None


def number(value: object) -> float | None:
    """`value` where it is a finite number (true and false are none), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < float("inf") else None


def whole(value: str | None) -> int | None:
    """A header's whole number; None for anything else: `"²".isdigit()` is True, and `int` reads `+1` and `1_0`."""
    value = (value or "").strip()
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 18 else None


def sent_name(file: LocalFile, *, paths: bool) -> str:
    """Return what a batch calls `file`: its path where the server tells paths apart, else its name on the wire."""
    return utf8(file.relative_path) if paths else wire_name(file.name)


def paired(
    files: Sequence[LocalFile], stored: Sequence[StoredFile], *, paths: bool
) -> list[tuple[LocalFile, StoredFile | None]]:
    """Pair each file with its entry in the answer: by name, and by order where names came back changed (3.13)."""
    left, found = list(stored), dict[int, StoredFile]()
    for file in files:
        names = (sent_name(file, paths=paths), wire_name(file.name))
        item = next((item for item in left if (item.relative_path or item.name) in names), None)
        if item is not None:
            left.remove(item)
            found[file.file] = item
    renamed = iter(left if len(stored) == len(files) else ())
    return [(file, found.get(file.file) or next(renamed, None)) for file in files]

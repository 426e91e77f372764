"""Parse the JSON of servers (docs/protocol.md), including the quirks of the reference backend.

No shape is trusted: proxies and the reference backend answer some errors with an empty body or HTML, so a body is
`object` until it is parsed here.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from unicodedata import normalize
from urllib.parse import quote, unquote

from uploader_cli.core.events import FileStatus, SessionProgress, Transport
from uploader_cli.core.names import decoded, escaped
from uploader_cli.core.plan import Limits, LocalFile
from uploader_cli.core.record import Record

JsonObject = dict[str, object]
UPLOADS = "/uploads/"  # the path of stored files (docs/protocol.md section 1)
STORED_FILE = "/api/upload/file/"
"""The path of a stored file before its ID (docs/protocol.md)."""
NOT_YOURS = "NOT_YOURS"
"""Code of a 403 for a session or a file of another client (docs/extensions.md)."""
NAME_TAKEN = "FILE_EXISTS"
"""Code of the failure of a file whose name is taken, with `ifExists` (docs/protocol.md section 1)."""
NOBODY = "00000000-0000-4000-8000-000000000000"
"""An ID that no session, file and upload has: requests for it change nothing."""

MOST_REASON = 300  # most characters of a server's reason
_CODE = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # also of text direction


class Session(Record, frozen=True):
    """An upload session as the server created it; `secret` is what its creator sent (docs/extensions.md).

    `expected` is the number of files for which this client has created it; None for an earlier one.
    """

    session_id: str
    category: str
    limits: Limits | None
    secret: str = ""
    expected: int | None = None

    def __repr__(self) -> str:
        return f"Session({self.session_id!r}, {self.category!r})"


class StoredFile(Record, frozen=True):
    """One file of a batch response. `name` is as it was sent; `location` is the path under `/uploads/`."""

    name: str
    status: str
    server_id: str | None
    location: str | None
    error: str | None
    size: int | None = None
    relative_path: str | None = None
    file_path: str | None = None
    error_code: str | None = None


def as_object(body: object) -> JsonObject:
    """Return `body` if it is a JSON object, else an empty one."""
    return body if isinstance(body, dict) else {}


def error_code(body: object) -> str:
    """Return the server's error code (`{"error": "CODE"}`), or an empty string."""
    code = text(as_object(body).get("error")) or ""
    return code if _CODE.fullmatch(code) else ""


def session_unknown(body: object) -> bool:
    """Return whether a 500 of the reference backend says that it does not know the session (docs/protocol.md, 3.14).

    Its code is that of every failure, and files may be stored after one; only the details differ.
    """
    return error_code(body) == "UPLOAD_FAILED" and as_object(body).get("details") == "会话不存在"


def error_sentence(body: object) -> str:
    """Return the server's reason for an error on one line, at most `MOST_REASON` characters; empty without one.

    It is a JSON string, or message and details of an object: the bundled server's and the reference backend's, problem
    details (RFC 9457), and those where `error` or the first of `errors` is a sentence or an object with a message.
    """
    fields = as_object(body)
    listed = fields.get("errors")
    inner = fields.get("error") or (listed[0] if isinstance(listed, list) and listed else None)
    words = [fields.get("message"), as_object(inner).get("message"), inner, fields.get("title"), body]
    details = fields.get("details") or fields.get("detail")
    if isinstance(details, list):
        details = "; ".join(escaped(str(as_object(item).get("msg") or item)) for item in details)
    said = next((word for word in map(text, words) if word and word != error_code(body)), None)
    return one_line(": ".join(part for part in (said, text(details)) if part))


def one_line(words: str) -> str:
    """Return a server's reason without control characters, at most `MOST_REASON` characters."""
    line = " ".join(_CONTROL.sub(" ", escaped(words)).split())
    return line if len(line) <= MOST_REASON else f"{line[: MOST_REASON - 1]}…"


def parse_limits(body: object) -> Limits | None:
    """Parse the limits in a session response or `/health`; None if there are none (docs/protocol.md section 3.12)."""
    fields = as_object(body)
    max_files, max_size = integer(fields.get("maxFiles")), integer(fields.get("maxFileSize"))
    types = fields.get("allowedTypes")
    if max_files is None or max_size is None or not isinstance(types, list) or max_files < 1:
        return None
    return Limits(
        max_files=max_files,
        max_file_size=max_size,
        allowed_types=frozenset(str(item).lower().lstrip(".") for item in types),
        mixed_types=fields.get("mixedTypes") is True,
        relative_paths=fields.get("relativePaths") is True,
    )


def parse_session(body: object) -> Session | None:
    """Parse the response to `POST /api/upload/session`; None without a session ID."""
    fields = as_object(body)
    session_id = text(fields.get("sessionId"))
    if not session_id:
        return None
    return Session(session_id, text(fields.get("category")) or "", parse_limits(fields))


def parse_batch(body: object) -> tuple[StoredFile, ...] | None:
    """Parse the files of a batch response, in order; None if it is not one.

    `success: true` may contain failed files (docs/protocol.md section 3.5): check every `status`.
    """
    files = as_object(body).get("files")
    if not isinstance(files, list):
        return None
    out = []
    for item in files:
        fields = as_object(item)
        out.append(
            StoredFile(
                name=text(fields.get("originalName")) or "",
                status=text(fields.get("status")) or "",
                server_id=text(fields.get("id")),
                location=text(fields.get("fileName")),
                error=text(fields.get("errorMessage")) or text(fields.get("errorCode")),
                error_code=text(fields.get("errorCode")),
                size=integer(fields.get("fileSize")),
                relative_path=text(fields.get("relativePath")),
                file_path=text(fields.get("filePath")),
            )
        )
    return tuple(out)


def parse_progress(body: object, source: Transport) -> SessionProgress | None:
    """Parse an `upload-progress` message or a `/progress` response; None if it is neither.

    `/progress` of the reference backend leaves `totalProgress` at 0 and doubles `completedFiles` (docs/protocol.md
    section 3.6), so the totals are computed from its files.
    """
    fields = as_object(body)
    session = text(fields.get("sessionId"))
    if not session:
        return None
    listed = fields.get("files")
    items = listed if isinstance(listed, list) else [fields.get("currentFile")]
    files = tuple(status for status in map(_file_status, items) if status is not None)
    percent, completed = number(fields.get("totalProgress")), integer(fields.get("completedFiles"))
    if items is listed and files:
        completed = sum(file.status == "completed" for file in files)
        percent = percent or None
    return SessionProgress(
        session=session,
        source=source,
        timestamp=parse_time(fields.get("timestamp") or fields.get("lastUpdate")),
        status=text(fields.get("overallStatus")),
        percent=percent,
        bytes=integer(fields.get("receivedBytes")),
        size=integer(fields.get("totalBytes")),
        completed=completed,
        failed=integer(fields.get("failedFiles")),
        total=integer(fields.get("totalFiles")),
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
        bytes=integer(fields.get("receivedBytes")),
        size=integer(fields.get("fileSize")),
    )


def parse_time(value: object) -> float | None:
    """Parse an ISO 8601 time into unix seconds, UTC by default; None if invalid."""
    try:
        return _unix(datetime.fromisoformat(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def parse_http_date(value: str | None) -> float | None:
    """Parse the date of an HTTP header (RFC 9110, 5.6.7) into unix seconds; None if invalid."""
    try:
        return _unix(parsedate_to_datetime(value or ""))
    except (ValueError, OverflowError):  # a year or time zone out of range
        return None


def _unix(time: datetime) -> float:
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def server_time(headers: Mapping[str, str], body: object) -> tuple[float, float] | None:
    """Return the server's time in a response, in unix seconds, with its uncertainty in seconds; None without one.

    It is `timestamp` of the body, else the header Date, which has whole seconds (RFC 9110, 6.6.1).
    """
    stamp = parse_time(as_object(body).get("timestamp"))
    if stamp is not None:
        return stamp, 0.001
    date = parse_http_date(headers.get("Date"))
    return None if date is None else (date + 0.5, 0.5)


def location_in(category: str, file_name: str) -> str:
    """Return the URL path of a stored file."""
    return f"{UPLOADS}{category}/{quote(file_name)}"


def sha256_in(repr_digest: str) -> str | None:
    """Return the hex SHA-256 of a `Repr-Digest` header (RFC 9530): None without one, empty if it is invalid."""
    for part in repr_digest.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "sha-256":
            with suppress(ValueError):
                return b64decode(value.strip(": "), validate=True).hex()
            return ""
    return None


def wire_name(name: str) -> str:
    """Return `name` for `filename="…"`: UTF-8, with quotes and line breaks percent-escaped as browsers do.

    See docs/protocol.md section 3.13.
    """
    return utf8(name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A"))


def renamed(location: str | None, name: str, session: str) -> str | None:
    """Return the path below the category at `location` if the server renamed the file `name`, else None.

    Names derived from the session ID, as the reference backend uses, do not count.
    """
    if not location or location.rpartition("/")[2] == name:  # the common case, without parsing
        return None
    place = re.split("[?#]", location)[0].partition("/uploads/")[2].partition("/")[2]
    path = unquote(place)
    stored = path.rpartition("/")[2]
    same = any(normalize("NFC", stored) == normalize("NFC", known) for known in (name, utf8(name), wire_name(name)))
    return None if not stored or same or (session and session in stored) else path


def utf8(name: str) -> str:
    """Return `name` as valid UTF-8: undecodable bytes (surrogate escapes) become `%XX`."""
    if name.isascii():
        return name
    return re.sub(
        "[\udc80-\udcff]", lambda match: quote(match.group().encode("utf-8", "surrogateescape")), decoded(name)
    )


def text(value: object) -> str | None:
    """Return `value` if it is a string, else None. Unpaired surrogates are escaped."""
    return escaped(value) if isinstance(value, str) else None


def number(value: object) -> float | None:
    """Return `value` if it is a finite number (not a boolean), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < float("inf") else None


def integer(value: object) -> int | None:
    """Return `value` as an integer if it is a finite number, else None."""
    found = number(value)
    return None if found is None else int(found)


def whole(value: str | None) -> int | None:
    """Parse a header's whole number; None if invalid, including `²`, `+1` and `1_0`, which `int` accepts."""
    value = (value or "").strip()
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 18 else None


def sent_name(file: LocalFile, *, paths: bool) -> str:
    """Return the name of `file` in a batch: its path if the server uses relative paths, else its name."""
    return utf8(file.relative_path) if paths else wire_name(file.name)


def paired(
    files: Sequence[LocalFile], stored: Sequence[StoredFile], *, paths: bool
) -> list[tuple[LocalFile, StoredFile | None]]:
    """Pair each file with its entry in the response: by name, or by order if the server changed names (3.13)."""
    left, found = list(stored), dict[int, StoredFile]()
    for file in files:
        names = (sent_name(file, paths=paths), wire_name(file.name))
        item = next((item for item in left if (item.relative_path or item.name) in names), None)
        if item is not None:
            left.remove(item)
            found[file.file] = item
    renamed = iter(left if len(stored) == len(files) else ())
    return [(file, found.get(file.file) or next(renamed, None)) for file in files]

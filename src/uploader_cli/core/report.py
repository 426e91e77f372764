"""The content of reports as JSON values: the head, and a row for each file.

The head is computed from the state, rows one by one from events, so that they need no memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase
from uploader_cli.core.names import as_base64, escaped
from uploader_cli.core.protocol import utf8

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uploader_cli.core.incidents import Incident
    from uploader_cli.core.plan import LocalFile, Shard
    from uploader_cli.core.state import ProgressState

FORMAT, VERSION = "uploader-report", 1
_BUG = 1
"""The exit code of a run that ended with an internal error."""
EXIT_WORDS = {
    0: "ok",
    1: "bug",
    2: "usage",
    3: "retry_may_help",
    4: "failed_for_good",
    5: "not_authorised",
    6: "no_server",
    7: "integrity",
    130: "sigint",
    143: "sigterm",
}
"""A word for each exit code. Closed: scripts depend on it."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report says about a run that is not in its state. `started` is in unix seconds.

    `category` is None at a server without categories, `shard` for an unsharded run, `resumed_from` for a new one.
    """

    run: str
    version: str
    started: float
    category: str | None = None
    shard: Shard | None = None
    resumed_from: str | None = None


def report_head(state: ProgressState, facts: RunFacts, finished: float) -> dict[str, Any]:
    """Return the report without its files; `finished` is in unix seconds, times in the report are RFC 3339.

    A state without an outcome is that of a run that ended with an exception.
    """
    outcome = state.outcome
    code = outcome.exit_code if outcome is not None else _BUG
    return {
        "format": FORMAT,
        "v": VERSION,
        "version": facts.version,
        "run": facts.run,
        "resumed_from": facts.resumed_from,
        "server": state.server,
        "protocol": state.protocol,
        "category": facts.category,
        "shard": asdict(facts.shard) if facts.shard is not None else None,
        "started": rfc3339(facts.started),
        "finished": rfc3339(finished),
        "ok": outcome.ok if outcome is not None else False,
        "exit_code": code,
        "exit": EXIT_WORDS.get(code, EXIT_WORDS[_BUG]),
        "counts": {
            "selected": state.selected,
            "completed": state.completed,
            "failed": state.failed,
            "skipped": state.skipped,
            "cancelled": state.cancelled,
        },
        "skips": {str(why): n for why, n in sorted(state.skips.items()) if why is not ev.SkipReason.NOT_TRIED},
        "renamed": state.renamed,
        "bytes": state.completed_bytes,
        "selected_bytes": state.selected_bytes,
        "selection_complete": not state.walking,
        "sessions": state.sessions_done,
        "seconds": outcome.seconds if outcome is not None else None,
        "rate": outcome.rate if outcome is not None else None,
        "channel": asdict(outcome.channel) if outcome is not None else None,
        "peak_rss": outcome.peak_rss if outcome is not None else None,
        "bottleneck": state.bottleneck,
        "metrics": asdict(outcome.metrics) if outcome is not None else None,
        "incidents": {
            "total": state.incidents.total,
            "kept": [_incident(item, facts.started - state.started) for item in state.incidents.kept],
        },
        "trouble": escaped(state.trouble) or None,
        "warnings": [{"code": str(warning.code), "text": escaped(warning.text)} for warning in state.warnings],
    }


def _incident(incident: Incident, origin: float) -> dict[str, Any]:
    """Format an incident; `origin` is the run clock's zero in unix seconds."""
    return {
        "kind": str(incident.kind),
        "ts": rfc3339(origin + incident.began),
        "seconds": None if incident.ended is None else round(incident.ended - incident.began, 3),
        "ending": None if incident.ending is None else str(incident.ending),
        "times": incident.times,
        "text": escaped(incident.text),
    }


def report_document(head: dict[str, Any], rows: Iterable[FileRow]) -> dict[str, Any]:
    """Return a whole report with its files, if they fit into memory."""
    return {**head, "files": [row.as_fields() for row in rows]}


@dataclass(frozen=True, slots=True)
class FileRow:
    """The end of a file: its `outcome` is a terminal phase. Names are those of the event stream.

    `size` is None if unknown, `bytes` is the confirmed part, `attempts` is 0 for a file never tried; `seconds` are from
    the first attempt to the end. `code`, `message` and `retryable` are set for a failure, `reason` for a skip;
    `stored_as` if the server chose another name. `relative_path` is the file's name on the server, None if it was not
    selected to be sent. `category` and `sha256` are from a list, `destination` distinguishes a file that is sent to
    several places.
    """

    file: int
    path: str
    size: int | None
    outcome: Phase
    session: str | None = None
    attempts: int = 0
    bytes: int = 0
    seconds: float = 0.0
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False
    code: ev.FailureCode | None = None
    message: str | None = None
    retryable: bool | None = None
    reason: ev.SkipReason | None = None
    relative_path: str | None = None
    category: str | None = None
    sha256: str | None = None
    destination: str | None = None
    stored_as: str | None = None

    def as_fields(self) -> dict[str, Any]:
        """Return the row as JSON values: unknown ones are omitted, an undecodable path is also given in base64."""
        out: dict[str, Any] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value is None and spec.name != "size":
                continue
            if spec.name == "relative_path":
                value = utf8(value)
            out[spec.name] = escaped(str(value)) if isinstance(value, str) else value
            if spec.name == "path" and (raw := as_base64(value)) is not None:
                out["path_b64"] = raw
        return out


@dataclass(slots=True)
class _UnderWay:
    """The data for the row of a file that has not ended."""

    session: str
    started: float
    attempts: int
    confirmed: int


class Rows:
    """Creates a row for each file that ended. Stores only running files."""

    def __init__(self) -> None:
        self._running: dict[int, _UnderWay] = {}

    def of(self, event: ev.Event, now: float) -> FileRow | None:
        """Return the row that results from an event, if there is one; `now` is the run clock."""
        match event:
            case ev.FileStarted():
                self._started(event, now)
            case ev.FileProgress():
                self._progress(event)
            case ev.FileCompleted():
                return self._completed(event)
            case ev.FileFailed():
                return self._failed(event, now)
            case ev.FileSkipped():
                self._running.pop(event.file, None)
                size, selected = _as_selected(event.local)
                over = Phase.CANCELLED if event.reason is ev.SkipReason.NOT_TRIED else Phase.SKIPPED
                return FileRow(event.file, event.path, size, over, reason=event.reason, **selected)
            case ev.FileCancelled():
                return self._cancelled(event, now)
        return None

    def _started(self, event: ev.FileStarted, now: float) -> None:
        before = self._running.get(event.file)
        started = before.started if before is not None else now
        self._running[event.file] = _UnderWay(event.session, started, event.attempt, event.offset)

    def _progress(self, event: ev.FileProgress) -> None:
        under_way = self._running.get(event.file)
        if under_way is not None:
            under_way.confirmed = event.confirmed

    def _completed(self, event: ev.FileCompleted) -> FileRow:
        under_way = self._running.pop(event.file, None)
        return FileRow(
            event.file,
            event.path,
            event.size,
            Phase.COMPLETED,
            session=(under_way.session or None) if under_way is not None else None,
            attempts=event.attempts,
            bytes=event.size,
            seconds=event.seconds,
            server_id=event.server_id,
            location=event.location,
            checksum=event.checksum,
            verified=event.verified,
            stored_as=event.stored_as,
            **_as_selected(event.local)[1],
        )

    def _failed(self, event: ev.FileFailed, now: float) -> FileRow:
        size, selected = _as_selected(event.local)
        return FileRow(
            event.file,
            event.path,
            size,
            Phase.FAILED,
            code=event.code,
            message=event.message,
            retryable=event.retryable,
            **selected,
            **self._so_far(event.file, now),
        )

    def _cancelled(self, event: ev.FileCancelled, now: float) -> FileRow:
        local = event.local
        size, selected = _as_selected(local)
        return FileRow(local.file, local.path, size, Phase.CANCELLED, **selected, **self._so_far(local.file, now))

    def _so_far(self, file: int, now: float) -> dict[str, Any]:
        under_way = self._running.pop(file, None)
        if under_way is None:
            return {}
        return {
            "session": under_way.session or None,
            "attempts": under_way.attempts,
            "bytes": under_way.confirmed,
            "seconds": round(now - under_way.started, 3),
        }


def _as_selected(local: LocalFile | None) -> tuple[int | None, dict[str, Any]]:
    """Return the size, and the fields about the selection, if the file was selected."""
    if local is None:
        return None, {}
    size = local.size if local.size or local.mtime_ns else None  # see `LocalFile`
    return size, {
        "relative_path": local.relative_path,
        "category": local.category,
        "sha256": local.sha256,
        "destination": local.destination or None,
    }


def rfc3339(at: float) -> str:
    """Format unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

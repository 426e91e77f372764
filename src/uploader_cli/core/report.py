"""What is said of a whole run: the head of every report, and a row for each file. All fit for JSON.

The head follows from the state; rows follow from the events that observers are told of, so that a million of them are
never held.
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
_BROKEN_OFF = 1
"""The exit code of a run that ended by a bug of ours."""
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
"""Exit codes in a word each. Closed: scripts branch on it."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report says of a run and its state does not know. `started` is in unix seconds.

    `category` is None where the server knows none, `shard` where the run was the whole, `resumed_from` where it goes on
    with no other.
    """

    run: str
    version: str
    started: float
    category: str | None = None
    shard: Shard | None = None
    resumed_from: str | None = None


def report_head(state: ProgressState, facts: RunFacts, finished: float) -> dict[str, Any]:
    """The report without its files; `finished` is in unix seconds, times of day in the report are RFC 3339.

    A state without an outcome is that of a run that broke.
    """
    outcome = state.outcome
    code = outcome.exit_code if outcome is not None else _BROKEN_OFF
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
        "exit": EXIT_WORDS.get(code, EXIT_WORDS[_BROKEN_OFF]),
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
    """`origin` is when the run clock was 0, in unix seconds."""
    return {
        "kind": str(incident.kind),
        "ts": rfc3339(origin + incident.began),
        "seconds": None if incident.ended is None else round(incident.ended - incident.began, 3),
        "ending": None if incident.ending is None else str(incident.ending),
        "times": incident.times,
        "text": escaped(incident.text),
    }


def report_document(head: dict[str, Any], rows: Iterable[FileRow]) -> dict[str, Any]:
    """A whole report, for those that are small enough to be held: the head, and `files`."""
    return {**head, "files": [row.as_fields() for row in rows]}


@dataclass(frozen=True, slots=True)
class FileRow:
    """How a file ended: its `outcome` is a terminal phase. Names are those of the event stream.

    `size` is None where it was never known, `bytes` is what the server confirmed of it, `attempts` is 0 where none was
    made; `seconds` are from the first attempt to the end. `code`, `message` and `retryable` are of a failure, `reason`
    of a skip; `stored_as` is set where the server chose another name. `relative_path` is what the server may call the
    file, None where it was never selected to be sent.
    `category` and `sha256` are what a list said of it, `destination` sets it apart from the same file sent elsewhere.
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
        """The row as JSON may carry it: what is unknown is left out, an undecodable path comes in its bytes too."""
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
    """What a row will say of a file that is not over yet."""

    session: str
    started: float
    attempts: int
    confirmed: int


class Rows:
    """Makes a row of each file that is over. Holds what is under way, and nothing else."""

    def __init__(self) -> None:
        self._running: dict[int, _UnderWay] = {}

    def of(self, event: ev.Event, now: float) -> FileRow | None:
        """The row that follows from an event which observers are told of, in their order; `now` is the run clock."""
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
    """The size, and the fields that say how it was to be sent, where the file came as far as being selected."""
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
    """Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

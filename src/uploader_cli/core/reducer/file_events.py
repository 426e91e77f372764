"""Apply events of files: attempts, bytes and ends."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase
from uploader_cli.core.incidents import IncidentEnding, IncidentKind
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import renamed
from uploader_cli.core.rate import SILENCE
from uploader_cli.core.reducer.run_events import Handlers, measure_from, recovered
from uploader_cli.core.state import BRIEF, MOST_KEPT, THERE, FileState, ProgressState

MARKED = 4096  # marks that are dropped together


def _file_started(state: ProgressState, event: ev.FileStarted, now: float) -> list[ev.Event]:
    before = state.running.get(event.file)
    if _is_over(state, event.file) or (before is not None and event.attempt <= before.attempt):
        return []
    file = FileState(
        event.file,
        event.path,
        event.size,
        event.session,
        event.wire_name,
        event.attempt,
        event.offset,
        now if before is None else before.started,
        sent=event.offset,
        confirmed=event.offset,
        packed=event.packed,
    )
    session = state.sessions.get(event.session)
    if before is not None and session is not None:
        file.server_time = session.server_time  # messages of earlier attempts are stale
    file.meter.update(now, event.offset)
    if before is not None:
        file.reached = max(before.reached, before.sent)
    if state.sending is None:
        state.sending = now
    if not state.begun or (before is not None and all(one.phase is Phase.QUEUED for one in state.running.values())):
        state.meter.restart(now)  # neither the search for files nor a wait of all of them is time of the transfer
    state.running[event.file] = file
    state.unstarted.pop(event.file, None)
    if session is not None:
        session.by_name[event.wire_name] = event.file
    state.advanced = now
    return [event]


def _bytes_sent(state: ProgressState, event: ev.BytesSent, now: float) -> list[ev.Event]:
    file = state.running.get(event.file)
    if file is None or event.attempt != file.attempt or file.phase is Phase.QUEUED:
        return []
    more, ends = event.sent - file.sent, event.through and file.phase is Phase.SENDING
    if more <= 0 and not ends:
        return []
    if more > 0:
        _count(state, more, now)
        file.sent = event.sent
        file.meter.update(now, event.sent)
    if ends:
        _begin_processing(state, file, now)
    return [progress_of(file, now)]


def _pack_sent(state: ProgressState, event: ev.PackSent, now: float) -> list[ev.Event]:
    """Count what was sent of a pack in its files, in their order; it is no line of the stream."""
    left, more = event.sent, 0
    for number in event.files:
        file = state.running.get(number)
        if left <= 0 or file is None or file.phase is not Phase.SENDING:
            break
        part = min(file.size or 0, left)
        left -= part
        if part > file.sent:
            more += part - file.sent
            file.sent = part
    _count(state, more, now)
    return []


def _bytes_confirmed(state: ProgressState, event: ev.BytesConfirmed, now: float) -> list[ev.Event]:
    """Raise `confirmed`, and `sent` if the server has more from an earlier attempt."""
    file = state.running.get(event.file)
    if file is None or event.attempt != file.attempt or file.phase is Phase.QUEUED or event.confirmed <= file.confirmed:
        return []
    file.confirmed = event.confirmed
    file.sent = max(file.sent, event.confirmed)
    state.incidents.confirmed()
    return [progress_of(file, now), *_end_retries(state, (event.file,), now)]


def _body_sent(state: ProgressState, event: ev.BodySent, now: float) -> list[ev.Event]:
    out: list[ev.Event] = []
    more = 0
    for number in event.files:
        file = state.running.get(number)
        if file is not None and file.phase is Phase.SENDING:
            _begin_processing(state, file, now)
            if file.packed:  # has no progress events
                more += (file.size or 0) - file.sent
                file.sent = file.size or 0
            else:
                out.append(progress_of(file, now))
    _count(state, more, now)
    return out


def _begin_processing(state: ProgressState, file: FileState, now: float) -> None:
    file.phase, file.processing = Phase.PROCESSING, now
    state.advanced = now


def _count(state: ProgressState, more: int, now: float) -> None:
    """Count sent bytes: once for all files of an event, of which a pack may have hundreds.

    The first ones after a silence are where all rates begin anew.
    """
    if more:
        if state.meter.idle(now) >= SILENCE:
            measure_from(state, now)
        state.sent_total += more
        state.meter.update(now, state.sent_total)
        state.incidents.sent(now)
        state.advanced = now


def _file_retry(state: ProgressState, event: ev.FileRetry, now: float) -> list[ev.Event]:
    file = state.running.get(event.file)
    if file is None or event.attempt <= file.attempt or file.phase is Phase.QUEUED:
        return []
    state.retries += 1
    file.phase, file.reached, file.sent = Phase.QUEUED, max(file.reached, file.sent), file.confirmed
    file.retry_at, file.retry_reason = now + event.delay, event.message
    file.server_percent, file.server_status = None, ""
    state.incidents.retrying.add(event.file)
    recovery = state.incidents.begin(IncidentKind.TRANSFER, now, f"{event.code}: {event.message}")
    return [event, *recovered(state, recovery)]


# --- ends -------------------------------------------------------------------------------------------------------------


def completed(state: ProgressState, event: ev.FileCompleted, now: float) -> list[ev.Event]:
    """Count a stored file, after completing its progress unless it came in a pack."""
    if _is_over(state, event.file):
        return []
    out: list[ev.Event] = []
    file, size = state.running.get(event.file), event.size or 0
    if state.unsized:  # the end of the stream, the only file, is known now
        state.unsized, state.selected_bytes = False, size
        if file is not None:
            file.size = size
    if file is not None and (file.confirmed < size or file.sent < size):
        if file.packed:
            _count(state, size - file.sent, now)
            file.sent = size
        else:
            file.sent = file.confirmed = size
            file.phase = Phase.PROCESSING
            out.append(progress_of(file, now))
    if event.local is not None:
        session = file.session if file is not None else ""
        stored_as = renamed(event.location, event.local.name, session)
        event = replace(event, stored_as=stored_as) if stored_as is not None else event
        if event.stored_as is not None:
            state.renamed += 1
            if len(state.renames) < MOST_KEPT:
                state.renames.append(event)
    state.completed += 1
    state.completed_bytes += size
    state.incidents.confirmed()
    state.verified += event.verified
    state.pace.update(now, state.completed)
    state.measures.file_over(well=True)
    state.advanced = now
    ended = _settle(state, Phase.COMPLETED, event.local, now, bytes=size, **_shared(event))
    return [*out, event, ended, *_end_retries(state, (event.file,), now)]


def failed(state: ProgressState, event: ev.FileFailed, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    state.failed += 1
    known = state.running.get(event.file)
    in_part = known is not None and known.confirmed > 0 and not event.forgotten
    state.refused_in_part += in_part and event.code is ev.FailureCode.SERVER_REFUSED
    state.measures.file_over(well=False)
    state.failed_as[event.code, event.retryable] += 1
    state.last_failures.append(event)
    if len(state.failures) < MOST_KEPT:
        state.failures.append(event)
    state.advanced = now
    ended = _settle(state, Phase.FAILED, event.local, now, stored=event.stored, **_shared(event))
    state.incidents.given_up |= event.file in state.incidents.retrying
    return [event, ended, *_end_retries(state, (event.file,), now)]


def _file_skipped(state: ProgressState, event: ev.FileSkipped, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    phase = Phase.CANCELLED if event.reason is ev.SkipReason.NOT_TRIED else Phase.SKIPPED
    state.cancelled += phase is Phase.CANCELLED
    state.skipped += phase is Phase.SKIPPED
    state.skips[event.reason] += 1
    ended = _settle(state, phase, event.local, now, **_shared(event))
    return [event, ended, *_end_retries(state, (event.file,), now)]


def _files_cancelled(state: ProgressState, event: ev.FilesCancelled, now: float) -> list[ev.Event]:
    out: list[ev.Event] = []
    local = {file.file: file for file in event.local}
    for number in event.files:
        if _is_over(state, number):
            continue
        file = state.running.get(number)
        attempts = file.attempt if file is not None else 0
        if file is not None:
            if file.phase is Phase.QUEUED:
                file.attempt += 1  # it waited for the next one; numbers never fall within an attempt
            file.phase = Phase.CANCELLED
            out.append(progress_of(file, now))
        state.cancelled += 1
        known = local.get(number)
        path = file.path if file is not None else known.path if known is not None else ""
        ended = _settle(state, Phase.CANCELLED, known, now, file=number, path=path, attempts=attempts)
        if known is not None:
            out.append(ended)
    state.incidents.end_retries(event.files, now, IncidentEnding.DEGRADED)
    return out


def _end_retries(state: ProgressState, files: Iterable[int], now: float) -> list[ev.Event]:
    return recovered(state, state.incidents.end_retries(files, now))


def _shared(event: ev.FileCompleted | ev.FileFailed | ev.FileSkipped) -> dict[str, Any]:
    names = _SHARED[type(event)]
    return dict(zip(names, attrgetter(*names)(event), strict=True))


_SHARED = {
    kind: [name for name in kind.__struct_fields__ if name in ev.FileEnded.__struct_fields__]
    for kind in (ev.FileCompleted, ev.FileFailed, ev.FileSkipped)
}
"""The fields that an event shares with the record of the file's end."""


def _settle(
    state: ProgressState,
    outcome: Phase,
    local: LocalFile | None,
    now: float,
    *,
    file: int,
    stored: bool = False,
    **details: Any,
) -> ev.FileEnded:
    """Replace the state of a finished file by its mark and the totals; return its end.

    `stored`: a file that has failed is on the server all the same.
    """
    known, unstarted = state.running.pop(file, None), state.unstarted.pop(file, None)
    size: int | None = details.pop("size", None)
    begun = known if known is not None else unstarted
    counted = size if size is not None else (begun.size if begun is not None else 0) or 0
    _mark(state, file)
    reason = details.get("reason")
    if outcome is Phase.CANCELLED:  # a resumed run sends the rest: the total stays
        kept = known.confirmed if known is not None else 0
        state.settled_bytes += kept
        state.kept_bytes += kept
        state.kept += kept > 0
    elif outcome is Phase.COMPLETED or reason in THERE or stored:
        state.settled_bytes += counted
        state.kept_here += stored
        state.kept_here_bytes += counted if stored else 0
    elif reason is not ev.SkipReason.FAIL_FAST:
        state.lost_bytes += counted
    if known is not None:
        details.setdefault("attempts", known.attempt)
        details.setdefault("bytes", known.confirmed)
        details.setdefault("seconds", round(now - known.started, 3))
        details["session"] = known.session or None
    if local is not None:
        if size is None and (local.size or local.mtime_ns):  # else unknown, see `LocalFile`
            size = local.known_size
        details["relative_path"], details["destination"] = local.relative_path, local.destination or None
        details["category"], details["sha256"] = local.category, local.sha256
        if local.metadata:
            details["upload_metadata"] = dict(local.metadata)
        if local.upload_url:
            details["upload_url"] = local.upload_url
    ended = ev.FileEnded(file=file, outcome=outcome, size=size, **details)
    _count_values(state, ended)
    if known is not None or outcome is Phase.FAILED:
        state.finished.append(ended)
    if begun is not None:
        listed = known is not None and not known.packed and (known.size is None or ended.seconds >= BRIEF)
        state.tree.end(ended, listed=listed)
    return ended


def _count_values(state: ProgressState, ended: ev.FileEnded) -> None:
    """Count the values of the fields that features count."""
    for name, counts in state.counted.items():
        if (value := getattr(ended, name)) is not None:
            counts[value] += 1


def _mark(state: ProgressState, number: int) -> None:
    marks, at = state.marks, number - state.unmarked
    if at >= len(marks):
        marks.extend(bytes(at + 1 - len(marks)))
    marks[at] = 1
    if len(marks) >= 2 * MARKED and 0 not in marks[:MARKED]:
        del marks[:MARKED]
        state.unmarked += MARKED


def _is_over(state: ProgressState, number: int) -> bool:
    at = number - state.unmarked
    return at < 0 or (at < len(state.marks) and state.marks[at] == 1)


def progress_of(file: FileState, now: float) -> ev.FileProgress:
    return ev.FileProgress(
        file=file.file,
        attempt=file.attempt,
        sent=file.sent,
        confirmed=file.confirmed,
        size=file.size,
        rate=round(file.meter.rate(now), 1),
        phase=file.phase,
        server_percent=file.server_percent,
    )


FILE_HANDLERS: Handlers = {
    ev.FileStarted: _file_started,
    ev.BytesSent: _bytes_sent,
    ev.PackSent: _pack_sent,
    ev.BytesConfirmed: _bytes_confirmed,
    ev.BodySent: _body_sent,
    ev.FileRetry: _file_retry,
    ev.FileSkipped: _file_skipped,
    ev.FilesCancelled: _files_cancelled,
    ev.FileCompleted: completed,
    ev.FileFailed: failed,
}

"""The machine of one batch: files in one multipart request (docs/protocol.md, section 3).

    post ─▶ end
      ▲ └─▶ wait, hear, query, find ─┐   where the server may have stored files without an answer
      └──────────────────────────────┘

A server that keeps relative paths is asked for each file by its path: what it does not have is sent again. The
reference backend is asked for the progress of the session. What it does not settle has an unknown outcome, and is sent
again only with `--resend-unknown`: it would be stored twice (section 3.15).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import location_in, paired, parse_batch, utf8, wire_name
from uploader_cli.core.record import Record
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.transfer.protocols.machine import (
    SESSION_ERRORS,
    Again,
    Answered,
    Ask,
    Begin,
    BodyOut,
    Came,
    End,
    Failed,
    Find,
    Form,
    Found,
    GaveUp,
    Hear,
    Heard,
    How,
    Queried,
    Query,
    Renew,
    Renewed,
    Retry,
    Wait,
    Waited,
    Wanted,
)
from uploader_cli.transfer.results import FileResult, failed, not_stored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from uploader_cli.core.events import FileStatus
    from uploader_cli.core.protocol import StoredFile

ANSWERS = tuple((status, "") for status in range(200, 300))
PROCESSING_TIMEOUT = 300.0  # seconds from the last byte to the answer (3.2)
PROCESSING_PER_FILE = 30.0  # seconds more for each file
REQUEST_LIMIT = 300.0  # seconds for a whole request on the reference backend (3.10)
SPLIT_REFUSALS = (400, 413, 415, 422)  # refusals that do not name the file: the request is halved
UNAVAILABLE = 503  # the only 5xx after which nothing was stored
UNTOUCHED = "the request was stopped because of another file in it"
LOOK_EVERY = 1.0  # seconds before files are looked for by path
LOOK_AT_LEAST = 4.0  # most seconds between two queries: the reference backend forgets a session 5 s after its end (3.6)
UNANSWERED_QUERIES = 5  # queries without an answer after which the outcome is unknown
LONGEST = 300  # most queries for one request


class BatchState(Record, frozen=True):
    """All that is known of one batch.

    `files` are those that have no result yet, `results` those of the others. `unsure` are the numbers of files of which
    the journal has that the server may have stored them: it is written when that changes, before what is wanted. Of a
    stored file its receipt says so, and not before. `fetched`: the server was asked for one of these, and may have had
    it before. `error` is that of a request after which the server may have stored its files;
    `suspected`: only if its session has one of them. `queries` counts those since then, `misses` the last ones without
    news.
    """

    endpoint: str
    session: str
    category: str
    files: tuple[LocalFile, ...]
    paths: bool = False
    if_exists: str = ""
    resend_unknown: bool = False
    results: tuple[FileResult, ...] = ()
    unsure: frozenset[int] = frozenset()
    fetched: bool = False
    error: errors.UploaderError | None = None
    suspected: bool = False
    queries: int = 0
    misses: int = 0

    @property
    def progress(self) -> int:
        """Nothing but another session renews its retries: files that are stored do not excuse the others."""
        return 0


def step(state: BatchState, came: Came) -> tuple[BatchState, Wanted]:
    """Return the next state and what is wanted, after what `came`."""
    match came:
        case Answered():
            return _answered(state, came)
        case BodyOut():
            return replace(state, unsure=state.unsure | _numbers(state.files)), _post(state)
        case Failed(error, sent):
            return _failed(state, error, sent=sent)
        case Heard(said):
            return _heard(state, said)
        case Waited() if state.error is not None:
            return state, Find(state.files) if state.paths else Query(state.session)
        case Begin() | Waited():
            return state, _post(state)
        case Queried():
            return _queried(state, came)
        case Found(results):
            return _settled(state, results)
        case Renewed(session) if session:
            state = replace(state, session=session)
            return state, _post(state)
        case Renewed(_, error) | GaveUp(error):
            return state, _given_up(state, error)
    raise TypeError(came)


def _post(state: BatchState) -> Ask:
    fields = [("sessionId", state.session), ("category", state.category)]
    if state.paths:
        fields += [("relativePath", utf8(file.relative_path)) for file in state.files]
    if state.if_exists:
        fields.append(("ifExists", state.if_exists))
    return Ask(
        "POST",
        state.endpoint,
        state.session,
        SESSION_ERRORS,
        body=Form(tuple(fields), state.paths),
        answers=ANSWERS,
        files=state.files,
        timeout=PROCESSING_TIMEOUT + PROCESSING_PER_FILE * len(state.files),
    )


def _answered(state: BatchState, answer: Answered) -> tuple[BatchState, Wanted]:
    stored = parse_batch(answer.body)
    if stored is None:
        error = errors.ProtocolError(f"{state.endpoint} answered {answer.status} without a list of files")
        return _settle(state, error)
    results, refused = list(state.results), list[LocalFile]()
    for file, item in paired(state.files, stored, paths=state.paths):
        results.append(_result(state, file, item))
        if item is not None and results[-1].error is not None:
            refused.append(file)
    return _certain(state, refused), End(tuple(results), fetched=state.fetched)


def _certain(state: BatchState, files: Sequence[LocalFile]) -> BatchState:
    """Return the state in which the server is known not to have `files`."""
    return replace(state, unsure=state.unsure - _numbers(files))


def _numbers(files: Sequence[LocalFile]) -> set[int]:
    return {file.file for file in files}


def _result(state: BatchState, file: LocalFile, item: StoredFile | None) -> FileResult:
    if item is None:
        return FileResult(file, errors.ProtocolError("the server's answer does not mention this file"))
    if item.status != "completed":
        why = item.error or f"its status is {item.status or 'missing'}"
        return not_stored(file, why, item.error_code or "")
    if item.size is not None and item.size != file.size:
        return failed(file, FailureCode.INTEGRITY, f"the server stored {item.size} of {file.size} bytes")
    location = location_in(state.category, item.location) if item.location else None
    return FileResult(file, server_id=item.server_id, location=location, file_path=item.file_path)


def _failed(state: BatchState, error: errors.UploaderError, *, sent: bool) -> tuple[BatchState, Wanted]:
    """Repeat a request after which nothing is stored; find out what is after another one (3.15)."""
    match error:
        case errors.SessionLost():
            return _certain(state, state.files), Renew(state.session, error)
        case errors.FileError():
            return _certain(state, state.files), _given_up(state, error)
        case errors.ConnectionLost():
            doubtful = error.body_sent
        case errors.ServerFault():
            doubtful = sent and error.status != UNAVAILABLE
        case errors.RateLimited() | errors.Unauthorized(status=401):
            doubtful = False  # given before a file is processed
        case errors.AnswerError():
            if sent and not state.paths:
                return _settle(state, error, suspected=True)
            doubtful = False
        case _:
            doubtful = isinstance(error, errors.ProtocolError)
    return _settle(state, error) if doubtful else (_certain(state, state.files), Retry(error))


def _settle(state: BatchState, error: errors.UploaderError, *, suspected: bool = False) -> tuple[BatchState, Wanted]:
    state = replace(state, error=error, suspected=suspected, queries=0, misses=0)
    return state, Wait(LOOK_EVERY) if state.paths else _hear(state)


def _hear(state: BatchState) -> Hear:
    return Hear(state.session, _names(state))


def _names(state: BatchState) -> tuple[str, ...]:
    return tuple(wire_name(file.name) for file in state.files)


def _heard(state: BatchState, said: Sequence[FileStatus | None]) -> tuple[BatchState, Wanted]:
    found = [_reported(file, status) for file, status in zip(state.files, said, strict=True)]
    if state.suspected:
        if not any(one is not None and one.error is None for one in found):
            return state, Query(state.session)
        state = replace(state, suspected=False)
    if None not in found or state.misses >= UNANSWERED_QUERIES or state.queries >= LONGEST:
        return _settled(state, found)
    return state, Wait(LOOK_AT_LEAST)


def _reported(file: LocalFile, status: FileStatus | None) -> FileResult | None:
    if status is not None and status.status == "completed":
        return FileResult(file, server_id=status.server_id)
    if status is not None and status.status == "failed":
        return not_stored(file, status.error)
    return None


def _queried(state: BatchState, came: Queried) -> tuple[BatchState, Wanted]:
    progress = came.progress
    if state.suspected:  # a request that is refused leaves no file of it in the session
        if progress is None or {status.name for status in progress.files}.isdisjoint(_names(state)):
            return _repeat(state, state.files)
        state = replace(state, suspected=False)
    elif came.limited:
        state = replace(state, queries=LONGEST)
    else:
        is_miss = progress is None or progress.status in SERVER_TERMINAL
        state = replace(state, queries=state.queries + 1, misses=state.misses + 1 if is_miss else 0)
    return state, _hear(state)


def _settled(state: BatchState, found: Sequence[FileResult | Literal[False] | None]) -> tuple[BatchState, Wanted]:
    """End the files that need no other request; repeat it for the others."""
    results, certain, left = list(state.results), list[LocalFile](), list[LocalFile]()
    for file, one in zip(state.files, found, strict=True):
        if one is None and not state.resend_unknown:
            words = f"{state.error}; the server may have stored it, or not"
            results.append(FileResult(file, errors.OutcomeUnknown(words)))
            continue
        if not one or one.error is not None:
            certain.append(file)
        if one:
            results.append(one)
        else:
            left.append(file)
    fetched = state.fetched or len(left) < len(state.files)
    return _repeat(replace(state, files=tuple(left), results=tuple(results), fetched=fetched), certain)


def _repeat(state: BatchState, certain: Sequence[LocalFile]) -> tuple[BatchState, Wanted]:
    """Repeat the request for the files that are left, where that can help; the server does not have those `certain`."""
    error, state = state.error, replace(_certain(state, certain), error=None)
    repeats = state.files and error is not None and not isinstance(error, errors.ProtocolError)
    return state, Retry(error) if error is not None and repeats else _given_up(state, error)


def _given_up(state: BatchState, error: errors.UploaderError | None) -> End:
    """Return what becomes of the files of a request that is not repeated."""
    files, again = state.files, tuple[Again, ...]()
    match error:
        case errors.FileError():
            files = tuple(file for file in state.files if file.path == error.path)
            rest = tuple(file for file in state.files if file not in files)
            again = (Again(rest, How.LATER, errors.ConnectionLost(UNTOUCHED)),) if rest else ()
        case errors.TooSlow() if len(files) == 1:
            error = _too_slow(files[0], error)
        case errors.AnswerError() if len(files) > 1 and _is_too_much(error):
            files, again = (), (Again(files, How.HALVED, error),)
    return End((*state.results, *(FileResult(file, error) for file in files)), again, state.fetched)


def _is_too_much(error: errors.AnswerError) -> bool:
    return isinstance(error, errors.TooSlow) or error.status in SPLIT_REFUSALS


def _too_slow(file: LocalFile, error: errors.TooSlow) -> errors.TooSlow:
    """Return a permanent error that names the rate which this file alone needs (3.10)."""
    needed = max(0.01, file.size / REQUEST_LIMIT / 1e6)
    words = f"{error}; {file.size} bytes need {needed:.2f} MB/s to arrive in {REQUEST_LIMIT:.0f} s"
    out = errors.TooSlow(words, status=error.status, error=error.error)
    out.retryable = False
    return out

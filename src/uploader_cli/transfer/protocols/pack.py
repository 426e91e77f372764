"""The machine that sends many small files in one request (docs/extensions.md).

    name ─▶ fetch ⇄ post ─▶ end

Files that were read get a new key unless the journal has one for exactly these. Where the server may have the pack
already, its answer is requested by that key, which costs no bytes; otherwise the pack is sent. A repeated key gets the
same answer, so that nothing is stored twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core import packs
from uploader_cli.core.codes import VerifiedBy
from uploader_cli.core.protocol import NOT_YOURS, error_code, utf8
from uploader_cli.core.record import Record
from uploader_cli.transfer.protocols.machine import (
    SESSION_ERRORS,
    Again,
    Answered,
    Ask,
    Begin,
    Came,
    End,
    Failed,
    GaveUp,
    How,
    Kinds,
    Named,
    NewKey,
    Packed,
    Renew,
    Renewed,
    Retry,
    Waited,
    Wanted,
)
from uploader_cli.transfer.results import FileResult, not_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.packs import PackedFile
    from uploader_cli.core.plan import LocalFile

PACK_TIMEOUT = 30.0  # seconds from a pack's last byte to the answer; later the answer is requested by the pack's key
PACK_ERRORS: Kinds = {
    **SESSION_ERRORS,
    (409, "PACK_IN_PROGRESS"): errors.PackInProgress,
    **dict.fromkeys([(404, ""), (405, ""), (501, "")], errors.PacksRefused),
    (413, ""): errors.TooLarge,
    (422, "KEY_REUSED"): errors.KeyReused,
}
OTHER_SESSION = (NOT_YOURS, "SESSION_ENDED", "SESSION_NOT_FOUND")
KNOWN = ((200, ""), (403, NOT_YOURS), (409, "SESSION_ENDED"), (404, ""))
"""Answers to a request for the answer: it, or that it is not given in this session, or that there is none."""


class PackState(Record, frozen=True):
    """All that is known of one pack: its `files`, which were read, and their `digests` (SHA-256, hex).

    `key` is that of the journal for exactly these files, or empty; with `sent_before` an earlier run may have sent it,
    in one of the sessions `earlier`. `in_doubt`: the server may have the whole request. `asked` are the sessions in
    which its answer was requested since then. `renamed`: another key was chosen because the server has this one for
    other files. `tries` counts earlier refusals of these files, `retries` is the most of them.
    """

    endpoint: str
    session: str
    files: tuple[LocalFile, ...]
    digests: tuple[str, ...]
    key: str = ""
    sent_before: bool = False
    earlier: tuple[str, ...] = ()
    in_doubt: bool = False
    asked: tuple[str, ...] = ()
    renamed: bool = False
    tries: int = 0
    retries: int = 0
    if_exists: str = ""

    @property
    def progress(self) -> int:
        """Another key: its retries count anew."""
        return int(self.renamed)


def begin(state: PackState, places: Sequence[tuple[str, int] | None], *, sent_before: bool) -> PackState:
    """Return `state` with the key of the journal, if its `places` (key, position) are exactly those of the files.

    The places are those of all files of the job, also of files that can't be read. `sent_before`: an earlier run may
    have sent them under the key.
    """
    key = places[0][0] if places[0] is not None else ""
    if not key or list(places) != [(key, index) for index in range(len(state.files))]:
        return state
    return replace(state, key=key, sent_before=sent_before)


def step(state: PackState, came: Came) -> tuple[PackState, Wanted]:
    """Return the next state and what is wanted, after what `came`."""
    match came:
        case Begin():
            return _next(state) if state.key else (state, NewKey())
        case Waited():
            return _next(state)
        case Named(key):
            return _next(replace(state, key=key, sent_before=False, in_doubt=False, asked=()))
        case Renewed(session) if session:
            return _next(replace(state, session=session, asked=()))
        case Renewed(_, error):
            return state, _all(state, error)
        case Answered():
            return _posted(state, came) if _is_posting(state) else _fetched(state, came)
        case Failed(errors.SessionLost() as error):
            return state, Renew(state.session, error)
        case Failed(errors.KeyReused() as error):
            return _rename(state, error)
        case Failed(error, sent):
            lost = isinstance(error, errors.PackInProgress | errors.TimedOut | errors.ConnectionLost)
            state = replace(state, in_doubt=sent, asked=()) if lost and _is_posting(state) else state
            return state, Retry(error)
        case GaveUp(error):
            return state, _given_up(state, error)
    raise TypeError(came)


def _next(state: PackState) -> tuple[PackState, Ask]:
    """Request the answer where the server may have the pack, in each session in turn; else send it."""
    left = _unasked(state)
    if left:
        url = f"{state.endpoint}/{state.key}"
        return state, Ask("GET", url, left[0], PACK_ERRORS, answers=KNOWN, files=state.files)
    entries = (
        (utf8(file.relative_path), file.size, digest, file.mtime_ns // 1_000_000)
        for file, digest in zip(state.files, state.digests, strict=True)
    )
    more = {"ifExists": state.if_exists} if state.if_exists else {}
    return state, Ask(
        "POST",
        state.endpoint,
        state.session,
        PACK_ERRORS,
        headers={"Idempotency-Key": state.key},
        body=Packed(packs.manifest(state.session, entries, **more)),
        files=state.files,
        timeout=PACK_TIMEOUT,
    )


def _unasked(state: PackState) -> tuple[str, ...]:
    if not (state.sent_before or state.in_doubt):
        return ()
    return tuple(one for one in dict.fromkeys([*state.earlier, state.session]) if one not in state.asked)


def _is_posting(state: PackState) -> bool:
    return not _unasked(state)


def _fetched(state: PackState, answer: Answered) -> tuple[PackState, Wanted]:
    if answer.status != 200 and error_code(answer.body) in OTHER_SESSION:
        return _next(replace(state, asked=(*state.asked, _unasked(state)[0])))
    if answer.status == 404:
        return _next(replace(state, sent_before=False, in_doubt=False))
    found = packs.parse_answer(answer.body, len(state.files))
    if found is None:
        return _rename(state, errors.KeyReused(f"{state.endpoint}/{state.key} is a pack of other files", status=200))
    return state, _end(state, found, fetched=True)


def _posted(state: PackState, answer: Answered) -> tuple[PackState, Wanted]:
    found = packs.parse_answer(answer.body, len(state.files))
    if found is None:
        words = f"{state.endpoint} answered {answer.status} without {len(state.files)} files"
        return state, _all(state, errors.ProtocolError(words))
    return state, _end(state, found)


def _rename(state: PackState, error: errors.UploaderError) -> tuple[PackState, Wanted]:
    if state.renamed:
        return state, _all(state, error)
    return replace(state, renamed=True), NewKey(error)


def _all(state: PackState, error: errors.UploaderError) -> End:
    return End(tuple(FileResult(file, error) for file in state.files))


def _given_up(state: PackState, error: errors.UploaderError) -> End:
    """Return what becomes of the files of a request that is not repeated."""
    match error:
        case errors.PackInProgress():
            return _all(state, error)
        case errors.ServerFault() | errors.PacksRefused():
            return End(again=(Again(state.files, How.SINGLY, error),))
        case errors.TooLarge() | errors.TooSlow() | errors.ServerDied() | errors.ConnectionLost(body_sent=False):
            if len(state.files) > 1:
                return End(again=(Again(state.files, How.HALVED, error),))
            if isinstance(error, errors.TooLarge | errors.TooSlow):
                return End(again=(Again(state.files, How.SINGLY, error),))
    return _all(state, error)


def _end(state: PackState, found: list[PackedFile], *, fetched: bool = False) -> End:
    """Return the results; retryable failures, and all failures of an earlier run, are sent in a new pack."""
    results, again, earlier = [], [], state.sent_before
    for file, digest, item in zip(state.files, state.digests, found, strict=True):
        if item.stored:
            results.append(
                FileResult(
                    file,
                    server_id=item.server_id,
                    location=item.location,
                    checksum=digest,
                    verified=True,
                    verified_by=VerifiedBy.SHA256,
                    new=not (earlier or item.existing),
                )
            )
            continue
        result = not_stored(file, item.message or item.error, item.error, retryable=item.retryable)
        if result.error is not None and (earlier or (item.retryable and state.tries < state.retries)):
            again.append(Again((file,), How.LATER, result.error, counts=not earlier))
        else:
            results.append(result)
    return End(tuple(results), tuple(again), fetched)

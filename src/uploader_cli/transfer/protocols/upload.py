"""The machine of one upload: a file, or one part of it, with tus or the IETF's protocol (docs/resumable-uploads.md).

    read ─▶ create ─▶ read ─▶ append ─▶ done
     ▲                 ▲ └───────┘
     └───── locate ────┘      after each failure, and in a later run: it tells the offset of the server
               └─▶ read last   where nothing else tells whether the file is stored

An upload that the server has lost, that somebody else has written to, or that the server failed to store is replaced by
another one, with another key. `core.confirmation` says what an offset means.

`Upload` is all that is known. Its `kept` is what the journal has: it is written when it changes, before what is wanted.
Its driver (`transfer.upload_driver`) also tells its new `warnings`, and reports its `offset` when it becomes known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode, WarningCode
from uploader_cli.core.confirmation import (
    UNCERTAIN,
    UNCLEAR_REFUSALS,
    Ending,
    KnownBy,
    UploadState,
    ending_of,
    refuses,
    takes_no_patch,
    upload_state,
)
from uploader_cli.core.plan import ENDLESS
from uploader_cli.core.record import Record
from uploader_cli.transfer.protocols.machine import (
    Append,
    Begin,
    Came,
    Create,
    Done,
    Failed,
    GaveUp,
    Interim,
    Locate,
    Named,
    NewKey,
    Position,
    Read,
    ReadBack,
    ReadLast,
    Ready,
    Recall,
    Recalled,
    Retry,
    Told,
    Waited,
    Wanted,
)

if TYPE_CHECKING:
    from uploader_cli.core.capabilities import Capabilities
    from uploader_cli.core.terms import Terms

RESTARTS = 3  # new uploads per run after the server has lost one
BREAKS = (errors.ConnectionLost, errors.TimedOut, errors.ServerFault)
"""Errors after which the server may have kept a part of the bytes of a request."""
NOT_STORED = "the answer to its last byte was lost, and the server does not have the file"
TWICE = "the answer to its creation with all bytes was lost, and it is sent again: the server may store it twice"
GONE = "all its bytes were sent, and its upload is gone: it is sent again, and the server may store it twice"
EARLIER = "the server answered an earlier request for its last bytes with an error"
NOT_NEW = "the server may have had its empty upload before (its creation got no 201): it counts as stored"
NO_PATCH_TAKEN = "the server created it, took no request after that, and does not give it out: it counts as stored"
NOT_ENDED = "all bytes arrived and their end was declared, and the server says that the upload is not complete"


# --- the state


class Kept(Record, frozen=True):
    """What the journal has of the upload; the fields are those of `PendingUpload` and `PendingPart`."""

    url: str | None = None
    checked_until: int = 0
    pledged_until: int = 0
    sent_until: int | None = None
    ending: str = Ending.NONE
    server_id: str | None = None


class Task(Record, frozen=True):
    """What does not change: a file, or its part `index`, and what the server offers."""

    terms: Terms
    capabilities: Capabilities
    name: str
    """What warnings call the file."""
    index: int | None = None
    checksum: str | None = None
    """The algorithm of the checksums of chunks."""
    given: bool = False
    """A service created the upload, and gave its URL: there is no other one."""
    stream: bool = False
    far: bool = False
    """The first chunk is sent with the creation where the server finds it by its key: it is distant."""
    resumes: bool = False
    """An earlier run may have sent the key."""
    resends: bool = False
    """A file is sent again that may be stored."""
    elsewhere: bool = False
    """Another process keeps the journal: it needs the URL also of a file in one request."""


class Upload(Record, frozen=True):
    """All that is known of one upload, which has a `key`; another one of the file begins without it (`_named`)."""

    task: Task
    key: str
    size: int

    # what the server was sent
    kept: Kept = Kept()
    url: str | None = None
    checked: int = 0
    """The end of the bytes that checksums verify."""
    pledged: int = 0
    """The end of the chunk being sent where it extends these, else 0: that chunk is stored whole or not at all."""
    reach: int = 0
    """The end of all that was sent: what the server has beyond it is from somebody else."""
    ending: Ending = Ending.NONE
    """How the request ended that would complete the upload."""
    resumed: bool = False
    """An earlier run sent checksums."""
    reason: errors.AnswerError | None = None
    """The error of that request."""
    asked: bool = False
    """The key may have been sent before."""
    accepted: bool = False
    """A creation with all bytes has succeeded, and no bytes were sent after it."""
    continued: bool = False
    """Bytes were sent after a break, and before it."""
    broken: bool = False
    """A request may have ended after some of its bytes."""
    dropped: bool = False
    """The beginning of the stream can't be read again."""

    # what the server has said
    offset: int | None = None
    """The server's offset; None while it is unknown."""
    progress: int = -1
    """The highest offset so far."""
    last: Position | None = None
    deferred: bool = False
    """The server does not know the end."""
    declared: bool = False
    """The server says that the end is declared."""
    unchecked: bool = False
    """Bytes are there that this client has not sent, or no answer confirmed the end."""
    adopted: bool = False
    """The server had the upload before this client created it."""
    known_by: KnownBy = KnownBy.ANSWER
    told_new: bool | None = None
    """The last answer to a creation with bytes said that the upload was new; None before."""
    parts_refused: bool = False
    """The server takes no parts of files."""

    # what is being done
    doing: Wanted | None = None
    """What was wanted last, apart from waits."""
    ready: Ready = Ready(0, 0)
    restarts: int = 0
    """New uploads in place of lost ones."""
    renewed: bool = False
    """One of these replaces an upload that the server failed to store: there is one in a run."""
    twice: bool = False
    """If the server has no byte of the upload, the file may be stored twice."""
    forgets: bool = False
    """The server has refused the file for good, and the journal forgets it."""
    given_up: errors.UploaderError | None = None
    """What the upload ends with, unless the server has the file after all."""
    warnings: tuple[tuple[WarningCode, str], ...] = ()

    @property
    def stored_at_creation(self) -> bool:
        """Whether the creation stores the file, which is empty: no request follows."""
        return self.task.terms.empty_at_creation and not self.size


def begin(state: Upload, kept: Kept) -> Upload:
    """Return the state of an upload of which the journal has `kept`."""
    # without `sent_until` it is not known how far requests went
    reach = 0 if not state.task.resumes else state.size if kept.sent_until is None else kept.sent_until
    ending = Ending(kept.ending)
    if kept.url is not None and ending is Ending.NONE and reach >= state.size > 0 and not state.task.terms.tells_stored:
        ending = Ending.LOST  # the process was killed before the answer to the last byte
    return replace(
        state,
        kept=kept,
        url=kept.url,
        checked=kept.checked_until,
        pledged=kept.pledged_until,
        resumed=kept.checked_until + kept.pledged_until > 0,
        reach=reach,
        continued=reach > 0,
        ending=ending,
        asked=state.task.resumes,
        unchecked=state.task.terms.may_forget,  # a server of the IETF's protocol does not say what it compares
    )


def usable(state: Upload, offset: int) -> int:
    """Return how many of the server's bytes are kept: none of a part that is sent again."""
    return offset if _state_at(state, offset) in (UploadState.OPEN, UploadState.CONFIRMED) else 0


def found(state: Upload, offset: int) -> Upload:
    """Return the state at an offset of the server, which may be lower than before."""
    checked, kept = offset if offset == state.pledged else min(state.checked, offset), state.kept
    if checked != state.checked and (state.task.index is not None or offset < state.size):
        kept = replace(kept, checked_until=checked)
    return replace(state, checked=checked, pledged=0, kept=kept)


# --- the steps


def step(state: Upload, came: Came) -> tuple[Upload, Wanted]:
    """Return the next state and what is wanted, after what `came`."""
    match came:
        case Begin() | Waited():
            return _go_on(state)
        case Ready():
            return _ready(state, came)
        case Interim(url):
            return _announced(replace(state, url=url)), state.doing or Done()
        case Told():
            return _told(state, came)
        case ReadBack(found):
            return _read_back(state, found)
        case Recalled(stored):
            return _recalled(state, stored=stored)
        case Named(key):
            return _named(state, key)
        case Failed(error, accepted=accepted):
            return _failed(state, error, accepted=accepted)
        case GaveUp(error):
            return _given_up(state, error)
    raise TypeError(came)


def _told(state: Upload, came: Told) -> tuple[Upload, Wanted]:
    match state.doing:
        case Create() as create:
            return _created(state, create, came)
        case Append() as chunk:
            return _appended(state, chunk, came)
        case Locate() as locate:
            return _located(state, locate, came.position)
    raise TypeError(state.doing)


def _want(state: Upload, wanted: Wanted) -> tuple[Upload, Wanted]:
    return replace(state, doing=wanted), wanted


def _go_on(state: Upload) -> tuple[Upload, Wanted]:
    """Want what comes next: a creation, the offset, or a chunk."""
    if state.url is None:
        return _want(state, Read(0, creates=True))
    return _want(state, Locate(state.url) if state.offset is None else Read(state.offset, creates=False))


def _retry(state: Upload, error: errors.UploaderError) -> tuple[Upload, Wanted]:
    if state.given_up is not None:
        return state, Done(error=state.given_up)
    return replace(state, offset=None), Retry(error)


def _warned(state: Upload, code: WarningCode, text: str) -> Upload:
    return replace(state, warnings=(*state.warnings, (code, f"{state.task.name}: {text}")))


def _ready(state: Upload, came: Ready) -> tuple[Upload, Wanted]:
    state = replace(state, size=came.size, ready=came, dropped=state.task.stream and bool(state.offset))
    return _create(state) if state.url is None else _append(state, state.url, state.offset or 0)


def _create(state: Upload) -> tuple[Upload, Wanted]:
    """Create an upload, without a body where the key was sent before: the server may know it."""
    again, size = state.asked, _first_length(state)
    if size == state.size and _may_be_stored(state):  # without a URL nothing says how that ended
        if state.restarts or not state.task.resends:
            return _unsure(state, "")
        state = replace(state, restarts=state.restarts + 1)
    # A body without a byte tells @tus/server that an empty file is complete: its S3 store stores it only then.
    has_body = size > 0 or (state.stored_at_creation and state.task.capabilities.creates_with_upload)
    deferred = state.size == ENDLESS
    state = replace(state, asked=True, accepted=state.accepted and not size, deferred=deferred)
    if has_body:
        state = _sends(state, 0, size)
    completes = size == state.size and (size > 0 or state.stored_at_creation)
    length, partial = None if deferred else state.size, state.task.index is not None
    return _want(state, Create(length, size, state.key, has_body, completes, again, partial))


def _first_length(state: Upload) -> int:
    """Return the bytes that are sent with the creation.

    A distant server that knows keys gets the first chunk: it finds an upload whose creation was not answered.
    """
    if state.size < state.task.capabilities.resumes_from:
        return state.size
    if state.asked:
        return 0
    if state.ready.at_creation is not None:
        return state.ready.at_creation
    has_key = state.task.terms.keys and state.task.capabilities.creates_with_upload
    return state.ready.length if state.task.far and has_key and not state.task.stream else 0


def _append(state: Upload, url: str, offset: int) -> tuple[Upload, Wanted]:
    """Send one chunk. The offset is unknown until the answer."""
    size, reach = state.ready.length, state.reach
    state = replace(
        state,
        offset=None,
        continued=state.continued or state.broken,
        accepted=state.accepted and not size,
    )
    state = _sends(state, offset, offset + size)
    length = state.size if state.deferred and state.size != ENDLESS else None
    return _want(state, Append(url, offset, size, length, offset + size == state.size, reach))


def _sends(state: Upload, offset: int, end: int) -> Upload:
    """Record that the bytes from `offset` to `end` are about to be sent.

    No offset tells later whether the only request of an empty file was sent: its answer is recorded as lost.
    """
    checks = (
        state.task.checksum is not None and (end > offset or state.task.stream) and state.task.terms.trusts_checksums
    )
    pledged = end if checks and offset <= state.checked else 0
    reach, kept = max(state.reach, end), state.kept
    known = kept.sent_until
    whole = end - offset == state.size and not state.task.terms.may_forget  # a request with all of it needs no entry
    sent_until = known if whole and known is None else max(reach, known or 0)
    kept = replace(kept, pledged_until=0 if whole else pledged, sent_until=sent_until)
    if end == state.size and kept.ending == Ending.ERROR:  # of an earlier request: this one may succeed
        kept = replace(kept, ending=Ending.NONE)
    if not state.size and not state.task.terms.tells_stored:
        kept = replace(kept, ending=Ending.LOST, url=state.url)
    return replace(state, pledged=pledged, reach=reach, kept=kept)


# --- a new upload


def _created(state: Upload, create: Create, came: Told) -> tuple[Upload, Wanted]:
    position = came.position
    if create.completes:
        state = replace(state, ending=Ending.NONE)
    if not position.url and not came.through:  # nothing can be stored yet, and no upload has what was sent
        return _retry(state, _impossible(position, 0, came.sent))
    if not position.url:  # some servers store an empty or a small file at its creation, without an upload
        return _confirm(replace(state, unchecked=True), position, create.size, done=True)
    keys, offset = state.task.terms.keys, position.offset or 0
    if create.has_body and offset > (came.sent if keys else state.size):
        return _retry(_at_url(state, position.url, came.server_id), _impossible(position, 0, came.sent))
    if create.size and not keys:
        state = replace(state, told_new=position.new and offset <= came.sent)
        if not came.through:  # answered before all bytes were sent: the server may have them already
            state = replace(state, reach=came.sent)
        elif create.size == state.size and not state.told_new:  # so it also answers if it had all before
            state = replace(state, reach=0)
    state = _at_url(_noted(state, position), position.url, came.server_id)
    early = state.reach < create.size
    if early and position.offset is None:
        return _want(state, Locate(position.url, create))
    return _begun(state, create, position, early=early)


def _at_url(state: Upload, url: str, server_id: str | None) -> Upload:
    """Record the URL of a new upload; the journal of this process finds one whose bytes all went with it by its key."""
    create, state = state.doing, replace(state, url=url, broken=False)
    is_sent = isinstance(create, Create) and create.size == state.size <= state.reach
    is_sent = is_sent and state.ready.at_creation is not None
    if state.task.index is None and not state.task.elsewhere and is_sent:
        return state
    return _announced(state, server_id if state.task.index is None else None)


def _announced(state: Upload, server_id: str | None = None) -> Upload:
    """Record the URL of a new upload, also of one whose creation is not answered yet, with its first chunk."""
    reach = state.reach if state.task.terms.may_forget else max(state.reach, state.ready.length)
    return replace(state, kept=_with_url(state, reach, server_id))


def _with_url(state: Upload, reach: int, server_id: str | None = None) -> Kept:
    return replace(state.kept, url=state.url, sent_until=reach, server_id=server_id or state.kept.server_id)


def _begun(state: Upload, create: Create, position: Position, *, early: bool = False) -> tuple[Upload, Wanted]:
    """Begin at the position of an upload that was created, or found by its key."""
    completes, before = create.completes and not early, state.ending
    asks = create.again and before is not Ending.ERROR  # whether the server may have found the first upload by its key
    offset = position.offset if position.offset is not None or create.size or asks else 0
    state = replace(state, accepted=completes, twice=before in UNCERTAIN and state.task.index is None)
    if before is Ending.ERROR and not offset:  # that of a creation that was refused
        state = replace(state, ending=Ending.NONE)
    if offset is None:
        return _want(state, Locate(position.url))
    position, accepted = position._replace(offset=offset), completes or position.complete is True
    if state.stored_at_creation and not (position.new or state.task.terms.keys):
        return _by_creation(_warned(state, WarningCode.UNCONFIRMED, NOT_NEW), position)
    is_there = (
        not (state.deferred or state.task.terms.keys)
        and state.task.index is None
        and state.reach < offset <= state.size
    )
    if not is_there:
        return _settle(state, position, accepted=accepted)
    # Servers that name uploads by their metadata, and not by keys, answer with one that has more bytes than were sent:
    # the rest is sent. The next run must not take its bytes for those of somebody else.
    state = replace(state, reach=offset, unchecked=True, adopted=True)
    state = replace(state, kept=_with_url(state, offset))
    if offset == state.size:
        return _want(state, Recall(position, accepted))
    return _settle(state, position, accepted=accepted)


def _recalled(state: Upload, *, stored: bool) -> tuple[Upload, Wanted]:
    recall = state.doing
    if not isinstance(recall, Recall):
        raise TypeError(recall)
    return _settle(state, recall.position, accepted=stored or recall.accepted)


# --- the answers that tell an offset


def _located(state: Upload, locate: Locate, position: Position) -> tuple[Upload, Wanted]:
    if locate.creation is not None:
        return _begun(state, locate.creation, position, early=True)
    if state.given_up is not None:
        state = _noted(state, position)
        position = position._replace(offset=position.offset or 0)
        if _state_at(state, position.offset or 0) in (UploadState.CONFIRMED, UploadState.UNKNOWN):
            return _settle(state, position)
        return state, Done(error=state.given_up)
    state = _noted(replace(state, deferred=position.headers.get("Upload-Defer-Length") == "1"), position)
    if position.offset is not None and position.length in (None, state.size):
        return _settle(state, position, accepted=state.accepted)
    if state.task.given and position.length not in (None, state.size):
        words = f"its upload was created for {position.length:,} bytes, and it has {state.size:,}: nothing was sent"
        return _retry(state, errors.FileFailure(words, code=FailureCode.SERVER_REFUSED))
    claim = f"offset {position.offset} of {position.length} bytes"
    return _restart(state, errors.ProtocolError(f"{position.url} claims {claim}, which is not what was sent there"))


def _appended(state: Upload, chunk: Append, came: Told) -> tuple[Upload, Wanted]:
    position = came.position
    if chunk.completes:
        state = replace(state, ending=Ending.NONE)
    if came.sent < chunk.size:  # more than what was sent before this answer is from somebody else
        state = replace(state, reach=max(chunk.reach, chunk.offset + came.sent))
    # The end of a stream may be found when all its bytes have been sent.
    least, most = chunk.offset + (chunk.size > 0), chunk.offset + came.sent
    if position.offset is None or not least <= position.offset <= most:
        return _retry(state, _impossible(position, chunk.offset, came.sent))
    state = _noted(replace(state, deferred=state.deferred and chunk.length is None), position)
    if chunk.completes and not chunk.size and state.deferred:  # nothing is left to send: the next request is the same
        return _retry(state, errors.ServerFault(NOT_ENDED, status=500))
    return _confirm(state, position, position.offset, done=position.offset == state.size and not state.deferred)


def _impossible(answer: Position, offset: int, sent: int) -> errors.OffsetConflict:
    """Return the error for an offset that the bytes sent at `offset` can't have led to."""
    return errors.OffsetConflict(f"{sent} bytes at offset {offset} led to offset {answer.offset}", status=204)


def _noted(state: Upload, position: Position) -> Upload:
    """Take what the server says about the end of the upload, where its protocol has words for that."""
    if position.complete is None:
        return state
    state = replace(state, declared=position.complete, deferred=not position.complete)
    if not position.complete and "Upload-Complete" in position.headers:
        return replace(state, ending=Ending.NONE)  # it is said, not assumed
    return state


def _state_at(state: Upload, offset: int, *, accepted: bool = False) -> UploadState:
    return upload_state(
        offset,
        None if state.deferred else state.size,
        state.reach,
        state.ending,
        tells_stored=state.task.terms.tells_stored,
        declared=state.declared,
        accepted=accepted or state.stored_at_creation,
        part=state.task.index is not None,
    )


def _settle(state: Upload, position: Position, *, accepted: bool = False) -> tuple[Upload, Wanted]:
    """Continue from the server's offset, end, or begin another upload.

    `accepted`: the position is in the success of the request that completes the upload.
    """
    offset = position.offset or 0
    means = _state_at(state, offset, accepted=accepted)
    if means is UploadState.INTRUDED and state.task.given and not state.task.resumes and state.progress < 0:
        words = f"{offset:,} bytes of its upload were sent elsewhere: they are not verified"
        state = replace(_warned(state, WarningCode.FOREIGN_BYTES, words), unchecked=True, reach=state.size)
        means = _state_at(state, offset)
    if means is UploadState.INTRUDED:
        there, sent = f"the server has {offset:,} bytes of its upload", f"and {state.reach:,} were sent"
        error = errors.ProtocolError(f"{there}, {sent}: somebody else writes to it")
        state, wanted = _restart(state, error)
        if isinstance(wanted, NewKey):
            state = _warned(state, WarningCode.FOREIGN_BYTES, f"{error}; it is sent again from the beginning")
        return state, wanted
    if means is UploadState.UNKNOWN and state.task.index is None:
        return _want(state, ReadLast(position))
    return _settled(state, position, means)


def _read_back(state: Upload, means: UploadState) -> tuple[Upload, Wanted]:
    reading = state.doing
    if not isinstance(reading, ReadLast):
        raise TypeError(reading)
    if means is UploadState.CONFIRMED:
        state = replace(state, known_by=KnownBy.READING, unchecked=True)
    if means is UploadState.UNKNOWN and reading.refused:
        return _by_creation(_warned(state, WarningCode.UNCONFIRMED, NO_PATCH_TAKEN), reading.position)
    return _settled(state, reading.position, means)


def _settled(state: Upload, position: Position, means: UploadState) -> tuple[Upload, Wanted]:
    if means is UploadState.UNKNOWN and state.task.index is None and (state.renewed or not state.task.resends):
        return replace(state, known_by=KnownBy.NOTHING), Done(position)
    if means in (UploadState.FAILED, UploadState.UNKNOWN):  # a part that may be complete is no file yet
        words = EARLIER if state.ending is Ending.ERROR else NOT_STORED
        return _restart(state, errors.ServerFault(words, status=500), failed=True)
    return _confirm(state, position, position.offset or 0, done=means is UploadState.CONFIRMED)


def _confirm(state: Upload, position: Position, offset: int, *, done: bool) -> tuple[Upload, Wanted]:
    if state.twice and not offset:
        state = _warned(state, WarningCode.MAY_BE_STORED, TWICE)
    progress = max(state.progress, offset)
    state = replace(found(state, offset), offset=offset, progress=progress, last=position, twice=False)
    return (state, Done(position)) if done else _go_on(state)


def _by_creation(state: Upload, position: Position) -> tuple[Upload, Wanted]:
    """End an empty file that only the success of its creation confirms."""
    return _confirm(replace(state, known_by=KnownBy.CREATION, unchecked=True), position, 0, done=True)


def _unsure(state: Upload, url: str) -> tuple[Upload, Wanted]:
    """End an upload of a file that may be stored: its upload, if it had one, is gone."""
    return replace(state, known_by=KnownBy.NOTHING), Done(Position(url, None, {}))


def _may_be_stored(state: Upload) -> bool:
    """Return whether the file of an upload that is gone may be stored."""
    return state.task.terms.may_forget and state.ending in UNCERTAIN


# --- another upload


def _restart(state: Upload, error: errors.UploaderError, *, failed: bool = False) -> tuple[Upload, Wanted]:
    """Replace the upload; fail where that is impossible.

    `failed`: the server has all bytes and did not store them; there is one new upload in a run then.
    """
    error = state.reason if failed and state.reason is not None else error
    if state.task.given:
        words = f"its upload can't be used: {error}; ask the service for a new upload URL"
        return _retry(state, errors.FileFailure(words, code=FailureCode.SERVER_REFUSED))
    if state.dropped:
        words = f"what was sent of it is lost, and it can't be read again: {error}"
        return _retry(state, errors.FileFailure(words, code=error.code))
    if failed and state.renewed:
        return _retry(state, errors.NotFinished(error) if isinstance(error, errors.AnswerError) else error)
    if state.restarts == RESTARTS:
        return _retry(state, error)
    state = replace(
        state,
        restarts=state.restarts + 1,
        renewed=state.renewed or failed,
        asked=failed,
        reason=None,
    )
    return _want(state, NewKey(failed=state.url if failed else None))


def _named(state: Upload, key: str) -> tuple[Upload, Wanted]:
    """Begin another upload. Of the one before it stays what concerns the file, and how often that was tried."""
    replaced = state.doing
    state = Upload(
        state.task,
        key,
        state.size,
        reason=state.reason,
        asked=state.asked,
        dropped=state.dropped,
        unchecked=state.task.terms.may_forget,
        restarts=state.restarts,
        renewed=state.renewed,
        given_up=state.given_up,
        warnings=state.warnings,
    )
    if state.given_up is not None:
        return state, Done(error=state.given_up)
    error = replaced.error if isinstance(replaced, NewKey) else None
    return _go_on(state) if error is None else _retry(state, error)


# --- failures


def _failed(state: Upload, error: errors.UploaderError, *, accepted: bool) -> tuple[Upload, Wanted]:
    """`accepted`: the server has created an upload in this run, so that it accepts the token."""
    state = replace(state, offset=None, twice=False, forgets=False)
    doing = state.doing
    if state.given_up is None:
        match doing:
            case Create() | Append():
                return _not_sent(state, doing, error, accepted=accepted)
            case Locate(url) if isinstance(error, errors.NotFound):
                return _not_found(state, url, error)
    return _retry(state, error)


def _not_sent(
    state: Upload, doing: Create | Append, error: errors.UploaderError, *, accepted: bool
) -> tuple[Upload, Wanted]:
    """Record how a request with content ended, or a creation."""
    before = state.ending
    state = replace(state, broken=state.broken or (doing.size > 0 and isinstance(error, BREAKS)))
    if doing.completes and not state.task.terms.tells_stored:
        # With the URL of an upload, or once the server has created another one, its token was accepted before.
        if state.reach and (accepted or state.url is not None):
            error = refusal(error)
        state = _ended(state, ended(error, before))
        reason = error if isinstance(error, errors.AnswerError) else None
        state = replace(state, reason=reason, forgets=is_refused(state.task.terms, error, given=state.task.given))
        if state.url is None and state.ending is Ending.ERROR and isinstance(error, errors.ServerFault):
            # A creation with all bytes: what follows is the new upload. By its key it would be the failed one.
            return _want(replace(state, renewed=True), NewKey(error))
    if not isinstance(error, errors.AnswerError):
        return _retry(state, error)
    if isinstance(doing, Create) and not accepted and _may_concern_the_file(state, doing, error):
        return _go_on(replace(state, forgets=False))  # without bytes: the key was sent
    if isinstance(doing, Create):
        return _not_created(state, error)
    if before in UNCERTAIN and not doing.size and state.task.terms.may_forget and not error.retryable:
        # A complete upload may be refused its end, and the offset does not tell that.
        state = _ended(state, before)
        return (
            _unsure(state, doing.url)
            if state.renewed or not state.task.resends
            else _restart(state, error, failed=True)
        )
    tells = (
        state.task.terms.tells_stored or state.task.terms.may_forget
    )  # the IETF's protocol would say so in `Upload-Complete`
    if state.size or tells or state.last is None or not takes_no_patch(error.status, str(error)):
        return _retry(state, error)
    # The server has stored the empty file at its creation, or has lost it: that is read. After a kill, too.
    return _want(_ended(state, Ending.GATEWAY), ReadLast(state.last, refused=before not in UNCERTAIN))


def _may_concern_the_file(state: Upload, create: Create, error: errors.AnswerError) -> bool:
    """Return whether a server that has created nothing in this run refuses bytes, and perhaps nothing else."""
    may_be = error.by_server and error.status in UNCLEAR_REFUSALS and not state.task.terms.tells_stored
    return may_be and create.size > 0 and state.size >= state.task.capabilities.resumes_from


def _ended(state: Upload, ending: Ending) -> Upload:
    """Record how a request ended that would complete the upload, also for a file in one request."""
    kept = state.kept if state.url is None else _with_url(state, state.reach)
    return replace(state, ending=ending, kept=replace(kept, ending=ending))


def _not_created(state: Upload, error: errors.AnswerError) -> tuple[Upload, Wanted]:
    if not error.retryable:  # forget also the URL of an upload that the server announced
        state = replace(state, url=None, kept=replace(state.kept, url=None))
    if state.task.index is not None and not state.task.terms.keys and refuses(error.status, by_server=True):
        state = replace(state, parts_refused=True)
    return _retry(state, error)


def _not_found(state: Upload, url: str, error: errors.NotFound) -> tuple[Upload, Wanted]:
    """Begin another upload in place of one that the server does not have, or end."""
    if not isinstance(error, errors.UploadGone):  # perhaps of a proxy, which does not know a wrong URL either
        wrong = state.task.given and not state.reach and state.progress < 0
        return _restart(state, error) if wrong else _retry(state, error)
    # All bytes were sent: servers and their hooks may delete an upload once its file is stored.
    sent, unsure = state.task.index is None and (state.accepted or state.ending in UNCERTAIN), _may_be_stored(state)
    if (sent and state.renewed) or (unsure and not state.task.resends):
        return _unsure(state, url)
    if sent:
        state = _warned(state, WarningCode.MAY_BE_STORED, GONE)
    return _restart(state, error, failed=sent or unsure or state.ending is Ending.ERROR)


def _given_up(state: Upload, error: errors.UploaderError) -> tuple[Upload, Wanted]:
    """Ask once more when no retry is left: an answer that was lost is no failure."""
    doing = state.doing.creation if isinstance(state.doing, Locate) else state.doing
    completes = isinstance(doing, Create | Append) and doing.completes
    if completes and state.url is not None and isinstance(error, errors.ConnectionLost | errors.ServerFault):
        return _want(replace(state, given_up=error), Locate(state.url))
    return state, Done(error=state.given_up or error)


def refusal(error: errors.UploaderError) -> errors.UploaderError:
    """Return the error of a request that would complete an upload, of which the server has accepted bytes.

    Its 403 refuses the file then, as a hook does; the token was good for the requests before. Without `Tus-Resumable` a
    gateway may have given it.
    """
    if not (isinstance(error, errors.Unauthorized) and refuses(error.status, by_server=error.by_server)):
        return error
    refused = errors.AnswerError(str(error), status=error.status, error=error.error)
    refused.by_server = True
    return refused


def ended(error: errors.UploaderError, before: Ending) -> Ending:
    """Return how the request ended that would complete an upload and has failed; `before`: how an earlier one did."""
    if isinstance(error, errors.AnswerError):
        return ending_of(error.status, before, by_server=error.by_server)
    is_lost = isinstance(error, errors.ConnectionLost) and error.body_sent
    return ending_of(None, before, by_server=False) if is_lost else before


def is_refused(terms: Terms, error: errors.UploaderError, *, given: bool) -> bool:
    """Return whether a file is forgotten because of the failure of a request that would complete it.

    Where only such requests tell whether a file is stored, one that the server refuses for good is, unless it has a
    `given` URL, which stays refused.
    """
    if given or terms.tells_stored or error.retryable or not isinstance(error, errors.AnswerError):
        return False
    return refuses(error.status, by_server=error.by_server)

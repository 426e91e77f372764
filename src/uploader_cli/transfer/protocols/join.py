"""The machine that joins the parts of a file once all were sent (tus 1.0, concatenation; docs/resumable-uploads.md).

    create ─▶ locate ─▶ done

The offset is asked for where the answer does not have it. Where no offset tells whether a file is stored, the second
request that may have joined the parts is the last one.

Before the parts are sent, `search` looks for what an earlier run has left:

    locate the file ─▶ locate each part ─▶ create by the key, where all parts are gone ─▶ done
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.confirmation import UNCERTAIN, Ending
from uploader_cli.core.record import Record
from uploader_cli.transfer.protocols.machine import (
    Begin,
    Came,
    Create,
    Done,
    Failed,
    GaveUp,
    Locate,
    Position,
    Retry,
    Told,
    Waited,
    Wanted,
)
from uploader_cli.transfer.protocols.upload import Kept, ended, is_refused, refusal

if TYPE_CHECKING:
    from uploader_cli.core.terms import Terms

JOINED = "the server was asked to join its parts, and no answer tells whether it did: it may have stored the file"
FOUND = "the server answered the joining of its parts with an upload that it may have had before (no 201)"


class Join(Record, frozen=True):
    """All that is known of the upload of `size` bytes that the parts at `urls` (empty: it has none) are joined to.

    `offsets` is what the server has of the first parts, as far as a search has found it, None for one that is gone.
    `kept` is what the journal has of the upload. `unsure` is how the first request ended after which it may be stored,
    `tried` counts those of this run that the server has at least tried to carry out. `progress` is 0 once the
    parts are joined, in a search the number of parts that were asked for. `resends`: a file is sent again that may be
    stored.
    """

    terms: Terms
    size: int
    urls: tuple[str, ...]
    offsets: tuple[int | None, ...] = ()
    kept: Kept = Kept()
    resends: bool = False
    unsure: Ending = Ending.NONE
    tried: int = 0
    progress: int = -1
    forgets: bool = False


def search(state: Join, came: Came) -> tuple[Join, Wanted]:
    """Return the next state of a search and what is wanted, after what `came`.

    It is done at the position of the file; or of an upload of another size, which the server has just created because
    it does not know the key; or at none: then the parts go on from `offsets`. The bundled server finds a file by its
    key once all parts are gone: no request joins parts that are gone (section 7).
    """
    match came:
        case Begin() if state.terms.keys or state.kept.url is None:
            return _look(replace(state, progress=0))
        case Begin() | Waited():
            return _look(state)
        case Told(position) if state.progress < 0:
            return (state, Done(position)) if position.offset == state.size else _look(replace(state, progress=0))
        case Told(position) if len(state.offsets) == len(state.urls):
            return state, Done(position)
        case Told(position):
            return _look(_with_part(state, position.offset))
        case Failed(errors.UploadGone()):
            return _look(replace(state, progress=0) if state.progress < 0 else _with_part(state, None))
        case Failed(error):
            return state, Retry(error)
        case GaveUp(error):
            return state, Done(error=error)
    raise TypeError(came)


def _look(state: Join) -> tuple[Join, Wanted]:
    if state.progress < 0:
        return state, Locate(state.kept.url or "")
    if len(state.offsets) < len(state.urls):
        url = state.urls[len(state.offsets)]
        return (state, Locate(url)) if url else _look(_with_part(state, None))
    is_lost = all(state.urls) and all(offset is None for offset in state.offsets)
    return state, Create(state.size) if state.terms.keys and is_lost else Done()


def _with_part(state: Join, offset: int | None) -> Join:
    return replace(state, progress=state.progress + 1, offsets=(*state.offsets, offset))


def step(state: Join, came: Came) -> tuple[Join, Wanted]:
    """Return the next state and what is wanted, after what `came`."""
    match came:
        case Begin() if Ending(state.kept.ending) in UNCERTAIN:
            state = replace(state, unsure=Ending(state.kept.ending))
            return _go_on(state) if state.resends else (state, Done(error=errors.OutcomeUnknown(JOINED)))
        case Begin() | Waited():
            return _go_on(state)
        case Told(position) if not (position.new or state.terms.tells_stored):
            return state, Done(error=errors.OutcomeUnknown(FOUND))
        case Told(position):
            state = replace(state, progress=0, kept=replace(state.kept, url=position.url))
            return _go_on(state) if position.offset is None else _joined(state, position)
        case Failed(errors.UploadGone()) if state.progress >= 0 and not state.terms.tells_stored:
            # The success of the join has confirmed the file: servers and their hooks may delete its upload then.
            return state, Done(Position(state.kept.url or "", state.size, {}))
        case Failed(error):
            return (state, Retry(error)) if state.progress >= 0 else _failed(state, error)
        case GaveUp(error):
            # the parts may be refused because they were joined before
            refused = isinstance(error, errors.AnswerError) and not error.retryable and state.progress < 0
            refused = refused and not isinstance(error, errors.Unauthorized | errors.SessionCancelled)
            return state, Done(error=errors.OutcomeUnknown(JOINED, after=error) if refused and state.unsure else error)
    raise TypeError(came)


def _go_on(state: Join) -> tuple[Join, Wanted]:
    if state.progress >= 0:
        return state, Locate(state.kept.url or "")
    if not state.terms.tells_stored:  # also for a process that is killed before the answer
        state = replace(state, kept=replace(state.kept, ending=Ending.LOST))
    return state, Create(None, parts=state.urls, completes=True)


def _joined(state: Join, position: Position) -> tuple[Join, Wanted]:
    if position.offset == state.size:
        return state, Done(position)
    words = f"the server has joined its parts to {position.offset or 0:,} bytes, and it has {state.size:,}"
    return state, Done(error=errors.FileFailure(words, code=FailureCode.INTEGRITY))


def _failed(state: Join, error: errors.UploaderError) -> tuple[Join, Wanted]:
    """Repeat the request, or end where two may have joined the parts."""
    if state.terms.tells_stored:
        return state, Retry(error)
    error = refusal(error)
    ending = ended(error, Ending.NONE)
    tried = ending is not Ending.NONE and not (isinstance(error, errors.AnswerError) and error.status < 500)
    unsure = state.unsure or (ending if ending in UNCERTAIN else Ending.NONE)
    state = replace(
        state,
        tried=state.tried + tried,
        unsure=unsure,
        kept=replace(state.kept, ending=unsure),
        forgets=not unsure and is_refused(state.terms, error, given=False),
    )
    if tried and state.tried > 1 and unsure:
        return state, Retry(errors.OutcomeUnknown(JOINED, after=error))
    if tried and state.tried > 1 and isinstance(error, errors.AnswerError):
        return state, Retry(errors.NotFinished(error))
    return state, Retry(error)

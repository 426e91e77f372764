"""When an upload is confirmed (docs/tus-servers.md, "When a file counts as stored").

On the bundled server an offset that equals the length means stored. Other servers finish an upload after its last byte
(hooks, object stores), and report the full offset even where that failed. There a file is confirmed only by a success
of the request that completes it (its last byte, its declared length, the joining of its parts), or by a reading of its
last byte. A client that was killed before the answer, a timeout, a gateway's error and a lost connection are one case.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum, auto

from uploader_cli.core.codes import VerifiedBy

OUTAGES = (502, 503, 504, *range(520, 528))
"""Statuses of a gateway that did not get an answer of its server (RFC 9110, 15.6; from 520 on: Cloudflare)."""
NOTHING_DONE = (401, 408, 423, 425, 429, 460)
"""4xx to a request that was not carried out. (409 may also be the conflict of a file that is complete.)"""
NO_REFUSAL = (*NOTHING_DONE, 404, 409, 410)
"""4xx that concern a token, an upload that is gone, a lock or a limit: the same file may be accepted later."""
TAKES_NO_PATCH = (404, 405, 409, 410)
"""Statuses for the PATCH of an empty file that a server may have stored at its creation. Others refuse the file."""
UNCLEAR_REFUSALS = (403, 404, 405, 410, 501)
"""Statuses of a creation with bytes that refuse the file, or the token, or come from a wrong address."""
INCOMPLETE_UPLOAD = "ERR_INCOMPLETE_UPLOAD"
"""The code of tusd for a file that its store has not got completely."""
COMPLETE_ALREADY = "already complete"
"""The reason that a server may give with another status (resumable-upload: 403)."""


class Ending(StrEnum):
    """How the last request that would complete an upload ended, apart from a success. The journal contains it."""

    NONE = ""  # none was sent, or the process was killed before its answer: a full offset says nothing then
    LOST = "lost"  # it was sent completely, and its answer was lost
    GATEWAY = "gateway"  # a gateway answered in place of the server, or its answer says nothing of an earlier request
    ERROR = "error"  # the server answered with an error


UNCERTAIN = (Ending.LOST, Ending.GATEWAY)
"""Endings of a request that the server may have carried out."""


class Reading(Enum):
    """What `GET` of the last byte of a file says where no answer confirmed its end."""

    STORED = auto()  # the server gives it out, of a file of the right size
    INCOMPLETE = auto()  # the server says that the file is not stored
    MISSING = auto()  # an answer that some servers also give for stored files
    SILENT = auto()  # nothing


class KnownBy(Enum):
    """What tells that a file whose bytes were all sent is stored."""

    ANSWER = auto()  # a success of the request that completes it, or the state of the bundled server
    READING = auto()  # the server gives out its last byte
    CREATION = auto()  # of an empty file: only its creation succeeded, perhaps with an upload that was there before
    NOTHING = auto()  # it may be stored, or not


class UploadState(Enum):
    """What an offset that the server reports means."""

    OPEN = auto()  # bytes are missing, or the end is not declared: continue
    CONFIRMED = auto()  # the file is stored
    UNKNOWN = auto()  # all bytes arrived, and nothing tells whether the file is stored
    FAILED = auto()  # all bytes arrived, and the server failed to store the file
    INTRUDED = auto()  # somebody else has written to the upload


def upload_state(
    offset: int,
    length: int | None,
    sent: int,
    ending: Ending,
    *,
    tells_stored: bool,
    declared: bool = False,
    accepted: bool = False,
    part: bool = False,
) -> UploadState:
    """Return what `offset` (bytes) means for an upload of `length` (None: not declared) of which `sent` were sent.

    `tells_stored`: see `core.terms`. Without that an offset of 0 says nothing about an empty file, unless the server
    has `declared` that the upload is complete, as the IETF's protocol lets it. Where the answer to its empty request
    was lost, a repeated one says nothing either: some servers answer it without storing the file. `accepted`: the
    offset is in the success of the request that completes the upload. For a `part` the request that joins it decides.
    """
    if offset > sent or (length is not None and offset > length):
        return UploadState.INTRUDED
    if length is None or offset < length:
        return UploadState.FAILED if declared else UploadState.OPEN
    if tells_stored or accepted:
        return UploadState.CONFIRMED
    if ending in (Ending.ERROR, Ending.GATEWAY):
        return UploadState.FAILED if ending is Ending.ERROR else UploadState.UNKNOWN
    if part:
        return UploadState.CONFIRMED
    return UploadState.UNKNOWN if length or declared or ending in UNCERTAIN else UploadState.OPEN


def reading_of(status: int, size: int, *, length: int | None, total: int | None, reason: str) -> Reading:
    """Return what the answer to `GET` with `Range: bytes=N-1-` says of a file of `size` bytes (N).

    `length` is its Content-Length and `total` the size in its Content-Range; `reason` are the first words of its body.
    """
    if (status == 200 and length == size) or (status == 206 and total == size):
        return Reading.STORED
    if status == 400 and INCOMPLETE_UPLOAD in reason:
        return Reading.INCOMPLETE
    return Reading.MISSING if status in (404, 410) or status >= 500 else Reading.SILENT


def read_state(readings: Sequence[Reading], *, tells: bool) -> UploadState | None:
    """Return what the readings so far say of an upload with the full offset; None: ask once more.

    `tells`: the server is known to answer so only for files that it has not stored.
    """
    last = readings[-1]
    if last is Reading.MISSING and tells:
        return UploadState.FAILED if len(readings) > 1 else None
    if last is Reading.INCOMPLETE:
        return UploadState.FAILED
    return UploadState.CONFIRMED if last is Reading.STORED else UploadState.UNKNOWN


def takes_no_patch(status: int, reason: str) -> bool:
    """Return whether a server that refuses the empty PATCH of an empty file may have stored it at its creation."""
    return status in TAKES_NO_PATCH or COMPLETE_ALREADY in reason.lower()


def ending_of(status: int | None, before: Ending, *, by_server: bool) -> Ending:
    """Return how a request ended that would complete an upload: with `status`, or None for a lost answer.

    `by_server` is False for an answer without `Tus-Resumable`, which a gateway may have given. A status of
    `NOTHING_DONE` leaves an uncertain ending `before` it unchanged: the earlier request may have completed the upload.
    After such an ending 409 says either that this request has moved the offset, or that a hook refuses the file: only
    the stored bytes can tell, as after the answer of a gateway.
    """
    if status is None:
        return Ending.LOST
    if status == 401 or (status == 403 and not by_server):  # concerns the token
        return before
    if status in OUTAGES and not by_server:
        return Ending.GATEWAY
    if status == 409 and before in UNCERTAIN:
        return Ending.GATEWAY
    return before if status in NOTHING_DONE and before in UNCERTAIN else Ending.ERROR


def verified_by(algorithm: str | None, *, resumed: bool) -> VerifiedBy | None:
    """Return what shows that the bytes arrived if the server compared a checksum of each chunk.

    `algorithm` is that of this run. Of the chunks of a run that was `resumed` it is not known: CRC-32C is the weakest.
    For SHA-1 there is no value.
    """
    if resumed and algorithm != "sha1":
        return VerifiedBy.CRC32C
    return VerifiedBy(algorithm) if algorithm in (VerifiedBy.CRC32C, VerifiedBy.SHA256) else None


def refuses(status: int, *, by_server: bool) -> bool:
    """Return whether `status` refuses the file for good, as an answer to the request that completes its upload."""
    return by_server and 400 <= status < 500 and status not in NO_REFUSAL

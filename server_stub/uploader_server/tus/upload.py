"""The state of tus uploads, and of files whose parts are written in place (docs/extensions.md)."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from uploader_server.http.errors import ApiError
from uploader_server.http.files import repr_digest
from uploader_server.storage.file_state import FileState
from uploader_server.tus.headers import Place, check_length, parse_concat, parse_metadata
from uploader_server.wire import stored_at

OPEN, FINISHED = "open", "finished"  # states of an existing upload; any other state is the reason why it is gone
JOINED = "concatenated"  # state of a part that was joined into a final upload


@dataclass(eq=False)
class Upload:
    """One upload resource (tus 1.0). Sizes in bytes."""

    owner: str
    session: str  # session id, or empty
    category: str
    metadata: str | None  # Upload-Metadata as it was sent
    concat_header: str | None
    length: int | None  # None while deferred (creation-defer-length)
    touched: float  # when it was used last (seconds of `Store.clock`)
    id: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    """The last segment of its URL: the right to write (docs/extensions.md). Only `Location` has it."""
    file_id: str = field(default_factory=lambda: str(uuid.uuid4()))  # the public id
    status: str = OPEN
    holder: str = ""  # the client whose share it belongs to (see `shares`)
    counted: int | None = None  # offset saved in the database row; None: the length of the data file
    completes: bool | None = None
    """IETF protocol: whether the last request declared that its content is the end; None for tus 1.0."""
    path: str | None = None  # path of the finished file below the root; None for a part
    sha256: bytes = b""  # SHA-256 of all bytes; empty if unknown
    data: str = ""  # name of the data file
    place: Place | None = None  # range in a data file shared with other parts; None: it has its own data file
    claimed: int = 0  # bytes it will have at the end of the running request
    offset: int = 0
    writer: asyncio.Future[Any] | None = None  # the request that is sending bytes
    waiting: int = 0  # number of requests waiting for `lock`
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.data = self.data or self.file_id
        fields = self.fields
        self.key = fields.get("uploadKey", "")
        """`uploadKey` of an idempotent creation (docs/resumable-uploads.md), or empty."""
        self.concat = parse_concat(self.concat_header)
        self.is_part = self.concat.kind == "partial"
        name = fields.get("filename") or fields.get("name") or self.file_id
        self.file = FileState(name, fields.get("relativePath") or None, self.length, self.file_id)
        self.file.owner = self.owner
        self.file.may_rename = fields.get("ifExists") != "fail"

    @property
    def fields(self) -> dict[str, str]:
        """The metadata, parsed at each call: kept for all uploads they would need much memory."""
        return parse_metadata(self.metadata or "")

    @property
    def start(self) -> int:
        return 0 if self.place is None else self.place.start

    @property
    def gone(self) -> bool:
        """Whether its URL answers 410."""
        return self.status not in {OPEN, FINISHED}

    @property
    def has_data(self) -> bool:
        """Whether it has a data file: an unfinished upload or an unjoined part."""
        return self.status == OPEN or (self.status == FINISHED and self.path is None)

    @property
    def empty(self) -> bool:
        """Whether it has received nothing and no request uses it."""
        return self.status == OPEN and not self.offset and not self.lock.locked() and not self.waiting

    @property
    def by_ietf(self) -> bool:
        """Whether the IETF protocol created it: then its length alone does not complete it."""
        return self.completes is not None

    @property
    def complete(self) -> bool:
        return self.length == self.offset and self.completes is not False


def stored(upload: Upload) -> dict[str, str]:
    """Return the headers that say which file a finished upload became."""
    if upload.status != FINISHED or upload.path is None:
        return {}
    return {
        "content-location": stored_at(upload.path),
        "upload-file-id": upload.file_id,
        **repr_digest(upload.sha256),
    }


class SharedFile:
    """The data file of all parts of one final upload: each has a range. They share owner and session."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name  # name of the data file
        self.length = length
        self.parts: dict[Upload, Place] = {}  # parts and their ranges, in any order

    @property
    def session(self) -> str:
        return next((part.session for part in self.parts), "")

    def space(self, part: Upload) -> int:
        """Return the maximum bytes of a part: up to the next part, or to the end of the file."""
        starts = [other.start for other in self.parts if other is not part and other.start >= part.start]
        return min([*starts, self.length]) - part.start


class SharedFiles:
    def __init__(self) -> None:
        self._files: dict[tuple[str, str], SharedFile] = {}

    def of(self, upload: Upload) -> SharedFile | None:
        """Return the file of parts with the same owner and `finalKey`, or None."""
        return None if upload.place is None else self._files.get((upload.owner, upload.place.key))

    def check(self, part: Upload, most: int) -> None:
        """Check the range of a new part. Raises ApiError: 409, or 413 for a file of more than `most` bytes."""
        if part.place is None:
            return
        length = part.place.length
        check_length(length, most)
        start, end = _range(part, part.place)
        if start > length or end > length:
            raise _conflict(f"the file ends at byte {length}")
        shared = self.of(part)
        if shared is None:
            return
        if length != shared.length:
            raise _conflict(f"finalLength is {shared.length} in the other parts")
        if shared.session and not part.session:
            raise _conflict("the other parts belong to a session")
        for other, place in shared.parts.items():
            taken, until = _range(other, place)
            if other is not part and start < until and taken < end:
                raise _conflict(f"bytes {taken} to {until} belong to another part")

    def enter(self, part: Upload) -> None:
        if part.place is not None:
            shared = self._files.setdefault((part.owner, part.place.key), SharedFile(part.data, part.place.length))
            part.data = shared.name
            shared.parts[part] = part.place

    def leave(self, upload: Upload) -> bool:
        """Free the range of an upload, if any; return whether its data file can be removed."""
        if upload.place is None:
            return all(shared.name != upload.data for shared in self._files.values())
        shared = self.of(upload)
        if shared is None or upload not in shared.parts:
            return False
        del shared.parts[upload]
        if shared.parts:
            return False
        del self._files[upload.owner, upload.place.key]
        return True

    def joined_by(self, final: Upload, parts: Sequence[Upload]) -> SharedFile | None:
        """Return the shared file of the parts, or None if they have their own data files.

        Raises ApiError 400 unless the parts cover the file in order without gaps.
        """
        if all(part.place is None for part in parts):
            return None
        shared = self._files.get((final.owner, final.key))
        if shared is None or any(part not in shared.parts for part in parts):
            raise _not_in_order("not all have the uploadKey of the final upload as their finalKey, and its owner")
        end = 0
        for number, part in enumerate(parts, 1):
            if part.start != end:
                raise _not_in_order(f"part {number} does not begin at byte {end}")
            end += part.length or 0
        if end != shared.length:
            raise _not_in_order(f"they have {end} of {shared.length} bytes")
        return shared


def _range(part: Upload, place: Place) -> tuple[int, int]:
    """Return first byte and end of a part; a deferred length counts as the bytes received or announced."""
    size = part.length
    if size is None:
        size = max(part.offset, part.claimed, min(1, place.length - place.start))
    return place.start, place.start + size


def _conflict(details: str) -> ApiError:
    return ApiError(409, "RANGE_CONFLICT", "The range of this part is not available", details=details)


def _not_in_order(details: str) -> ApiError:
    return ApiError(400, "PARTS_NOT_IN_ORDER", "These parts can't be joined", details=details)

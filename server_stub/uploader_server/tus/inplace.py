"""Parts written in place (docs/protocol.md, section 7): each part has a range of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError
from uploader_server.tus.headers import check_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_server.tus.headers import Place
    from uploader_server.tus.upload import Upload


class SharedFile:
    """The data file of all parts of one final upload; they share owner and session."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name  # name of the data file
        self.length = length
        self.parts: dict[Upload, Place] = {}  # parts and their ranges, in any order

    @property
    def session(self) -> str:
        """Session id, or empty."""
        return next((part.session for part in self.parts), "")

    def space(self, part: Upload) -> int:
        """Return the maximum bytes of a part: up to the next part, or to the end of the file."""
        starts = [other.start for other in self.parts if other is not part and other.start >= part.start]
        return min([*starts, self.length]) - part.start


class SharedFiles:
    """Shared files by owner and `finalKey`."""

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
                raise _conflict(f"bytes {taken} to {until} belong to {other.id}")

    def enter(self, part: Upload) -> None:
        """Register the range of a part."""
        if part.place is not None:
            shared = self._files.setdefault((part.owner, part.place.key), SharedFile(part.data, part.place.length))
            part.data = shared.name
            shared.parts[part] = part.place

    def leave(self, upload: Upload) -> bool:
        """Free the range of an upload, if any; return whether its data file can be removed."""
        if upload.place is None:
            return upload.data == upload.id
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
        for part in parts:
            if part.start != end:
                raise _not_in_order(f"{part.id} does not begin at byte {end}")
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

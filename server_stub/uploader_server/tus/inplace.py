"""Parts written in place (docs/protocol.md, section 7): each part has a range of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError
from uploader_server.tus.headers import check_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uploader_server.tus.headers import Place
    from uploader_server.tus.upload import Upload


class SharedFile:
    """The data file of all parts of one final upload; they share owner and session."""

    def __init__(self, part: Upload, place: Place) -> None:
        self.length = place.length
        self.name = part.data
        """Name of the data file."""
        self.parts: list[Upload] = []
        """Parts with a range, in any order."""

    @property
    def session(self) -> str:
        """Session id, or empty."""
        return self.parts[0].session if self.parts else ""

    def check(self, part: Upload, place: Place) -> None:
        """Raise ApiError 409 if a new part can't have its range."""
        if place.length != self.length:
            raise _conflict(f"finalLength is {self.length} in the other parts")
        if self.session and not part.session:
            raise _conflict("the other parts belong to a session")
        start, end = _range(part, place)
        for other, others in self._places(part):
            taken, until = _range(other, others)
            if start < until and taken < end:
                raise _conflict(f"bytes {taken} to {until} belong to {other.id}")

    def space(self, part: Upload, place: Place) -> int:
        """Return the maximum bytes of a part: up to the next part, or to the end of the file."""
        starts = [others.start for _, others in self._places(part) if others.start >= place.start]
        return min([*starts, self.length]) - place.start

    def check_join(self, parts: Sequence[Upload]) -> None:
        """Raise ApiError 400 unless the parts cover the file in order without gaps."""
        end = 0
        for part in parts:
            if part.place is None or part.place.start != end:
                raise _not_in_order(f"{part.id} does not begin at byte {end}")
            end += part.length or 0
        if end != self.length:
            raise _not_in_order(f"they have {end} of {self.length} bytes")

    def _places(self, part: Upload) -> Iterator[tuple[Upload, Place]]:
        """Yield the other parts with their ranges."""
        for other in self.parts:
            if other is not part and other.place is not None:
                yield other, other.place


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
        check_length(part.place.length, most)
        start, end = _range(part, part.place)
        if start > part.place.length or end > part.place.length:
            raise _conflict(f"the file ends at byte {part.place.length}")
        shared = self.of(part)
        if shared is not None:
            shared.check(part, part.place)

    def enter(self, part: Upload) -> None:
        """Register the range of a part."""
        if part.place is not None:
            shared = self._files.setdefault((part.owner, part.place.key), SharedFile(part, part.place))
            part.data = shared.name
            if part not in shared.parts:
                shared.parts.append(part)

    def leave(self, upload: Upload) -> bool:
        """Free the range of an upload, if any; return whether its data file can be removed."""
        if upload.place is None:
            return upload.data == upload.id
        shared = self.of(upload)
        if shared is None or upload not in shared.parts:
            return False
        shared.parts.remove(upload)
        if shared.parts:
            return False
        del self._files[upload.owner, upload.place.key]
        return True

    def joined_by(self, final: Upload, parts: Sequence[Upload]) -> SharedFile | None:
        """Return the shared file of the parts, or None if they have their own data files.

        Raises ApiError 400 if they can't be joined in place.
        """
        if all(part.place is None for part in parts):
            return None
        shared = self._files.get((final.owner, final.key))
        if shared is None or any(part not in shared.parts for part in parts):
            raise _not_in_order("not all have the uploadKey of the final upload as their finalKey, and its owner")
        shared.check_join(parts)
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

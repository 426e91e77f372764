"""What the sending of files asks of the journal and notes in it, wherever that is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from itertools import accumulate, count
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from uploader_cli.transfer.journal.reading import PendingPart, PendingUpload, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.reading import Claim, SavedSession
    from uploader_cli.transfer.journal.receipts import Stored

OF_NO_FILE = -1  # the mtime (ns) in the receipt of a file that is gone


class UploadJournal(ABC):
    """The journal of a run, or of a part of it. Thread-safe; what a call notes is kept when it returns."""

    kept_elsewhere = False
    """Whether another process may continue the uploads: it needs each URL, and finds no parts of files."""
    tried_before = False
    """Whether another process may have stored some of the files: the server is asked before they are claimed."""

    @abstractmethod
    def claim(self, files: Sequence[LocalFile], *, pack: bool = False) -> list[Claim]:
        """Take `files`, atomically; return what is known of each.

        NEW and CHANGED have a new `upload_key`, with `pack` a common one with positions. Another file of the same path
        is BUSY. Raise `Interrupted`.
        """

    @abstractmethod
    def change(
        self, files: Sequence[LocalFile], change: Callable[[PendingUpload], PendingUpload], *, begins: bool = True
    ) -> None:
        """Change the uploads of those `files` that are claimed. Raise `Interrupted` where another request `begins`."""

    @abstractmethod
    def put(self, uploads: Iterable[tuple[LocalFile, PendingUpload]]) -> None:
        """Replace the uploads of those files that are claimed."""

    @abstractmethod
    def completed(self, stored: Sequence[Stored]) -> None:
        """Record stored files: receipts replace older ones and uploads."""

    @abstractmethod
    def receipts(self, files: Sequence[LocalFile]) -> list[Stored | None]:
        """Return the newest receipt for each file's size and mtime."""

    @abstractmethod
    def forget(self, files: Sequence[LocalFile], *, receipts: bool = True) -> None:
        """Forget the uploads of files, with `receipts` also the receipts for their size and mtime."""

    @abstractmethod
    def release(self, files: Sequence[LocalFile]) -> None:
        """Take no more notes of files; their uploads stay for the next claim."""

    @abstractmethod
    def session_opened(self, session: str, category: str = "", secret: str = "") -> None:
        """Record an open session, with the secret that its creator needs to write to it."""

    @abstractmethod
    def session_closed(self, session: str, *, failed: bool = False) -> None:
        """Record that a session has ended or is unknown; keep its secret if some of its files `failed`."""

    @abstractmethod
    def sessions(self) -> Mapping[str, SavedSession]:
        """Return sessions by their ids, also of the resumed run, oldest first."""

    def creation(self, file: LocalFile) -> AbstractContextManager[None]:
        """Surround the request that creates an upload of a claimed file, until its URL is noted."""
        del file
        return nullcontext()

    def update(self, file: LocalFile, *, part: int | None = None, **values: Any) -> None:
        """Set fields of the upload of a claimed file, or of its part. A file in one request needs no such call."""

        def change(old: PendingUpload) -> PendingUpload:
            if part is None:
                return replace(old, **values)
            return replace(old, parts=tuple(replace(p, **values) if p.index == part else p for p in old.parts))

        self.change([file], change)

    def uncertain(self, files: Sequence[LocalFile]) -> None:
        self.change(files, lambda old: replace(old, uncertain=True), begins=False)

    def certain(self, files: Sequence[LocalFile]) -> None:
        self.change(files, lambda old: replace(old, uncertain=False), begins=False)

    def consumed(self, stored: Stored) -> None:
        """Record that the local file of a receipt is gone: any file at its path is another one."""
        self.completed([replace(stored, file=replace(stored.file, mtime_ns=OF_NO_FILE))])

    # New keys: each creation but the first needs one before it is sent

    def creating(self, file: LocalFile, session: str | None = None, *, replaced: tuple[str, ...] = ()) -> PendingUpload:
        """Replace the upload of a claimed file by a new one."""
        upload = PendingUpload(session=session, replaced=replaced)
        self.put([(file, upload)])
        return upload

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        starts = accumulate(sizes, initial=0)  # the last is the end
        parts = tuple(PendingPart(n, next(starts), size, new_key()) for n, size in enumerate(sizes))
        self.update(file, parts=parts)
        return parts

    def creating_part(self, file: LocalFile, part: int, *, replaced: tuple[str, ...] = ()) -> str:
        """Replace the upload of a part by a new one and return its key."""
        key = new_key()

        def change(old: PendingUpload) -> PendingUpload:
            new = (PendingPart(p.index, p.offset, p.size, key) if p.index == part else p for p in old.parts)
            return replace(old, parts=tuple(new), replaced=replaced)

        self.change([file], change)
        return key

    def packed(self, files: Sequence[LocalFile]) -> str:
        """Give claimed files of a pack a new key and return it."""
        key = new_key()
        self.put(zip(files, packed_uploads(key), strict=False))
        return key


def packed_uploads(key: str) -> Iterator[PendingUpload]:
    return (PendingUpload(f"{key}:{index}") for index in count())

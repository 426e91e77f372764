"""The journal of a task of an import: in memory, and at a tus endpoint a copy of what the driver keeps."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli.core.presence import ClaimState
from uploader_cli.features.fleet.outcomes import Creating, Journaled
from uploader_cli.features.fleet.run_secret import upload_key
from uploader_cli.transfer.journal.reading import Claim, PendingUpload, new_key
from uploader_cli.transfer.journal.upload_journal import UploadJournal, packed_uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.features.fleet.tasks import TaskInput
    from uploader_cli.transfer.journal.reading import SavedSession
    from uploader_cli.transfer.journal.receipts import Stored


class TaskJournal(UploadJournal):
    """What a task knows of its files.

    At a tus endpoint each note is with the scheduler when its call returns: another worker goes on from there.
    Elsewhere another worker finds uploads by their keys.
    """

    kept_elsewhere = True

    def __init__(
        self,
        task: TaskInput,
        tell: Callable[[Creating | Journaled], None],
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`tell` returns once the scheduler has the news, and raises `Interrupted` where no driver waits for it.

        `turn` surrounds the creation of an upload: a process creates one at a time, so that its death leaves at most
        one whose URL the driver does not know.
        """
        self.tried_before = task.again and task.uploads is None
        self._secret, self._tell, self._turn = task.secret, tell, turn
        self._told = task.uploads is not None
        self._uploads = dict(task.uploads or {})
        self._receipts, self._stored = dict(task.receipts), set[int]()  # files that this task has stored
        self._claimed = set[int]()
        self._mutex = threading.Lock()

    def claim(self, files: Sequence[LocalFile], *, pack: bool = False) -> list[Claim]:
        """Return what is known of each file; the driver lets no other task have it."""
        packed = packed_uploads(new_key()) if pack else None
        with self._mutex:
            return [self._claim(file, packed) for file in files]

    def _claim(self, file: LocalFile, packed: Iterator[PendingUpload] | None) -> Claim:
        number = file.file
        if number in self._stored:
            return Claim(ClaimState.DONE, receipt=self._receipts[number])
        self._claimed.add(number)
        if (known := self._uploads.get(number)) is not None:
            return Claim(ClaimState.UNKNOWN if known.uncertain else ClaimState.RESUME, known)
        new = PendingUpload(upload_key(self._secret, file)) if packed is None else next(packed)
        self._uploads[number] = new
        return Claim(ClaimState.RESUME if self.tried_before and packed is None else ClaimState.NEW, new)

    def change(
        self, files: Sequence[LocalFile], change: Callable[[PendingUpload], PendingUpload], *, begins: bool = True
    ) -> None:
        del begins
        with self._mutex:
            changed = {file.file: change(self._uploads[file.file]) for file in files if file.file in self._claimed}
            self._uploads |= changed
        self._tell_of(changed)

    def put(self, uploads: Iterable[tuple[LocalFile, PendingUpload]]) -> None:
        with self._mutex:
            changed = {file.file: upload for file, upload in uploads if file.file in self._claimed}
            self._uploads |= changed
        self._tell_of(changed)

    def _tell_of(self, changed: Mapping[int, PendingUpload]) -> None:
        if self._told:
            for number, upload in changed.items():
                self._tell(Journaled(number, upload))

    @contextmanager
    def creation(self, file: LocalFile) -> Iterator[None]:
        """Tell that the upload of a file is about to be created, and wait for its turn."""
        if not self._told:
            yield
            return
        with self._turn():
            with self._mutex:
                upload = self._uploads[file.file]
            self._tell(Creating(file.file, upload))
            yield

    def completed(self, stored: Sequence[Stored]) -> None:
        with self._mutex:
            for one in stored:
                self._receipts[one.file.file] = one
                self._stored.add(one.file.file)
                self._drop(one.file)

    def receipts(self, files: Sequence[LocalFile]) -> list[Stored | None]:
        with self._mutex:
            known = [(file, self._receipts.get(file.file)) for file in files]
        return [replace(receipt, file=file) if receipt is not None else None for file, receipt in known]

    def forget(self, files: Sequence[LocalFile], *, receipts: bool = True) -> None:
        with self._mutex:
            for file in files:
                self._drop(file)
                if receipts:
                    self._receipts.pop(file.file, None)
                    self._stored.discard(file.file)

    def release(self, files: Sequence[LocalFile]) -> None:
        with self._mutex:
            self._claimed.difference_update(file.file for file in files)

    def session_opened(self, session: str, category: str = "", secret: str = "") -> None:
        """Do nothing: a task joins no session of another one, and the driver has the event."""

    def session_closed(self, session: str, *, failed: bool = False) -> None:
        """Do nothing."""

    def sessions(self) -> Mapping[str, SavedSession]:
        return {}

    def _drop(self, file: LocalFile) -> None:
        self._claimed.discard(file.file)
        self._uploads.pop(file.file, None)

"""The journal's entry of one upload with tus, and when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core.confirmation import Ending

if TYPE_CHECKING:
    from uploader_cli import errors
    from uploader_cli.transfer.journal import PendingPart
    from uploader_cli.transfer.protocols.tus_state import Tus, TusFileState


class UploadEntry:
    """What the next run would find of the upload of a file, or of its part `index`.

    It has the end of the bytes that checksums verify (`checked`), the end of the chunk being sent
    where it extends them (`pledged`, else 0: that chunk is stored whole or not at all), the end of all that was sent
    (`reach`: what the server has beyond it is from somebody else), and how the request ended that would complete the
    upload (`ending`). `core.confirmation` says when it is complete.
    """

    def __init__(self, state: TusFileState, tus: Tus, known: PendingPart, *, whole: bool) -> None:
        """`known` is the entry so far; `whole`: it is that of the file."""
        self.index = None if whole else known.index
        self.key, self.url = known.upload_key, known.url
        self.checked, self.pledged = known.checked_until, known.pledged_until
        self.ending = Ending(known.ending)
        self.reach = known.reach if state.resumes else 0
        if self.url is not None and self.ending is Ending.NONE and self.reach >= known.size and state.terms.may_forget:
            self.ending = Ending.LOST  # the process was killed before the answer to the last byte
        self._state, self._tus, self._run = state, tus, tus.context.run
        self._written: dict[str, Any] = {"pledged_until": self.pledged, "ending": self.ending}
        self._written["sent_until"] = known.sent_until

    def found(self, offset: int, size: int) -> None:
        """Record the server's offset in an upload of `size` bytes."""
        checked = offset if offset == self.pledged else min(self.checked, offset)
        changed, self.checked, self.pledged = checked != self.checked, checked, 0
        if changed and (self.index is not None or offset < size):
            self._run.update(self._state.file, part=self.index, checked_until=checked)

    def sends(self, offset: int, end: int, size: int, *, checked: bool) -> None:
        """Record that a chunk from `offset` to `end` of `size` bytes is about to be sent, `checked` by its checksum.

        No offset tells later whether the only request of an empty file was sent: its answer is recorded as lost.
        """
        self.pledged = end if checked and offset <= self.checked else 0
        self.reach = max(self.reach, end)
        known = self._written["sent_until"]
        whole = end - offset == size and not self._state.terms.may_forget  # a request with all of it needs no entry
        reach = known if whole and known is None else max(self.reach, known or 0)
        self._write(pledged_until=0 if whole else self.pledged, sent_until=reach)
        if not size and not self._state.terms.tells_stored:
            self._write(ending=Ending.LOST, url=self.url)

    def failed(self, error: errors.UploaderError, *, has_created: bool) -> errors.UploaderError:
        """Record how a request ended that would complete the upload, and return its error.

        With the URL of an upload, or once the server `has_created` another one, its token was accepted before.
        """
        if self.reach and (has_created or self.url is not None):
            error = self._state.refusal(error)
        self.ended(self._state.ended(error, self.ending))
        return error

    def ended(self, ending: Ending) -> None:
        """Record how a request ended that would complete the upload, also for a file in one request."""
        self.ending = ending
        known: dict[str, Any] = {} if self.url is None else {"url": self.url, "sent_until": self.reach}
        self._write(ending=ending, **known)

    def announced(self, url: str, first: int, **more: Any) -> None:
        """Record the URL of a new upload, also of one whose creation is not answered yet, with `first` bytes in it."""
        self.url = url
        reach = self.reach if self._state.terms.may_forget else max(self.reach, first)
        self._write(force=True, sent_until=reach, url=url, **more)

    def created(self, url: str, first: int, *, is_sent: bool) -> None:
        """Record the URL of a new upload; the journal of this process finds one that `is_sent` with it by its key."""
        self.url = url
        if self.index is not None or self._run.kept_elsewhere or not is_sent:
            server_id = self._state.server_id if self.index is None else None
            self.announced(url, first, **({"server_id": server_id} if server_id else {}))

    def adopts(self, offset: int) -> bool:
        """Take over an upload of the file with more bytes than were sent, which a creation was answered with.

        Servers that name uploads by their metadata, and not by keys, answer so. Return whether the file is stored, by a
        receipt. Otherwise the rest is sent, and the file compared with what is stored.
        """
        state = self._state
        if state.terms.keys or self.index is not None or not self.reach < offset <= state.size:
            return False
        self.reach = offset
        self.announced(self.url or "", offset)  # the next run must not take its bytes for those of somebody else
        return state.adopt(offset)

    def refused(self) -> None:
        """Forget the URL of an upload that was not created, also of one that the server announced."""
        self.url = None
        self._write(url=None)

    def renew(self, *, failed: bool) -> None:
        """Record another upload in place of this one, which the server lost or `failed` to store."""
        self.key = self._state.renew(self.index, self.url, failed=failed)
        self.url = None  # without a body its URL is known if it fails, too
        self.checked = self.pledged = self.reach = 0
        self.ending = Ending.NONE
        self._written = {"pledged_until": 0, "ending": Ending.NONE, "sent_until": None}

    def _write(self, *, force: bool = False, **values: Any) -> None:
        """Write those fields that differ from the journal's; all with `force`."""
        changed = {name: value for name, value in values.items() if force or self._written.get(name) != value}
        if changed:
            self._written |= changed
            self._run.update(self._state.file, part=self.index, **changed)

"""The progress of one file that travels as several parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli import errors
    from uploader_cli.transfer.tus_types import Watch


class PartsProgress:
    """The sums over the parts. Lives in one thread."""

    def __init__(self, size: int, confirmed: Sequence[int], checked: Sequence[int], watch: Watch) -> None:
        """`confirmed` and `checked` are the bytes of each part that the server has, and has compared, before."""
        self.size, self.watch = size, watch
        self.attempt = 0
        self._confirmed, self._checked, self._sent = list(confirmed), list(checked), list(confirmed)
        self._told_confirmed = self._told_sent = 0

    def begin(self) -> None:
        """A new attempt, from what the server is known to have."""
        self.attempt += 1
        self._told_confirmed = self._told_sent = sum(self._confirmed)
        self.watch.attempt(self._told_confirmed, self.attempt)

    def confirmed(self, index: int, offset: int, checked: int) -> None:
        """The server has so many bytes of a part. A sum that would fall is told when it has risen again."""
        self._confirmed[index], self._checked[index] = offset, checked
        self._sent[index] = max(self._sent[index], offset)
        self._told_confirmed = max(self._told_confirmed, sum(self._confirmed))
        self.watch.confirmed(self._told_confirmed, sum(self._checked))

    def sent(self, index: int, total: int) -> None:
        """So many bytes of a part have left this machine."""
        self._sent[index] = total
        if sum(self._sent) > self._told_sent:
            self._told_sent = sum(self._sent)
            self.watch.sent(self._told_sent)

    def joined(self, url: str) -> None:
        """The server has made one upload of them."""
        self.watch.created(url)
        self._told_confirmed = self.size
        self.watch.confirmed(self.size, sum(self._checked))

    def retry(self, index: int, error: errors.UploaderError, delay: float) -> None:
        """A part is tried again."""
        self._sent[index] = self._confirmed[index]
        self.again(error, delay)

    def again(self, error: errors.UploaderError, delay: float) -> None:
        """The file is tried again: what the others send meanwhile belongs to that attempt."""
        self.watch.retry(error, delay, self.attempt + 1)
        self.begin()

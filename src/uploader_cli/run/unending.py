"""What a feature sends in a run without an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from uploader_cli.core.events import Event
from uploader_cli.selection.walk import Step

if TYPE_CHECKING:
    from uploader_cli.transfer.journal.run_handle import RunHandle


class Unending(Protocol):
    """It is made with the settings and the PATHs; that raises `UsageError`."""

    def __iter__(self) -> Iterator[Step]:
        """Yield the files, and None now and then: the run can end there. It is called in another thread.

        Emit `CaughtUp` each time that all files that are there were found.
        """

    def begin(self, run: RunHandle, emit: Callable[[Event], None]) -> None:
        """Take the journal of the run and what emits its events, before the first file is yielded."""

    def listen(self, events: Sequence[Event]) -> None:
        """Process the events of a frame: what becomes of the files."""

    def close(self) -> None:
        """Release what was opened, at the end of the run."""

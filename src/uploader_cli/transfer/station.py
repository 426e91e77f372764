"""What a station is; `stations` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.results import FileResult
    from uploader_cli.transfer.upload_session import UploadSession


class Carrier(NamedTuple):
    """Who takes results through the stations: a thread's connection, and the session in which it has sent the files.

    Without a session they were not sent.
    """

    api: Api
    session: UploadSession | None = None


class Station:
    """A station overrides what it has to do with: `admit`, `take`, or what follows from keeping results."""

    go_on: Callable[[Carrier, Sequence[FileResult], Station], object]
    """Takes results that it has kept through the stations after it, the third argument; `Stations` sets it."""
    one_by_one = False
    """Whether it takes one result at a time, which has passed the later stations before the next one."""

    def admit(self, file: LocalFile) -> LocalFile:
        """Return the file as it is sent, before anything of it is read."""
        return file

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Return the results for the next station, without those that are kept. Raise what ends the run.

        Any thread calls this. A result with an error is returned as it is.
        """
        del carrier
        return results

    @property
    def kept(self) -> int:
        """The number of results that it keeps: they go on later, from a thread of its own."""
        return 0

    def check(self) -> None:
        """Raise what has ended that thread."""

    def shut(self) -> None:
        """End a request of that thread, from another one."""

    def close(self) -> None:
        """Let no kept result go on, and end that thread."""

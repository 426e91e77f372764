"""Read the last byte of a file whose end no answer confirmed (docs/tus-servers.md, "When a file counts as stored")."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli.core.codes import WarningCode
from uploader_cli.core.confirmation import Reading, UploadState, read_state
from uploader_cli.core.protocol import utf8

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.protocols.machine import Position
    from uploader_cli.transfer.upload_calls import UploadCalls

READ = (
    "no answer confirmed its end, and the server gives it out with its size: it counts as stored; --verify reads it all"
)
ASK_AGAIN = 1.0  # seconds between two readings


class Readings:
    """What readings say at one server. The threads of a run share it.

    404, 410 and 5xx say that a file is not stored only where stored files are known to be readable: as the terms say,
    or because the same request has succeeded for a file of this run that a success had confirmed. Some servers can't
    give out files whose names are not ASCII.
    """

    def __init__(self, warn: Callable[[WarningCode, str], None], *, known: bool) -> None:
        """`known`: the server gives out stored files, and no others."""
        self._warn, self._tells = warn, known
        self._confirmed: tuple[Position, int] | None = None  # upload and bytes of a file that an answer has confirmed

    def confirmed(self, file: LocalFile, position: Position, size: int) -> None:
        """Note a file that a success has confirmed."""
        if position.url and size and not self._tells and utf8(file.relative_path).isascii():
            self._confirmed = position, size

    def state(
        self, client: UploadCalls, file: LocalFile, position: Position, size: int, sleep: Callable[[float], None]
    ) -> UploadState:
        """Return whether a file is stored whose upload has the full offset. Raise as `UploadCalls.read_last` does.

        A warning names a file that is confirmed so.
        """
        url = stored_url(position)
        first = client.read_last(url, size)
        tells = first is Reading.MISSING and self._tells_missing(client, file)
        found = read_state([first], tells=tells)
        if found is None:
            sleep(ASK_AGAIN)
            found = read_state([first, client.read_last(url, size)], tells=tells)
        if found is UploadState.CONFIRMED:
            self._warn(WarningCode.UNCONFIRMED, f"{utf8(file.path)}: {READ}")
        return found or UploadState.UNKNOWN

    def _tells_missing(self, client: UploadCalls, file: LocalFile) -> bool:
        if not utf8(file.relative_path).isascii():
            return False
        if not self._tells and self._confirmed is not None:
            position, size = self._confirmed
            self._tells = client.read_last(stored_url(position), size) is Reading.STORED
        return self._tells


def stored_url(position: Position) -> str:
    """Return the URL at which a tus endpoint gives out the file of an upload."""
    location = position.headers.get("Content-Location")
    return urljoin(position.url, location) if location else position.url

"""Find out whether a tus server compares the checksums that it announces (docs/tus-servers.md, "Checksums")."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import checksum_header
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.confirmation import NOTHING_DONE, OUTAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTH = 4 << 10
"""Most bytes of the chunk that is sent with a wrong checksum."""
REFUSALS = (400, 422, 460)
"""Statuses that refuse it; tus 1.0 has 460."""
NO_VERDICT = (*NOTHING_DONE, *OUTAGES, 507)
"""Other statuses that say nothing about the checksum: the request is repeated."""
IGNORED = "the server announces checksums and compares none (it accepted a wrong one): they verify no file"
UNCLEAR = "the server answered {} to a wrong checksum, not 460: checksums verify no file"


class ChecksumProof:
    """One wrong checksum, with the first chunk of a run, shows it: a server that compares it refuses the chunk.

    The chunk is right, so a server that accepts it has stored nothing wrong.
    """

    def __init__(self, warn: Callable[[WarningCode, str], None], *, needed: bool) -> None:
        """`needed`: the server is not known; else its checksums count."""
        self.needed, self.ignored = needed, False
        self._warn, self._lock = warn, threading.Lock()

    @property
    def holds(self) -> bool:
        """Whether the checksums of chunks verify a file."""
        return not (self.needed or self.ignored)

    @contextmanager
    def turn(self, *, sends_checksums: bool) -> Iterator[bool]:
        """Yield whether the chunk that is sent within needs a wrong checksum; others wait for its end."""
        if not (self.needed and sends_checksums):
            yield False
            return
        with self._lock:
            yield self.needed

    def accepted(self) -> None:
        """Note that the server took the wrong checksum."""
        self._give_up(IGNORED)

    def refused(self, error: errors.AnswerError) -> bool:
        """Return whether `error` is the answer to the wrong checksum, so that no other is sent.

        Only one of `REFUSALS` shows that the server compares checksums.
        """
        if error.status in REFUSALS:
            self.needed = False
        elif not (error.status in NO_VERDICT or error.outage or isinstance(error, errors.PatchBlocked)):
            self._give_up(UNCLEAR.format(error.status))
        return not self.needed

    def _give_up(self, why: str) -> None:
        self.needed, self.ignored = False, True
        self._warn(WarningCode.UNVERIFIABLE, why)


def wrong(header: str) -> str:
    """Return a checksum header of the same form for other bytes."""
    algorithm, _, digest = header.partition(" ")
    return checksum_header(algorithm, bytes(255 - byte for byte in base64.b64decode(digest)))

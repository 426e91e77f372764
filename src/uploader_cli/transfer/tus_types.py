"""What a tus upload is given, tells and brings back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.transfer.limiter import unlimited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli import errors
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.budget import RateBudget
    from uploader_cli.transfer.stop import Stop


@dataclass(frozen=True, slots=True)
class Terms:
    """What all uploads of a run share. `chunk_size` in bytes, `max_wait` in seconds, `checksum` an algorithm or None.

    `refresh()` asks for a new token and says whether there is one. `throttle` is the one `Limiter` of the run.
    """

    stop: Stop
    budget: RateBudget
    capabilities: Capabilities
    chunk_size: int
    checksum: str | None = None
    retries: int = 5
    max_wait: float = 1200.0
    refresh: Callable[[], bool] = lambda: False
    throttle: Callable[[int], int] = unlimited


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to know how an upload goes. All are called from the thread that runs it, and under no lock.

    Bytes are absolute within the range that is sent. Within one attempt neither `sent` nor `confirmed` falls.
    `attempt(n)` is always told before the `retry` that leads to attempt `n + 1`, and before a refusal is raised.
    """

    created: Callable[[str], None] = lambda _url: None
    """The upload has a URL: to the journal."""
    gone: Callable[[str], None] = lambda _url: None
    """The server has lost that upload: out of the journal."""
    attempt: Callable[[int, int], None] = lambda _offset, _attempt: None
    """`(offset, attempt)`: an attempt begins there, the first is 1."""
    confirmed: Callable[[int, int], None] = lambda _offset, _checked: None
    """`(offset, checked_until)`: the server has so many bytes; up to `checked_until` it has compared checksums."""
    pledged: Callable[[int], None] = lambda _until: None
    """To the journal, before a chunk is sent: where it ends, if its checksum checks all up to there; 0 if it does not.

    Told only of chunks that are not all of the range, and only when it changes."""
    sent: Callable[[int], None] = lambda _sent: None
    """So many bytes have left this machine."""
    retry: Callable[[errors.UploaderError, float, int], None] = lambda _error, _delay, _attempt: None
    """`(error, delay, attempt)`: the next attempt comes after `delay` seconds."""
    pause: Callable[[float], None] = lambda _seconds: None
    """The server's rate limit: nobody calls for so many seconds."""


SILENT = Watch()
"""Nobody wants to know."""


def new_key() -> str:
    """A random `uploadKey` (wire contract 5)."""
    return secrets.token_urlsafe(18)


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal has of an upload: its URL, or only the key of a creation whose answer never came.

    `confirmed`, `checked_until` and `pledged_until` in bytes, as they were last told.
    """

    url: str | None = None
    key: str | None = None
    confirmed: int = 0
    checked_until: int = 0
    pledged_until: int = 0

    def verifies(self, length: int) -> bool:
        """Whether an upload of `length` bytes that is complete lay in accepted chunks throughout."""
        return length in (self.checked_until, self.pledged_until)


UNKNOWN = Known()
"""A new upload."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The server has every byte. `headers` are of the answer that said so; `verified` by chunk checksums (contract 5).

    `attempts` counts the first.
    """

    url: str
    headers: Mapping[str, str]
    verified: bool
    attempts: int

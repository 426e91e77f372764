"""Work that is repeated for as long as the server runs, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

logger = logging.getLogger(__name__)


async def sweep(what: str, ttl: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run an action four times in its time to live (seconds), at least once a minute, until cancelled.

    An error ends neither this nor the runs that follow.
    """
    while True:
        await asyncio.sleep(min(60.0, ttl / 4))
        with logged(what):
            await action()


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Log any error, and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a defect, too, must not end the sweeps
        logger.error("%s failed: %r", what, error)

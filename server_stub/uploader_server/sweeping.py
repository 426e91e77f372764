"""Periodic tasks that continue after errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

logger = logging.getLogger(__name__)


async def sweep(what: str, ttl: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run an action four times per `ttl` (seconds), at least once a minute, until cancelled; log its errors."""
    while True:
        await asyncio.sleep(min(60.0, ttl / 4))
        with logged(what):
            await action()


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Log and suppress any error."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no error may end the periodic task
        logger.error("%s failed: %r", what, error)

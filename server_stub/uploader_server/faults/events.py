"""Faults of events: lost, repeated, late, reordered, or from another session."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from uploader_server.faults.effects import with_wrong_types

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uploader_server.faults.state import Faults

LONGEST_SWAP = 1.0  # maximum seconds that a swapped event waits for the next one


class FaultyEvents:
    """Delivers events and applies the rules for events."""

    def __init__(self, deliver: Callable[..., Awaitable[None]], faults: Faults) -> None:
        self._deliver = deliver
        self._faults = faults
        self._swapped: dict[str, Callable[[], Awaitable[None]]] = {}
        """Function that sends the swapped event, by receiver."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, name: str, event: dict[str, Any], **target: str) -> None:
        """Deliver an event to a Socket.IO room or a connection, as the rules say."""
        rules = {rule.kind.removeprefix("event-"): rule.values for rule in self._faults.hit_event(name)}
        if "types" in rules:
            event = with_wrong_types(event, rules["types"]["key"])

        async def send() -> None:
            if "missing" in rules:
                return
            for _ in range(1 + ("doubled" in rules)):
                await self._deliver(name, event, **target)
            if "foreign" in rules:
                await self._deliver(name, {**event, "sessionId": str(uuid.uuid4())}, **target)

        key = str(target)
        swapped = self._swapped.pop(key, None)
        if "late" in rules:
            self._later(rules["late"]["seconds"], send)
        elif "swapped" in rules:
            self._swapped[key] = send
            self._later(LONGEST_SWAP, lambda: self._release(key, send))
        else:
            await send()
        if swapped is not None:
            await swapped()

    async def _release(self, key: str, send: Callable[[], Awaitable[None]]) -> None:
        """Send a swapped event that no other event has followed."""
        if self._swapped.get(key) is send:
            del self._swapped[key]
            await send()

    def _later(self, seconds: float, send: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await send()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

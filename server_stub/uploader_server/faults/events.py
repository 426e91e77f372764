"""Events that get lost, come twice, late, in another order, or from elsewhere."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from uploader_server.faults.on_answers import with_wrong_types

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uploader_server.faults.state import Faults

    Deliver = Callable[..., Awaitable[None]]

LONGEST_HELD = 1.0
"""Seconds that a swapped event waits for the one that follows it."""


class FaultyEvents:
    """A way to deliver events, which rules may disturb."""

    def __init__(self, deliver: Deliver, faults: Faults) -> None:
        self._deliver = deliver
        self._faults = faults
        self._held: dict[str, Callable[[], Awaitable[None]]] = {}
        """The swapped event of each receiver, as what sends it."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, name: str, event: dict[str, Any], **whom: str) -> None:
        """Deliver an event to a room or a connection, as the rules say."""
        rules = {rule.kind.removeprefix("event-"): rule for rule in self._faults.hit_event(name)}
        if "types" in rules:
            event = with_wrong_types(event, rules["types"].values["key"])
        held = self._held.pop(str(whom), None)
        if "missing" not in rules:
            await self._send(rules, name, event, whom)
        if held is not None:
            await held()

    async def _send(self, rules: dict[str, Any], name: str, event: dict[str, Any], whom: dict[str, str]) -> None:
        async def send() -> None:
            for _ in range(1 + ("doubled" in rules)):
                await self._deliver(name, event, **whom)
            if "foreign" in rules:
                await self._deliver(name, {**event, "sessionId": str(uuid.uuid4())}, **whom)

        if "late" in rules:
            self._later(rules["late"].values["seconds"], send)
        elif "swapped" in rules:
            key = str(whom)
            self._held[key] = send
            self._later(LONGEST_HELD, lambda: self._release(key, send))
        else:
            await send()

    async def _release(self, key: str, send: Callable[[], Awaitable[None]]) -> None:
        """No event has followed: send the one that waits."""
        if self._held.get(key) is send:
            del self._held[key]
            await send()

    def _later(self, seconds: float, send: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await send()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

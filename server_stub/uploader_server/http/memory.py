"""The memory of requests: one budget for all that is kept of them until they are answered.

The gateway gives each request a `Held` (`scope["held"]`) and releases it at the end. Whoever keeps something of a
request whose size the client decides adds it there: its head, bodies, what is parsed from them, and metadata. Files
that are written while they arrive are not kept.

A request gets more memory only if its client (see `shares`) then keeps no more than what is still free. So one
client can keep at most half of the budget, and clients with slow requests never use all of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from uploader_server.http.errors import ApiError

T = TypeVar("T")

BUDGET = 128 << 20  # bytes of all requests together
VALUE = 80  # bytes of a value in parsed JSON besides its characters
_VALUES = b",:[{"  # each stands before a value of a JSON text


class Memory:
    """The budget of one server. Used on the event loop only."""

    def __init__(self) -> None:
        self.most = BUDGET
        self.used = 0  # bytes
        self.heads = 0  # bytes of request heads that are arriving (see `http.connections.Watch`)
        self.clients: Counter[str] = Counter()  # bytes of each client
        self.parsing = asyncio.Lock()
        self.answers: dict[int, tuple[bytes, Held, set[Held]]] = {}
        """Large answers that are being sent, by `id`: who holds them, and the requests that share them."""


class Held:
    """What one request keeps. At the end of the `with` block everything is released."""

    def __init__(self, memory: Memory, client: str = "") -> None:
        self._memory = memory
        self._client = client
        self.size = 0  # bytes
        self._answer: bytes | None = None

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
        self.drop_answer()

    def drop_answer(self) -> None:
        """Release the answer of this request, or a piece of it, unless other requests share it."""
        if self._answer is None:
            return
        _body, holder, users = self._memory.answers[id(self._answer)]
        users.discard(self)
        if not users:
            del self._memory.answers[id(self._answer)]
            holder.resize(0)
        self._answer = None

    def keep_answer(self, body: bytes, *, must_fit: bool) -> None:
        """Keep an answer until it is sent; one that several requests share counts once. Raises as `check`."""
        if id(body) not in self._memory.answers:
            holder = Held(self._memory, self._client)
            if must_fit:
                holder.check(len(body))
            holder._keep(len(body))
            self._memory.answers[id(body)] = body, holder, set()
        self._memory.answers[id(body)][2].add(self)
        self._answer = body

    def resize(self, size: int) -> None:
        """Reserve or release memory, to keep `size` bytes. Raises as `check`."""
        count = size - self.size
        self.check(count)
        self._keep(count)

    def _keep(self, count: int) -> None:
        self.size += count
        self._memory.used += count
        self._memory.clients[self._client] += count
        if not self._memory.clients[self._client]:
            del self._memory.clients[self._client]

    def add(self, count: int) -> None:
        """Keep `count` more bytes. Raises as `check`."""
        self.resize(self.size + count)

    def try_add(self, count: int) -> bool:
        """Keep `count` more bytes if a request of this client then has a quarter of the budget; return whether it has.

        For what makes a request quicker, and is not needed.
        """
        try:
            self.check(count + self._memory.most // 4)
        except ApiError:
            return False
        self._keep(count)
        return True

    def check(self, count: int) -> None:
        """Raise ApiError 503 if there is no room for `count` more bytes, 413 if there never will be."""
        if count <= 0:
            return
        memory = self._memory
        if self.size + count > memory.most // 2:
            raise ApiError(413, "VALIDATION_ERROR", "The server has too little memory for a request of this size")
        free, mine = memory.most - memory.used - memory.heads - count, memory.clients[self._client] + count
        if mine > free:
            raise ApiError(503, "SERVER_BUSY", "Too many requests at once: wait for Retry-After seconds", retry_after=1)

    def add_parsed(self, text: bytes) -> None:
        """Keep the memory that a JSON text needs at most when it is parsed. Raises as `add`."""
        width = 1 if text.isascii() and b"\\u" not in text else 4  # bytes of a character
        values = len(text) - len(text.translate(None, _VALUES))
        self.add(2 * width * len(text) + VALUE * values)  # the text as a str, its strings, and all values

    async def parse(self, text: bytes, parse: Callable[[bytes], T]) -> T:
        """Run a function that parses JSON in a thread, and keep the memory for its result.

        One text is parsed at a time: more would need more memory, not less time. Raises as `add` and the function.
        """
        async with self._memory.parsing:
            self.add_parsed(text)
            return await asyncio.to_thread(parse, text)


def held_by(request: Request) -> Held:
    held: Held = request.scope["held"]
    return held

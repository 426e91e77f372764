"""Bodies in memory, which can do what those of an upload never do: wait in the middle, break off, carry bad names."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import wire_name
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BYTES_OF_AN_UPLOAD = "application/offset+octet-stream"


class CutOff(Exception):
    """Raised by a body's `midway` to break the connection in the middle of it."""


class Payload:
    """Bytes as a request's body (`transfer.wire.Body`), with two moments in which something else may be done.

    `midway` is called when the first half is with the kernel, and nothing more goes out before it returns; `after` when
    all of it is, before the answer is read.
    """

    def __init__(
        self,
        data: bytes,
        kind: str = BYTES_OF_AN_UPLOAD,
        *,
        midway: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """`data` is at least two bytes."""
        self.content_type = kind
        self.started = False
        self._data = memoryview(data)
        self._half = len(data) // 2
        self._midway, self._after = midway, after
        self._read = self._taken = 0

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read(len(self._data)):
            yield piece

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= len(self._data)

    def read(self, amount: int) -> memoryview:
        """The next piece; the half is never crossed."""
        self.started = True
        if self._read == self._half and self._midway is not None:
            midway, self._midway = self._midway, None
            midway()
        end = min(self._read + amount, self._half if self._read < self._half else len(self._data))
        piece, self._read = self._data[self._read : end], end
        return piece

    def taken(self, count: int) -> None:
        """The kernel took `count` more bytes."""
        self._taken += count
        if self.through and self._after is not None:
            after, self._after = self._after, None
            after()

    def check(self) -> None:
        """Nothing stops it."""


def form(
    fields: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, bytes]],
    *,
    midway: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Payload:
    """A multipart body of text parts and files (name, content), laid out as the wire contract (3.13) has it."""
    boundary = f"uploader-smoke-{secrets.token_hex(12)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    for name, content in files:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{wire_name(name)}"\r\n'
            f"Content-Type: {content_type(name)}\r\n\r\n"
        )
        parts += [head.encode(), content, b"\r\n"]
    data = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return Payload(data, f"multipart/form-data; boundary={boundary}", midway=midway, after=after)

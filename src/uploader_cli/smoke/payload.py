"""Request bodies in memory that can pause, break off or contain invalid names."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import wire_name
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BYTES_OF_AN_UPLOAD = "application/offset+octet-stream"


class CutOff(Exception):
    """Raised by a body's `midway` to break the connection."""


class Payload:
    """Bytes as a request's body (`transfer.wire.Body`), with two callbacks.

    `midway` is called when the kernel has the first half, and nothing more is sent until it returns; `after` when the
    kernel has everything, before the response is read.
    """

    def __init__(
        self,
        data: bytes,
        kind: str = BYTES_OF_AN_UPLOAD,
        *,
        midway: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """`data` has at least two bytes."""
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
        """True once the kernel has the last byte."""
        return self._taken >= len(self._data)

    def read(self, amount: int) -> memoryview:
        """Return the next piece, which does not cross the half."""
        self.started = True
        if self._read == self._half and self._midway is not None:
            midway, self._midway = self._midway, None
            midway()
        end = min(self._read + amount, self._half if self._read < self._half else len(self._data))
        piece, self._read = self._data[self._read : end], end
        return piece

    def taken(self, count: int) -> None:
        """Record that the kernel took `count` more bytes."""
        self._taken += count
        if self.through and self._after is not None:
            after, self._after = self._after, None
            after()

    def check(self) -> None:
        """Do nothing: the body can't be stopped."""


def form(
    fields: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, bytes]],
    *,
    midway: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Payload:
    """Return a multipart body of text parts and files (name, content), as in docs/protocol.md section 3.13."""
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

"""Request bodies in memory that can pause, break off or contain invalid names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.protocol import wire_name
from uploader_cli.transfer.bodies import Body, Piece, content_type, multipart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BYTES_OF_AN_UPLOAD = "application/offset+octet-stream"


class CutOff(Exception):
    """Raised by a body's `midway` to break the connection."""


class Payload(Body):
    """Bytes as a request's body, with two callbacks.

    `midway` is called when the kernel has the first half, and nothing more is sent until it returns; `after` when the
    kernel has everything, before the response is read.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        kind: str = BYTES_OF_AN_UPLOAD,
        *,
        midway: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """`data` is at least two bytes."""
        parts = [Piece(len(data), memoryview(data))]
        super().__init__(kind, parts, check=lambda: None, on_through=after or (lambda: None))
        self._half, self._midway = len(data) // 2, midway

    def read(self, amount: int) -> memoryview:
        """Return the next piece, which does not cross the half."""
        if self._given == self._half and self._midway is not None:
            self._midway()
        first = max(0, self._half - self._given)
        return super().read(min(amount, first) if first else amount)


def form(
    fields: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, bytes]],
    *,
    midway: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Payload:
    """Return a multipart body of text parts and files (name, content), as in docs/protocol.md, section 3.13."""
    items = [(f'"{name}"', [value.encode()]) for name, value in fields]
    for name, content in files:
        items.append((f'"files"; filename="{wire_name(name)}"\r\nContent-Type: {content_type(name)}', [content]))
    kind, parts = multipart(items)
    return Payload(b"".join(part.data or b"" for part in parts), kind, midway=midway, after=after)

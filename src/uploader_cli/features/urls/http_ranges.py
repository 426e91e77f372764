"""Answers of HTTP servers to fsspec, which reads all that a server sends: no more than what was asked for is kept."""

from __future__ import annotations

import errno
import re

from aiohttp import ClientResponse

MOST_OTHER = 32 << 20
"""Maximum bytes of an answer that is no range, such as the page of a directory."""
_asked = re.compile(r"bytes=(\d+)-(\d+)").fullmatch
_sent = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)").fullmatch


class BoundedResponse(ClientResponse):
    """An answer whose reader raises `OSError` where it is longer than the range of its request, or another range."""

    async def read(self) -> bytes:
        if self._body is not None:
            return self._body
        most = self._most()
        body = bytearray()
        async for piece in self.content.iter_any():
            body += piece
            if len(body) > most:
                self.close()
                raise OSError(errno.EIO, "its server sends more than what was asked for")
        if self.status == 206 and len(body) < most:
            raise OSError(errno.EIO, f"its server sent {len(body):,} bytes of a range of {most:,}")
        self._body = bytes(body)
        self.release()
        return self._body

    def _most(self) -> int:
        """Return the number of bytes that the answer may have; a 206 has as many. Raise `OSError` for another range."""
        asked = _asked(self.request_info.headers.get("Range", ""))
        if asked is None:
            return MOST_OTHER
        first, last = int(asked[1]), int(asked[2])
        if self.status == 206:
            sent = _sent(self.headers.get("Content-Range", ""))
            is_end = sent is not None and sent[3] == str(int(sent[2]) + 1)
            if sent is None or int(sent[1]) != first or not (int(sent[2]) == last or (int(sent[2]) < last and is_end)):
                self.close()
                raise OSError(errno.EIO, "its server sends another range than what was asked for")
            last = int(sent[2])
        return last - first + 1

"""Predict the number of requests of an upload without failures, excluding polls."""

from __future__ import annotations

from collections.abc import Sequence

from uploader_cli.core.capabilities import LARGE, Capabilities, parts
from uploader_cli.core.plan import Limits, LocalFile, request_length
from uploader_cli.core.record import Record

FIRST_CONTACT = 1  # `GET /health`, or OPTIONS of a tus endpoint: always the first request


class Forecast(Record, frozen=True):
    """The parameters of a session's requests. `tus` is None for batch mode, `sessions` is False at a tus endpoint.

    `metered`: the server counts requests. `chunk_size` is in bytes; `verify` and `look` are --verify and
    --skip-existing.
    """

    limits: Limits
    tus: Capabilities | None
    metered: bool
    sessions: bool
    chunk_size: int
    jobs: int
    verify: bool = False
    look: bool = False
    empty_at_creation: bool = False

    def calls(self, files: Sequence[LocalFile], *, packs: int = 0) -> int:
        """Return the requests for one session of these files and so many packs, whose files need none for --verify.

        Includes the maximum for --skip-existing where each file is asked for by itself.
        """
        paths = self.limits.relative_paths
        each = (1 if paths else 2) * self.verify + (paths and self.look)
        return int(self.sessions) + self._transfer(files) + packs + each * len(files)

    def _transfer(self, files: Sequence[LocalFile]) -> int:
        if self.tus is None:
            return _requests(files, metered=self.metered)
        idle = max(0, self.jobs - len(files)) if self.tus.concatenates else 0
        return sum(self._uploads(file, 1 + idle if file.size >= LARGE else 1, self.tus) for file in files)

    def _uploads(self, file: LocalFile, count: int, tus: Capabilities) -> int:
        """Return the requests for one file: its creation, which may carry data, and its chunks, or its parts'."""
        if count > 1:
            return 1 + sum(self._upload(size, tus) for _, size in parts(file.size, count))
        return self._upload(file.size, tus)

    def _upload(self, size: int, tus: Capabilities) -> int:
        if not size and not self.sessions:  # an empty PATCH follows: some servers store an empty file only then
            return 1 if self.empty_at_creation else 2
        chunks = -(-size // self.chunk_size)
        return 1 if tus.creates_with_upload and chunks <= 1 else 1 + chunks


def _requests(files: Sequence[LocalFile], *, metered: bool) -> int:
    """Return the number of batch requests, without a measured rate."""
    count, start = 0, 0
    while start < len(files):
        start += request_length(files[start:], None, metered=metered)
        count += 1
    return count

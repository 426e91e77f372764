"""The algorithms of `Upload-Checksum` (tus 1.0, checksum)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # about a missing C extension
    import google_crc32c


class Crc32c:
    """CRC-32C with the interface of hashlib's objects."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes; only a part of a `bytes` object is copied, because google-crc32c takes nothing else."""
        if isinstance(data, memoryview):
            data = data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else data.tobytes()
        self._value = google_crc32c.extend(self._value, data)

    def digest(self) -> bytes:
        """Return the four bytes of the value, big-endian."""
        return self._value.to_bytes(4, "big")


CHECKSUMS: dict[str, Callable[[], Any]] = {
    **({"crc32c": Crc32c} if google_crc32c.implementation == "c" else {}),  # in pure Python it is too slow
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""What makes the checksum of no bytes, in order of preference."""

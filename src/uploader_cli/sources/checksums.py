"""The checksums of chunks (tus 1.0, checksum): those of hashlib, and CRC-32C."""

from __future__ import annotations

import hashlib
import warnings
from functools import cache
from typing import Any, Protocol

CACHE_BLOCK = 256 << 10  # bytes that are read and hashed at a time: they stay in the CPU's cache between the two


class Checksum(Protocol):
    """A checksum in computation, as an object of hashlib."""

    def update(self, data: bytes, /) -> object:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the value, big-endian."""


def new(algorithm: str) -> Checksum:
    """Return the checksum of no bytes."""
    if algorithm == "crc32c":
        crc32c: Checksum = _crc32c().Checksum()
        return crc32c
    found: Checksum = getattr(hashlib, algorithm)(usedforsecurity=False)  # `hashlib.new` costs 2 µs more
    return found


def of(algorithm: str, data: memoryview) -> bytes:
    """Return the checksum of bytes in memory."""
    checksum = new(algorithm)
    for start in range(0, len(data), CACHE_BLOCK):
        checksum.update(bytes(data[start : start + CACHE_BLOCK]))
    return checksum.digest()


def is_fast(algorithm: str) -> bool:
    """Return whether the algorithm is compiled: CRC-32C in pure Python is slower than a network."""
    return algorithm != "crc32c" or _crc32c().implementation == "c"


@cache
def _crc32c() -> Any:
    """Import google-crc32c where it is used: the import takes 2 ms. It warns where its C extension is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import google_crc32c

    return google_crc32c

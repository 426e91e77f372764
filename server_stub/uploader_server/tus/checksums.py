"""The algorithms of `Upload-Checksum` (tus 1.0, checksum)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # about a missing C extension
    import google_crc32c


class Crc32c(google_crc32c.Checksum):
    """CRC-32C of `bytes` and views of them."""

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes; only a part of a `bytes` object is copied, because google-crc32c takes nothing else."""
        if isinstance(data, memoryview):
            data = data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else data.tobytes()
        super().update(data)  # type: ignore[no-untyped-call]


CHECKSUMS: dict[str, Callable[[], Any]] = {
    **({"crc32c": Crc32c} if google_crc32c.implementation == "c" else {}),  # in pure Python it is too slow
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""What makes the checksum of no bytes, in order of preference."""

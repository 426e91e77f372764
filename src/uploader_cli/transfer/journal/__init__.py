"""The durable journal: which uploads are under way and which files the server has, so that kill -9 loses nothing.

One SQLite file in WAL mode in the user's state directory, for all runs and all processes. Keys are server,
destination, absolute path, size and mtime (ns), never content. `synchronous=NORMAL`: a commit survives the death of
the process at any moment; after a power cut the last commits may be missing, never half there.

No token, header or password is stored. Upload URLs are stored as the server gave them: on some servers a URL is all
that is needed to write, which is why the file has mode 0600 and a directory made for it 0700.
"""

from __future__ import annotations

from uploader_cli.transfer.journal.reading import (
    Claim,
    ClaimState,
    History,
    PendingPart,
    PendingUpload,
    Receipt,
    RunInfo,
    Stored,
    Target,
    path_key,
)
from uploader_cli.transfer.journal.writing import Journal, RunHandle

__all__ = [
    "Claim",
    "ClaimState",
    "History",
    "Journal",
    "PendingPart",
    "PendingUpload",
    "Receipt",
    "RunHandle",
    "RunInfo",
    "Stored",
    "Target",
    "path_key",
]

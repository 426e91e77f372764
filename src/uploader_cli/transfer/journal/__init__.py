"""The durable journal: which uploads are under way and which files the server has, so that kill -9 loses nothing.

One SQLite file in WAL mode in the user's state directory serves all runs and processes. Its keys are server,
destination, absolute path, size and mtime (ns), never content. `synchronous = NORMAL`: a commit survives the death of
the process at any moment; after a power cut the last commits may be missing, but none is half there.

No token, header or password is stored. Upload URLs are stored as the server gave them. On some servers a URL is all
that is needed to write, so the file has mode 0600, and a directory made for it 0700.
"""

from uploader_cli.transfer.journal.reading import (
    Claim,
    ClaimState,
    History,
    PendingPart,
    PendingUpload,
    RunInfo,
    Stored,
    Target,
    pack_position,
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
    "RunHandle",
    "RunInfo",
    "Stored",
    "Target",
    "pack_position",
    "path_key",
]

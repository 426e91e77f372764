"""The durable journal of uploads in progress and stored files.

One SQLite file in WAL mode serves all runs and processes. A commit survives the death of the process; a power cut may
lose the last commits. It contains no credentials, but upload URLs, which may allow writing: its mode is 0600.
"""

from uploader_cli.transfer.journal.reading import (
    Claim,
    ClaimState,
    PendingPart,
    PendingUpload,
    RunInfo,
    RunTarget,
    Stored,
)
from uploader_cli.transfer.journal.writing import Journal, RunHandle

__all__ = [
    "Claim",
    "ClaimState",
    "Journal",
    "PendingPart",
    "PendingUpload",
    "RunHandle",
    "RunInfo",
    "RunTarget",
    "Stored",
]

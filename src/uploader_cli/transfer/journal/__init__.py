"""The durable journal of uploads in progress and stored files.

One SQLite file in WAL mode serves all runs and processes. A commit survives the death of the process; a power cut may
lose the last commits. It contains no credentials, but upload URLs, which may allow writing: its mode is 0600.
"""

from uploader_cli.core.presence import ClaimState
from uploader_cli.transfer.journal.journal import History, Journal
from uploader_cli.transfer.journal.reading import (
    Awaited,
    Claim,
    PendingPart,
    PendingUpload,
    RunTarget,
)
from uploader_cli.transfer.journal.receipts import Stored
from uploader_cli.transfer.journal.run_handle import RunHandle
from uploader_cli.transfer.journal.run_rows import RunInfo
from uploader_cli.transfer.journal.upload_journal import UploadJournal

__all__ = [
    "Awaited",
    "Claim",
    "ClaimState",
    "History",
    "Journal",
    "PendingPart",
    "PendingUpload",
    "RunHandle",
    "RunInfo",
    "RunTarget",
    "Stored",
    "UploadJournal",
]

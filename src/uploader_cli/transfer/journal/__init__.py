"""The durable journal: which uploads are under way and which files the server has, so that kill -9 loses nothing.

One SQLite file in WAL mode in the user's state directory serves all runs and processes. A commit survives the death of
the process at any moment; after a power cut the last commits may be missing, but none is half there. No token, header
or password is stored, but upload URLs are, and on some servers a URL is all that is needed to write: hence mode 0600.
"""

from uploader_cli.transfer.journal.reading import Claim, ClaimState, PendingPart, PendingUpload, RunInfo, Stored, Target
from uploader_cli.transfer.journal.writing import Journal, RunHandle

__all__ = ["Claim", "ClaimState", "Journal", "PendingPart", "PendingUpload", "RunHandle", "RunInfo", "Stored", "Target"]

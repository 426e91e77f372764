"""The secret from which the upload keys of an import are made, so that any of its processes finds its uploads."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.private_files import check_directory, opened_private
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer.journal.file_keys import path_key
from uploader_cli.transfer.journal.locking import OURS, locked

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile

KEY_FILE = "import.key"
"""The file in the state directory from which the secrets of runs are derived."""


def run_secret(state: Path, number: int) -> bytes:
    """Return the secret of the run with this number in the journal of the state directory `state`."""
    return hmac.digest(_state_secret(state), b"%d" % number, "sha256")


def upload_key(secret: bytes, file: LocalFile) -> str:
    """Return the upload key of a file in the run with this secret."""
    identity = b"%d %d %s" % (file.size, file.mtime_ns, path_key(file))
    return hmac.digest(secret, identity, "sha256").hex()[:32]


def _state_secret(state: Path) -> bytes:
    """Return the secret of the state directory, which is created once; a new one where the state is in memory."""
    if state == STATE_IN_MEMORY:
        return secrets.token_bytes(32)
    path = state / KEY_FILE
    with locked(state / f"{KEY_FILE}.lock", lambda: None):
        check_directory(state, OURS)
        if not path.exists():
            new = path.with_suffix(".new")  # whole, or not at all
            with open(opened_private(new, os.O_WRONLY | os.O_CREAT, OURS), "wb") as file:
                file.truncate()
                file.write(secrets.token_bytes(32))
            new.replace(path)
        with open(opened_private(path, os.O_RDONLY, OURS), "rb") as file:
            return file.read()

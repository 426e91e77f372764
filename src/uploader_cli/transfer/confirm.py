"""The last step of a file: what the server says it stored is taken down, and compared where that was asked for."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, WarningCode
from uploader_cli.transfer.chunk import hash_range

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.context import Context


class Confirmation:
    """Takes completed files down. Several workers may call it at once, each with its own `Api`."""

    def __init__(self, context: Context) -> None:
        """Nothing is compared unless `--verify` says so."""
        self._context = context
        self._said_unverifiable = False

    def stored(
        self,
        api: Api,
        file: LocalFile,
        *,
        server_id: str | None = None,
        location: str | None = None,
        file_path: str | None = None,
        readable: str | None = None,
        checksum: str | None = None,
        verified: bool = False,
    ) -> None:
        """The server has `file`; `checksum` (hex SHA-256) and `verified` where its bytes were compared already.

        `readable` is the URL, or path on the server, under which the stored bytes can be read: `location` if None.
        """
        if self._context.settings.verify and checksum is None:
            where = readable or location
            mine = hash_range(file, 0, file.size, "sha256", check=self._context.stop.check)
            match _compare(api, where, mine, file.size) if where else None:
                case True:
                    checksum, verified = mine.hex(), True
                case False:
                    words = "what the server has is not what was read (SHA-256 differs)"
                    self._context.ledger.fail_with(file, FailureCode.INTEGRITY, words)
                    return
                case None:
                    self._say_unverifiable()
        self._context.run.completed(file, server_id=server_id, location=location, checksum=checksum, verified=verified)
        self._context.ledger.complete(
            file, server_id, location, checksum=checksum, verified=verified, file_path=file_path
        )

    def _say_unverifiable(self) -> None:
        if not self._said_unverifiable:
            self._said_unverifiable = True
            text = "--verify: this server gives no way to read a stored file or its digest"
            self._context.warn(WarningCode.UNVERIFIABLE, text)


def _compare(api: Api, where: str, mine: bytes, size: int) -> bool | None:
    """Digest or bytes of the stored file against `mine`; None where the server offers neither."""
    try:
        told = api.stored_at(where)
        if told is not None and told[1] is not None:
            return told[0] in (None, size) and told[1] == b64encode(mine).decode()
        theirs = hashlib.sha256()
        if not api.read_back(where, theirs.update):
            return None
    except (errors.NetworkError, errors.AnswerError):
        return None
    return theirs.digest() == mine

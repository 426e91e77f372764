"""The answer that is a stored file."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING

from starlette.responses import FileResponse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send


class StoredFile(FileResponse):
    """A file with ranges; its type is guessed from its name, and browsers are told to guess no other."""

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        super().__init__(path, headers={"x-content-type-options": "nosniff", **headers}, media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not _is_utf8(str(self.path)):  # granian takes such paths only, to send files by itself
            scope = {**scope, "extensions": {}}
        await super().__call__(scope, receive, send)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

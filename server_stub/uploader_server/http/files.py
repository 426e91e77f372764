"""The answer that is a stored file."""

from __future__ import annotations

import mimetypes
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import FileResponse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send


class StoredFile(FileResponse):
    """A file with ranges; its type is guessed from its name.

    Anybody may have uploaded it: browsers save it, guess no other type, and run nothing that is in it.
    """

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        guarded = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(path.name), safe='')}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox",
        }
        super().__init__(path, headers={**guarded, **headers}, media_type=kind)

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

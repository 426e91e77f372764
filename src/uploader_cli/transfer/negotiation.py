"""What a server offers of resumable uploads, and what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.plan import Limits
from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.settings import Settings

ENDLESS = 1 << 62
"""Of a tus server that names no limit."""


def choose(settings: Settings, offered: Capabilities | None) -> Capabilities | None:
    """Resumable transfer where the server offers it, unless batch was asked for (wire contract 5): None.

    Raises `UsageError` where it was asked for and is not offered.
    """
    if offered is None and settings.protocol == "tus":
        raise UsageError(
            f"--protocol tus: {settings.server} offers no resumable uploads",
            hint="leave the option out: files then travel in batch mode",
        )
    return None if settings.protocol == "batch" else offered


def endless(offered: Capabilities) -> Limits:
    """What a tus server takes (wire contract 5): one endless session, as it were."""
    return Limits(
        max_files=ENDLESS,
        max_file_size=offered.max_size or ENDLESS,
        allowed_types=frozenset({"*"}),
        mixed_types=True,
        relative_paths=False,
    )

"""Upload files in sessions, follow the server's progress and resume after interruptions.

from uploader_cli import upload
result = upload(["videos"], server="http://localhost:8005")
"""

from __future__ import annotations

TYPE_CHECKING = False  # without an import of typing, as in `__main__`
if TYPE_CHECKING:
    from uploader_cli.library import upload
    from uploader_cli.result import Receipt, Result
    from uploader_cli.settings import Settings

__version__ = "0.1.0"
__all__ = ["Receipt", "Result", "Settings", "upload"]


def __getattr__(name: str) -> object:
    """Import on first use: `uploader --help` must not pay for requests and Socket.IO."""
    if name == "upload":
        from uploader_cli.library import upload

        return upload
    if name in ("Receipt", "Result"):
        from uploader_cli import result

        return getattr(result, name)
    if name == "Settings":
        from uploader_cli.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

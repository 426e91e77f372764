"""What proves who calls: the bearer token of a run, and the secrets of its sessions."""

from __future__ import annotations

import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING

from uploader_cli.core.masking import SESSION_MARK

if TYPE_CHECKING:
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.pacer import Stop

SESSION_SECRET = "X-Session-Secret"  # noqa: S105 - the name of a header


def new_secret() -> str:
    """Return a random secret for a session (docs/extensions.md)."""
    return SESSION_MARK + secrets.token_urlsafe(24)


class Token:
    """The bearer token, read at first use and after a refusal."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._ask, self._lock = partial(settings.bearer, stopped=stop.is_set), threading.Lock()
        self._value: str | None = None
        self._read, self._used = False, threading.local()  # `_used.token`: the last one that the thread was given

    @property
    def value(self) -> str | None:
        with self._lock:
            if not self._read:
                self._value, self._read = self._ask(), True
            self._used.token = self._value
            return self._value

    def refresh(self) -> bool:
        """Ask again unless another thread has; return True for another token than the calling thread's last one."""
        with self._lock:
            used = getattr(self._used, "token", None)
            if used is not None and used == self._value:
                self._value = self._ask(refresh=True) or used
            return self._value != used

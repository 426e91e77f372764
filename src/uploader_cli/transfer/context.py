"""What the rooms of one upload share: the server's client, the settings, who is told, and what is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from uploader_cli.core.events import RunWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.events import Event, WarningCode
    from uploader_cli.core.last_heard import LastHeard
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal_run import RunHandle
    from uploader_cli.transfer.ledger import Ledger
    from uploader_cli.transfer.stop import Stop


class Followers(Protocol):
    """Who wants to know about sessions: the realtime channel. No call may block."""

    def follow(self, session: str) -> None:
        """A session was opened; nothing of it was sent yet."""

    def body_sent(self, session: str) -> None:
        """A request of the session left this machine."""

    def leave(self, session: str) -> None:
        """The session is over."""


@dataclass(frozen=True, slots=True)
class Context:
    """`throttle` is the run's one `Limiter`, asked before each piece; `run` its hold on the journal."""

    api: Api
    settings: Settings
    emit: Callable[[Event], None]
    followers: Followers
    last_heard: LastHeard
    stop: Stop
    ledger: Ledger
    run: RunHandle
    throttle: Callable[[int], int]

    def warn(self, code: WarningCode, text: str) -> None:
        """Say something that failed nothing."""
        self.emit(RunWarning(code, text))

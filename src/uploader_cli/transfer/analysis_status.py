"""How an analysis stands, asked for where no event comes (wire contract 4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import AnalysisMessage

if TYPE_CHECKING:
    from uploader_cli.core.protocol import AnalysisStatus
    from uploader_cli.transfer.api import Api

UNKNOWN = 3
"""Answers of 404 after which nothing is asked any more."""


class Status:
    """Questions about one analysis: as seldom as the rate limit asks, and none any more where nobody knows of it."""

    def __init__(self, api: Api, session: str) -> None:
        """`api` is used by nobody else, and closed with this; `session` is the id that was chosen for the analysis."""
        self._api, self._session = api, session
        self._due = 0.0
        self._unknown = 0
        self._told = False

    @property
    def interval(self) -> float:
        """Seconds between two questions now."""
        return self._api.budget.poll_interval()

    def ask(self, now: float, guess: float) -> AnalysisMessage | None:
        """What the server says; the guess (percent) where it never said anything; None where nothing is due."""
        if now < self._due:
            return None
        found = self.look()
        self._due = time.monotonic() + self.interval
        message = found.message if found is not None else None
        self._told = self._told or message is not None
        if message is None and not self._told:
            return AnalysisMessage(guess, assumed=True)
        return message

    def look(self) -> AnalysisStatus | None:
        """One question; None without an answer, and where the server does not know: what is known stays."""
        if self._unknown >= UNKNOWN:
            return None
        try:
            return self._api.analysis_status(self._session)
        except errors.NotFound:
            self._unknown += 1
        except errors.UploaderError:
            pass
        return None

    def close(self) -> None:
        """End what is under way, from any thread, and the connection."""
        self._api.shut()
        self._api.close()

"""The sessions to come, planned as far as the walk has come, and no further than the transfer will soon be."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from uploader_cli.core.plan import SESSION_FILES, Planner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.plan import Limits, LocalFile, PlannedSession
    from uploader_cli.transfer.stop import Stop

TICK = 0.1
"""Seconds between two looks at whether the run was stopped."""
PATIENCE = 0.5
"""Seconds without a new file after which a session is begun that is not full: the walk is slower than the line."""


class Supply(Protocol):
    """Where the files come from: a walk that may still go on."""

    @property
    def ahead(self) -> Sequence[LocalFile]:
        """The first files, known before anything is asked of the server."""

    @property
    def ended(self) -> bool:
        """Nothing will come any more."""

    def take(self, wait: float = 0.0) -> LocalFile | None:
        """The next file; None where none came in `wait` seconds or none will come. Raises what ended the walk."""

    def close(self) -> list[LocalFile]:
        """End the walk; the files that were not taken."""


class SessionQueue:
    """Cuts what `supply` yields into sessions, in its order."""

    def __init__(self, supply: Supply, accept: Callable[[LocalFile], bool], limits: Limits, stop: Stop) -> None:
        """`accept` is asked of each file before it is planned, and tells of those it turns down."""
        self._supply, self._accept, self._stop = supply, accept, stop
        self._planner = Planner(limits)
        self._sessions: deque[PlannedSession] = deque()
        self._files = 0

    def __len__(self) -> int:
        """Sessions that are known to come."""
        return len(self._sessions)

    def next(self) -> PlannedSession | None:
        """The next session, None after the last; waits for the walk where nothing is there. Raises `Interrupted`."""
        idle = 0.0
        while not self._supply.ended and self._files < SESSION_FILES:
            file = self._supply.take(0.0 if self._sessions else TICK)
            if file is not None:
                idle = 0.0
                if self._accept(file):
                    self._files += 1
                    self._add(self._planner.add(file))
                continue
            if self._sessions:
                break
            self._stop.check()
            idle += TICK
            if idle >= PATIENCE:
                self._add(self._planner.cut())
        while self._supply.ended and self._add(self._planner.cut()):
            pass
        if not self._sessions:
            self._add(self._planner.cut())
        if not self._sessions:
            return None
        session = self._sessions.popleft()
        self._files -= len(session.files)
        return session

    def put_back(self, session: PlannedSession) -> None:
        """It is the next one again."""
        self._sessions.appendleft(session)
        self._files += len(session.files)

    def _add(self, session: PlannedSession | None) -> bool:
        if session is None:
            return False
        self._sessions.append(session)
        return True

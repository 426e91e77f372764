"""The state of analyses, running and recently ended (docs/protocol.md, section 4); `simulation.analysis` runs them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from uploader_server.counts import Counts
from uploader_server.http.errors import ApiError
from uploader_server.wire import timestamp

logger = logging.getLogger(__name__)

TIMEOUT = 600.0  # timeout of an analysis in seconds (504); longer than the timeouts of clients (180 s and 300 s)
KEPT = 1000  # maximum ended analyses in memory
ANALYSES_LISTED = 20  # maximum analyses in a list


@dataclass
class Analysis:
    """One analysis. Its id is the client's session id, or a new one."""

    id: str
    kind: str
    stages: list[str]  # names in order
    silent: bool = False  # whether it has no events
    status: str = "running"
    progress: int = 0
    stage: str = ""
    message: str = ""
    started: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)
    ended: float = 0.0  # end time (monotonic seconds)
    data: dict[str, Any] | None = None
    error: ApiError | None = None

    def event(self) -> tuple[str, dict[str, Any]]:
        """Return name and content of the current event; it has no id."""
        if self.error is not None:
            return "analysis:error", {"message": self.message, "timestamp": self.updated}
        content = {"stage": self.stage, "progress": self.progress, "message": self.message, "timestamp": self.updated}
        return "analysis:progress", content

    def state(self) -> dict[str, Any]:
        return {
            "analysisId": self.id,
            "kind": self.kind,
            "status": self.status,
            "progress": self.progress,
            "stage": self.stage,
            "message": self.message,
            "startedAt": self.started,
            "lastUpdate": self.updated,
        }

    def answer(self) -> dict[str, Any]:
        """Return the response of `/status`, with the result of an ended analysis."""
        return {
            **self.state(),
            **({} if self.data is None else {"result": self.data}),
            **({} if self.error is None else {"error": self.error.body()}),
            "timestamp": timestamp(),
        }

    def advance(self, progress: int, stage: str, message: str) -> None:
        self.progress, self.stage, self.message, self.updated = progress, stage, message, timestamp()

    def fail(self, error: ApiError) -> None:
        """Mark the analysis as failed; its progress is unchanged."""
        self.status, self.error, self.message, self.updated = "failed", error, error.message, timestamp()


class Analyses:
    """All analyses of one server. Not thread-safe: used on the event loop.

    `emit(id, name, content)` sends an event to the Socket.IO room of an id.
    """

    def __init__(self, ttl: float, emit: Callable[[str, str, dict[str, Any]], Awaitable[None]], counts: Counts) -> None:
        self._ttl = ttl
        self._emit = emit
        self._counts = counts
        self._known: dict[str, Analysis] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, analysis_id: str) -> Analysis | None:
        return self._known.get(analysis_id)

    def newest(self) -> list[dict[str, Any]]:
        """Return the running and recently ended analyses, newest first, with their stages but without results."""
        newest = itertools.islice(reversed(self._known.values()), ANALYSES_LISTED)
        return [{**analysis.state(), "stages": analysis.stages} for analysis in newest]

    def running(self) -> int:
        return len(self._tasks)

    def snapshot(self, analysis_id: str) -> tuple[str, dict[str, Any]] | None:
        """Return the event for a client that joins, or None."""
        analysis = self._known.get(analysis_id)
        return None if analysis is None or analysis.silent else analysis.event()

    async def run(self, analysis: Analysis, work: Callable[[Analysis], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Run an analysis and return its result, from `work`, which may raise ApiError.

        It continues if the client disconnects. Raises ApiError: 409 if the id is in use, 504, or that of `work`.
        """
        known = self._known.get(analysis.id)
        if known is not None and known.status == "running":
            raise ApiError(409, "ANALYSIS_RUNNING", "An analysis with this sessionId is running")
        self._forget_old()
        self._known.pop(analysis.id, None)
        self._known[analysis.id] = analysis
        task = asyncio.create_task(self._complete(analysis, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        if analysis.error is not None:
            raise analysis.error
        return analysis.data or {}

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _complete(self, analysis: Analysis, work: Callable[[Analysis], Awaitable[dict[str, Any]]]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                result = await work(analysis)
        except TimeoutError:
            analysis.fail(ApiError(504, "ANALYSIS_TIMEOUT", "The analysis took too long", retryable=True))
        except ApiError as error:
            analysis.fail(error)
        except BaseException as error:
            analysis.fail(ApiError(500, "INTERNAL_ERROR", "The server failed; see its log"))
            if isinstance(error, Exception):
                logger.exception("An analysis failed")
            else:
                raise  # the server stops
        else:
            analysis.data = {"analysisId": analysis.id, "kind": analysis.kind, **result}
            analysis.status = "completed"
        analysis.ended = time.monotonic()
        self._counts("analyses", analysis.kind, analysis.status)
        if analysis.error is not None:
            await self.report(analysis)

    async def report(self, analysis: Analysis) -> None:
        """Send the current event, unless the analysis is silent."""
        if not analysis.silent:
            await self._emit(analysis.id, *analysis.event())

    def _forget_old(self) -> None:
        """Remove ended analyses that are older than the TTL, and all but the last KEPT."""
        oldest = time.monotonic() - self._ttl
        ended = [analysis for analysis in self._known.values() if analysis.status != "running"]
        for number, analysis in enumerate(reversed(ended)):
            if number >= KEPT or analysis.ended < oldest:
                del self._known[analysis.id]

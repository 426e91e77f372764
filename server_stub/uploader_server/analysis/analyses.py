"""Analyses under way, and those that ended lately: simulated (docs/protocol.md, section 4)."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_server.analysis.stages import STEP, stage_at
from uploader_server.http.errors import ApiError
from uploader_server.wire import timestamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uploader_server.faults import Faults

HANG_LIMIT = 600.0
"""Seconds until an analysis that hangs is given up (504); no client waits that long (180 s and 300 s)."""
KEPT = 1000
"""Ended analyses whose status is remembered."""


@dataclass
class Analysis:
    """One analysis. Its id is the session id that the client chose, or a new one where it chose none."""

    id: str
    kind: str
    status: str = "running"
    progress: int = 0
    stage: str = ""
    message: str = ""
    started: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)
    ended: float = 0.0
    """When it ended (monotonic seconds)."""
    data: dict[str, Any] | None = None
    error: ApiError | None = None

    def event(self) -> tuple[str, dict[str, Any]]:
        """Name and content of the event about now; neither carries an id."""
        if self.error is not None:
            return "analysis:error", {"message": self.message, "timestamp": self.updated}
        content = {"stage": self.stage, "progress": self.progress, "message": self.message, "timestamp": self.updated}
        return "analysis:progress", content

    def answer(self) -> dict[str, Any]:
        """The answer to `/status`; with the result, so that a lost answer of the analysis costs nothing."""
        return {
            "analysisId": self.id,
            "kind": self.kind,
            "status": self.status,
            "progress": self.progress,
            "stage": self.stage,
            "message": self.message,
            "startedAt": self.started,
            "lastUpdate": self.updated,
            **({} if self.data is None else {"result": self.data}),
            **({} if self.error is None else {"error": self.error.body()}),
            "timestamp": timestamp(),
        }

    def set(self, progress: int, message: str = "") -> None:
        """It got this far."""
        stage = stage_at(self.kind, progress)
        self.progress, self.stage, self.message = progress, stage.name, message or stage.message
        self.updated = timestamp()

    def fail(self, error: ApiError) -> None:
        """It failed: the percentage stays where it was."""
        self.status, self.error, self.message, self.updated = "failed", error, error.message, timestamp()


class Analyses:
    """Every analysis of one server; all of it runs on the event loop.

    `tell(id, event, content)` sends an event to the room of an id; `ended(kind, status)` counts.
    """

    def __init__(
        self,
        faults: Faults,
        ttl: float,
        tell: Callable[[str, str, dict[str, Any]], Awaitable[None]],
        ended: Callable[[str, str], None],
    ) -> None:
        self._faults = faults
        self._ttl = ttl
        self._tell = tell
        self._ended = ended
        self._known: dict[str, Analysis] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, analysis_id: str) -> Analysis | None:
        """The analysis with this id, if it is known."""
        return self._known.get(analysis_id)

    def running(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def snapshot(self, analysis_id: str) -> tuple[str, dict[str, Any]] | None:
        """The event for somebody who joins late; None where there is none, or none is sent."""
        analysis = self.find(analysis_id)
        return None if analysis is None or self._faults.analysis.silent else analysis.event()

    async def run(self, analysis_id: str | None, kind: str, result: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Analyse to the end; `data` of the answer, from `result`.

        It goes on when the client leaves meanwhile. Raises ApiError: 409 where one with this id is under way, 503, 422
        or 504 where it failed.
        """
        analysis = Analysis(analysis_id or str(uuid.uuid4()), kind)
        known = self._known.get(analysis.id)
        if known is not None and known.status == "running":
            raise ApiError(409, "ANALYSIS_RUNNING", "An analysis with this sessionId is under way")
        self._forget_old()
        self._known.pop(analysis.id, None)
        self._known[analysis.id] = analysis
        task = asyncio.create_task(self._work(analysis, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        if analysis.error is not None:
            raise analysis.error
        return analysis.data or {}

    def stop(self) -> None:
        """End whatever runs."""
        for task in list(self._tasks):
            task.cancel()

    async def _work(self, analysis: Analysis, result: Callable[[], dict[str, Any]]) -> None:
        try:
            async with asyncio.timeout(HANG_LIMIT):
                await self._advance(analysis)
        except TimeoutError:
            analysis.fail(ApiError(504, "ANALYSIS_TIMEOUT", "The analysis took too long", retryable=True))
        except ApiError as error:
            analysis.fail(error)
        else:
            analysis.data = {"analysisId": analysis.id, "kind": analysis.kind, **result()}
            analysis.status = "completed"
        analysis.ended = time.monotonic()
        self._ended(analysis.kind, analysis.status)
        if analysis.error is not None:
            await self._report(analysis)

    async def _advance(self, analysis: Analysis) -> None:
        """From 0 to 100 percent in the server's `analysis_seconds`. Raises ApiError where a stage is made to fail."""
        analysis.set(0)
        await self._report(analysis)
        for percent in range(STEP, 101, STEP):
            await asyncio.sleep(self._faults.analysis_seconds * STEP / 100)
            if self._faults.analysis.hang:
                await asyncio.sleep(2 * HANG_LIMIT)
            self._break(stage_at(analysis.kind, percent).name)
            analysis.set(percent)
            await self._report(analysis)

    def _break(self, stage: str) -> None:
        mode = self._faults.analysis
        if mode.stage != stage:
            return
        if mode.final:
            raise ApiError(422, "ANALYSIS_REFUSED", f"Can't be analysed (stage {stage})", stage=stage, retryable=False)
        raise ApiError(503, "ANALYSIS_FAILED", f"The analysis failed (stage {stage})", stage=stage, retryable=True)

    async def _report(self, analysis: Analysis) -> None:
        if not self._faults.analysis.silent:
            await self._tell(analysis.id, *analysis.event())

    def _forget_old(self) -> None:
        """Forget ended ones that are older than a session may get, and all but the last thousand."""
        oldest = time.monotonic() - self._ttl
        ended = [analysis for analysis in self._known.values() if analysis.status != "running"]
        for number, analysis in enumerate(reversed(ended)):
            if number >= KEPT or analysis.ended < oldest:
                del self._known[analysis.id]

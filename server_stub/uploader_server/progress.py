"""The responses of `GET /progress`: built in a thread, and shared between the callers that wait for one.

A response with 10,000 files takes 0.1 s. The state that a caller gets is never older than its call, so it has every
upload that was confirmed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from uploader_server.session import Session
from uploader_server.storage.file_state import FileState
from uploader_server.storage.store import Store
from uploader_server.wire import timestamp

FEW = 100  # maximum files of a response that is built on the event loop, where it takes less time than a thread needs
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ProgressResponses:
    """Builds one response at a time for each session, and one of many files at a time over all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[str, asyncio.Task[bytes]] = {}  # tasks that have read the state, by session
        self._next: dict[str, asyncio.Task[bytes]] = {}  # tasks that haven't: new callers may wait for them
        self._turn = asyncio.Semaphore(1)  # leaves threads and processor time to uploads

    async def get(self, session: Session) -> bytes:
        """Return the response as JSON. Raises sqlite3.Error."""
        task = self._next.get(session.id)
        if task is None:
            task = self._next[session.id] = asyncio.create_task(self._build_next(session))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all callers may have gone
        return await asyncio.shield(task)

    async def _build_next(self, session: Session) -> bytes:
        if session.id in self._running:
            await asyncio.wait({self._running[session.id]})
        async with self._turn if session.file_count > FEW else contextlib.nullcontext():
            self._running[session.id] = self._next.pop(session.id)
            try:
                return await self._build(session)
            finally:
                del self._running[session.id]

    async def _build(self, session: Session) -> bytes:
        # The counts and the files in memory are read first: then the list has all files that are counted, also those
        # that leave the memory meanwhile.
        state, percent, files = session.state(), session.progress, list(session.files.values())
        elapsed = time.monotonic() - session.began if session.requests else 0.0
        rest = {
            "estimatedTimeRemaining": round(elapsed * (100 - percent) / percent, 1) if percent and elapsed else 0,
            "lastUpdate": timestamp(),
        }
        rows = await self._store.files(session.id) if session.unlisted else []
        parts = {"sessionId": session.id, **state}, files, rows, rest
        return _text(*parts) if len(files) + len(rows) <= FEW else await asyncio.to_thread(_text, *parts)


def _text(state: dict[str, Any], files: list[FileState], rows: Sequence[sqlite3.Row], rest: dict[str, Any]) -> bytes:
    """Return the JSON, of which each file is encoded by itself: other threads can't run while one is."""
    listed = {file.id for file in files}
    shown = [_encode(FileState.restored(row).shown()) for row in rows if row["id"] not in listed]
    shown += [_encode(file.unrecorded()) for file in files]
    return f'{_encode(state)[:-1]},"files":[{",".join(shown)}],{_encode(rest)[1:]}'.encode("utf-8", "replace")

"""Emulation of the reference backend as observed (docs/protocol.md, section 3), including its quirks.

Sessions are in memory only, so they are lost at a restart. Messages are the captured ones. Section numbers in comments
are those of docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request

from uploader_server.backend import Calls
from uploader_server.batch.multipart import BatchReader
from uploader_server.config import ServerConfig
from uploader_server.http.errors import ApiError, Words
from uploader_server.http.memory import held_by
from uploader_server.session import batch_answer, counted
from uploader_server.storage.file_state import FileState
from uploader_server.storage.put import put
from uploader_server.storage.store import Change, Store
from uploader_server.wire import CATEGORIES, js_number, js_round, timestamp

STEPS = (5, 15, 30, 45, 60, 75, 85, 95, 100)  # percentages reported while a file is processed, at equal intervals

NAME_MAX = 255  # maximum bytes of a file name on the reference backend's file system

CAPTURED = Words(
    # The full-width commas are part of the captured messages.
    errors={
        "INVALID_CATEGORY": "无效的文件分类",
        "VALIDATION_ERROR": "文件验证失败",
        "MISSING_PARAMETERS": "缺少必要参数",
        "NO_SESSION_ID": "缺少会话ID",
        "TOO_MANY_FILES": "文件数量超过限制 ({number}个)",
        "INVALID_FILE_FORMAT": "不支持的文件格式",
        "FILE_TOO_LARGE": "文件大小超过限制",
        "UPLOAD_FAILED": "文件上传失败",
        "UNAUTHORIZED": "未提供认证令牌，请先登录",  # noqa: RUF001
        "INVALID_TOKEN": "认证令牌无效或已过期",
        "FILE_NOT_FOUND": "文件不存在",
        "NOT_FOUND": "请求的资源不存在",
        "TOO_MANY_REQUESTS": "请求过于频繁，请稍后再试",  # noqa: RUF001
    },
    cancelled="上传已取消",
    deleted="文件删除成功",
    wrong_format="不支持的文件格式 (.{})",
    wrong_type="不支持的MIME类型 ({})",
    mixed_types="所有文件必须是相同类型",
    any_name=True,
)


class Tracker:
    """State shown by `/progress` and by events with `totalFiles` (3.4, 3.6). It has its own file ids."""

    def __init__(self, files: list[FileState]) -> None:
        self.status = "uploading"
        self.files = [(str(uuid.uuid4()), file) for file in files]

    def answer(self, session_id: str) -> dict[str, Any]:
        """Return the response of `/progress`: at the end it counts every file twice, even failed ones."""
        done = self.status == "completed"
        files = [
            {
                "id": file_id,
                "originalName": file.original_name,
                "progress": (100 if done else 0) if file.size else None,  # 0 / 0 is null in JSON
                "status": "completed" if done else "uploading",
            }
            for file_id, file in self.files
        ]
        return {
            "sessionId": session_id,
            "overallStatus": self.status,
            "totalProgress": 0,
            "completedFiles": 2 * len(files) if done else 0,
            "failedFiles": 0,
            "totalFiles": len(files),
            "files": files,
            "estimatedTimeRemaining": 0,
            "lastUpdate": timestamp(),
        }


class Reference:
    words = CAPTURED

    def __init__(
        self,
        config: ServerConfig,
        store: Store,
        emit: Callable[[str, dict[str, Any]], Awaitable[None]],
        fails: Callable[..., bool],
    ) -> None:
        self.config, self.store = config, store
        self.limits = config.limits
        self._fails = fails
        self.emit = emit
        self.sessions: set[str] = set()
        self.trackers: dict[str, Tracker] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def create(
        self,
        category: str,  # noqa: ARG002 - unused, as in the reference backend
        expected: int,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
        holder: str,  # noqa: ARG002
    ) -> tuple[str, str]:
        session_id = str(uuid.uuid4())
        self.sessions.add(session_id)
        return session_id, timestamp()

    def snapshot(self, session_id: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return None: there is no replay (3.7)."""
        return None

    def newest(self) -> list[dict[str, Any]]:
        """Return nothing: no call shows sessions."""
        return []

    async def progress(self, session_id: str) -> dict[str, Any]:
        """Return the state. Raises ApiError 404 until a body is complete, and soon after the end (3.1, 3.6)."""
        tracker = self.trackers.get(session_id)
        if tracker is None:
            raise ApiError(404, "SESSION_NOT_FOUND", "上传会话不存在")
        return tracker.answer(session_id)

    async def cancel(self, session_id: str, headers: Mapping[str, str]) -> None:  # noqa: ARG002
        """Report cancelled without stopping anything (3.9). Raises ApiError 404 if no batch is running."""
        tracker = self.trackers.get(session_id)
        if tracker is None or tracker.status == "completed":
            raise ApiError(404, "SESSION_NOT_FOUND", "上传会话不存在或已完成")
        tracker.status = "cancelled"
        event = {"completedFiles": 0, "failedFiles": 0, "totalFiles": len(tracker.files)}
        await self._emit(session_id, "cancelled", **event, message="上传已取消")

    async def delete(self, file_id: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - as the bundled one
        return await self.store.delete(file_id)

    async def finish(self, session_id: str, given_up: int, headers: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        """Raise ApiError 404: the call doesn't exist."""
        raise _refusal(404, "NOT_FOUND")

    def statuses(self) -> dict[str, int]:
        """Return the number of sessions by status; sessions without a tracker are pending."""
        tracked = [tracker.status for tracker in self.trackers.values()]
        return counted([*tracked, *["pending"] * (len(self.sessions) - len(tracked))])

    def calls(self) -> dict[str, Calls]:
        """Return nothing: there are no others."""
        return {}

    async def sweep(self) -> None:
        """Do nothing: sessions never expire."""

    async def record_times(self) -> None:
        """Do nothing: sessions are in memory only."""

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive a whole body without events, then process its files in order.

        Raises ApiError after the whole body was read; 408 with an empty response after the request timeout (3.10).
        Processing continues if the client disconnects (3.9). A stop during the processing is a 500 (3.15).
        """
        reader = BatchReader(self.limits, self.store.incoming, held_by(request), eager=False)
        try:
            async with asyncio.timeout(self.limits.request_timeout or None):
                await reader.read(request.receive, request.headers.get("content-type", ""), self.config.pace)
            session_id, category = self._checked(reader.texts, reader.files)
        except BaseException as error:
            await reader.discard()
            if isinstance(error, TimeoutError) or (isinstance(error, ApiError) and error.status == 408):
                raise ApiError(408, "", "") from None
            if isinstance(error, OSError):
                raise _refusal(500, "UPLOAD_FAILED", details=error.strerror) from error
            raise
        processing = asyncio.ensure_future(self._process(session_id, category, reader))
        self._running.add(processing)
        processing.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(processing)
        except asyncio.CancelledError:  # the server stops: 503 would mean that nothing is stored
            raise _refusal(500, "UPLOAD_FAILED") from None

    def _checked(self, fields: dict[str, str], files: list[FileState]) -> tuple[str, str]:
        """Return session id and category, checked in the order of the reference backend. Raises ApiError."""
        session_id, category = fields.get("sessionId"), fields.get("category")
        if not session_id:
            raise _refusal(400, "NO_SESSION_ID")
        if not category or not files:
            raise _refusal(400, "MISSING_PARAMETERS")
        if category not in CATEGORIES:
            raise _refusal(400, "INVALID_CATEGORY")
        if session_id not in self.sessions:  # 3.14
            raise _refusal(500, "UPLOAD_FAILED", details="会话不存在")
        return session_id, category

    async def _process(self, session_id: str, category: str, reader: BatchReader) -> dict[str, Any]:
        files = reader.files
        for file in files:
            file.original_name = re.split(r"[/\\]", file.original_name)[-1]
        tracker = self.trackers[session_id] = Tracker(files)
        counts = {"completedFiles": 0, "failedFiles": 0}
        await self._emit(session_id, "uploading", **counts, totalFiles=len(files), message="开始上传...")
        await self._emit(session_id, "uploading", totalProgress=5, **counts, message="开始上传文件...")
        try:
            for number, file in enumerate(files):
                await self._process_file(session_id, category, file, number, len(files), counts)
        finally:
            await reader.discard()
        status, message = "completed", "所有文件上传完成"
        if counts["failedFiles"]:
            status, message = "partial", "部分文件上传失败"
        await self._emit(session_id, status, totalProgress=100, **counts, message=message)
        tracker.status = "completed"
        doubled = {"completedFiles": len(files), "failedFiles": 0, "totalFiles": len(files)}
        await self._emit(session_id, "completed", totalProgress=100, **doubled, message="所有文件上传完成")
        asyncio.get_running_loop().call_later(self.config.progress_linger, self._forget, session_id, tracker)
        answer = batch_answer(session_id, files)
        for shown, file in zip(answer["files"], files, strict=True):
            if file.path is not None:  # 3.5: the path on the server's disk
                shown["filePath"] = str(self.store.root / file.path)
        return answer

    def _forget(self, session_id: str, tracker: Tracker) -> None:
        if self.trackers.get(session_id) is tracker:
            del self.trackers[session_id]

    async def _process_file(
        self, session_id: str, category: str, file: FileState, number: int, total: int, counts: dict[str, int]
    ) -> None:
        """Process one file: move it into place (3.15), then report the steps."""
        name = file.original_name

        async def report(percent: float, status: str, message: str, **extra: Any) -> None:
            current = {"id": file.id, "originalName": name, "progress": file.progress, "status": status, **extra}
            share = js_round((100 * number + percent) / total)
            event = {"totalProgress": share, **counts, "currentFile": current, "message": message}
            await self._emit(session_id, "uploading", **event)

        file.started, file.progress, file.speed = timestamp(), 0, 0
        await report(0, "uploading", f"正在上传 {name}...")
        try:
            await self._move_into_place(session_id, category, file)
        except OSError as error:
            file.fail("UPLOAD_FAILED", error.strerror or str(error))
            counts["failedFiles"] += 1
            await report(0, "failed", f"{name} 上传失败", error=file.error)
            return
        file.speed = file.size / 1000
        for step in STEPS:
            await asyncio.sleep(self.limits.processing / len(STEPS))
            file.progress = step
            await report(step, "uploading", f"正在上传 {name}... {step}%", uploadSpeed=js_number(file.speed))
        file.status, file.ended = "completed", timestamp()
        counts["completedFiles"] += 1
        await report(100, "completed", f"{name} 上传完成")

    async def _move_into_place(self, session_id: str, category: str, file: FileState) -> None:
        moment = re.sub("[:.]", "-", timestamp())
        stored = f"{session_id}_{moment}_{re.sub(r'[^A-Za-z0-9._-]', '_', file.original_name)}"
        path = self.store.root / category / stored
        if self._fails(file.original_name):
            raise OSError(5, f"EIO: i/o error, rename '{path}'")
        if len(os.fsencode(stored)) > NAME_MAX:
            raise OSError(36, f"ENAMETOOLONG: name too long, lstat '{path}'")
        placed = FileState(stored, id=file.id, size=file.size, data=file.data)

        def changes() -> list[Change]:
            if placed.path is None:
                raise placed.cause or OSError(errno.EIO, placed.error)
            file.path = placed.path
            return [self.store.files_saved([placed.row(session_id, 0)])]  # for DELETE by id

        await put(self.store, category, [placed], changes)

    async def _emit(self, session_id: str, status: str, **fields: Any) -> None:
        event = {"sessionId": session_id, "timestamp": timestamp(), "overallStatus": status, **fields}
        await self.emit(session_id, event)


def _refusal(status: int, code: str, details: str | None = None) -> ApiError:
    return ApiError(status, code, CAPTURED.errors[code], details=details)

"""An ended session is final: it is cancelled or finished at each wait of a request that stores files in it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import types
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from server.packs.packing import body_of_pack, headers_of, manifest_of
from server.tus.tus_client import BODY, TUS, metadata

from uploader_server.app import create_app
from uploader_server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

FILE = b"content of the file"
PIECE = 40  # bytes that arrive at once
BATCH = (
    b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
        for part in (
            (b"sessionId", b"", b"%s"),
            (b"category", b"", b"personal"),
            (b"files", b'; filename="a.bin"', FILE),
        )
    )
    + b"--B--\r\n"
)
counting: contextvars.ContextVar[Waits | None] = contextvars.ContextVar("counting", default=None)


class Waits:
    """Calls `act` at the wait number `at` of a request and of the tasks that it starts."""

    def __init__(self, at: int, act: Callable[[], Awaitable[object]]) -> None:
        self.at, self.act, self.count = at, act, 0
        self.acting: asyncio.Task[object] | None = None

    @types.coroutine
    def counted(self, running: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        failure: BaseException | None = None
        while True:
            try:
                awaited = running.send(None) if failure is None else running.throw(failure)
            except StopIteration as end:
                return end.value
            self.count += 1
            if self.count == self.at:
                self.acting = contextvars.Context().run(asyncio.ensure_future, self.act())  # type: ignore[arg-type]
            failure = None
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on, as a cancellation
                failure = error


def make_task(loop: asyncio.AbstractEventLoop, running: Any, **how: Any) -> asyncio.Task[Any]:
    waits = counting.get()
    return asyncio.Task(running if waits is None else _run(waits, running), loop=loop, **how)


async def _run(waits: Waits, running: Any) -> Any:
    return await waits.counted(running)


class Server:
    """The application without sockets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.app = create_app(ServerConfig(root=root, port=0, durability="none"))

    async def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], Any]:
        """Send a request; return status, headers and body of the answer."""
        named = {"host": "localhost", "content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "headers": [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in named.items()],
        }
        starts = range(0, max(1, len(body)), PIECE)
        pieces = [(body[start : start + PIECE], start + PIECE < len(body)) for start in starts]
        messages = [{"type": "http.request", "body": piece, "more_body": more} for piece, more in pieces]
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        await self.app(scope, receive, send)
        content = b"".join(one.get("body", b"") for one in answers[1:])
        known = {name.decode().lower(): value.decode() for name, value in answers[0]["headers"]}
        return answers[0]["status"], known, json.loads(content) if content[:1] == b"{" else None

    async def session(self, files: int = 1) -> str:
        asked = json.dumps({"category": "personal", "expectedFiles": files}).encode()
        _, _, body = await self.call("POST", "/api/upload/session", asked, content_type="application/json")
        return str(body["sessionId"])

    async def batch(self, session: str) -> int:
        kind = "multipart/form-data; boundary=B"
        return (await self.call("POST", "/api/upload/batch", BATCH % session.encode(), content_type=kind))[0]

    async def pack(self, session: str) -> int:
        body = body_of_pack(manifest_of(session, {"a.bin": FILE}), FILE)
        status, _, _ = await self.call("POST", "/api/upload/packs", body, **headers_of(None))
        return status

    async def tus(self, session: str) -> int:
        """Create an upload, and send its bytes."""
        named = metadata(filename="a.bin", sessionId=session)
        described = {**TUS, "Upload-Length": str(len(FILE)), "Upload-Metadata": named}
        status, headers, _ = await self.call("POST", "/api/upload/files/", **described)
        if status == 201:
            status, _, _ = await self.call(
                "PATCH", urlsplit(headers["location"]).path, FILE, **{**BODY, "Upload-Offset": "0"}
            )
        return status

    async def creation(self, session: str) -> int:
        """Create an upload with all its bytes."""
        named = metadata(filename="a.bin", sessionId=session)
        described = {**BODY, "Upload-Length": str(len(FILE)), "Upload-Metadata": named}
        return (await self.call("POST", "/api/upload/files/", FILE, **described))[0]

    async def joined(self, session: str) -> int:
        """Create two parts, and join them."""
        urls = []
        for piece in (FILE[:5], FILE[5:]):
            described = {**BODY, "Upload-Length": str(len(piece)), "Upload-Concat": "partial"}
            described["Upload-Metadata"] = metadata(sessionId=session)
            status, headers, _ = await self.call("POST", "/api/upload/files/", piece, **described)
            if status != 201:
                return status
            urls.append(headers["location"])
        described = {**TUS, "Upload-Concat": f"final;{' '.join(urls)}"}
        described["Upload-Metadata"] = metadata(filename="a.bin", sessionId=session)
        return (await self.call("POST", "/api/upload/files/", **described))[0]


REQUESTS = ["batch", "pack", "tus", "creation", "joined"]
ENDS = {"cancel": "cancelled", "finish": "partial"}


async def ended_at(server: Server, request: str, end: str, at: int, files: int) -> bool:
    """End a session at a wait of a request, and check what is left; return whether there was such a wait."""
    session = await server.session(files)
    path = {"cancel": f"/api/upload/cancel/{session}", "finish": f"/api/upload/session/{session}/finish"}[end]
    waits = Waits(at, lambda: server.call("POST", path, b'{"failed": 1}', content_type="application/json"))
    counting.set(waits)
    status = await asyncio.ensure_future(getattr(server, request)(session))
    counting.set(None)
    if waits.acting is None:
        assert status < 300, f"{request} is answered with {status}"
        return False
    answer = await waits.acting
    _, _, progress = await server.call("GET", f"/api/upload/progress/{session}")
    there = sorted(path.name for path in server.root.glob("personal/*") if path.is_file())
    counted = progress["completedFiles"] if progress is not None else 0
    where = f"{request}, {end} at wait {at}: answered {status}, the end {answer}, {progress}, {there}"  # type: ignore[misc]
    if answer[0] == 200:  # type: ignore[index]
        assert progress["overallStatus"] in ("cancelled", "partial", "completed"), where
        again = await server.pack(session)
        assert again in (404, 409), where
        _, _, later = await server.call("GET", f"/api/upload/progress/{session}")
        assert {**later, "lastUpdate": ""} == {**progress, "lastUpdate": ""}, where
    assert counted == len(there), where
    assert (status < 300) == (len(there) == 1), where
    for name in there:
        (server.root / "personal" / name).unlink()
    return True


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_session_that_ends_at_any_wait_of_a_request_stays_ended(request_: str, end: str, tmp_path: Path) -> None:
    """What is answered as stored is stored and counted; of what is refused nothing is."""

    async def run() -> int:
        asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]
        server = Server(tmp_path)
        at = 1
        while await ended_at(server, request_, end, at, files=2):
            at += 1
        server.app.close()
        return at

    assert asyncio.run(run()) > 5

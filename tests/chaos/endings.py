"""Ends sessions at each wait of the requests that store files in them: an ended session is final."""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
import secrets
import types
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from server.packs.packing import body_of_pack, headers_of, manifest_of
from server.tus.tus_client import BODY, TUS, metadata

from uploader_server.app import create_app
from uploader_server.config import Durability, ServerConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping, Sequence
    from pathlib import Path

FILE = b"content of the file"
PIECE = 40  # bytes that arrive at once
BATCH = (
    b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
        for part in (
            (b"sessionId", b"", b"%s"),
            (b"category", b"", b"personal"),
            (b"files", b'; filename="%s"', FILE),
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
    task = asyncio.Task(running if waits is None else _run(waits, running), loop=loop, **how)
    task.add_done_callback(lambda _: running.close())  # it may be cancelled before it begins
    return task


async def _run(waits: Waits, running: Any) -> Any:
    return await waits.counted(running)


class Application:
    """The server's application without sockets, and the requests of its clients."""

    def __init__(self, root: Path, durability: Durability = "none", *, mixed_types: bool = True) -> None:
        self.root = root
        self.ended: dict[str, Any] = {}  # the progress of ended sessions
        self.app = create_app(ServerConfig(root=root, port=0, durability=durability, mixed_types=mixed_types))

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

        async def send(message: MutableMapping[str, Any]) -> None:
            answers.append(dict(message))

        await self.app(scope, receive, send)
        content = b"".join(one.get("body", b"") for one in answers[1:])
        known = {name.decode().lower(): value.decode() for name, value in answers[0]["headers"]}
        return answers[0]["status"], known, json.loads(content) if content[:1] == b"{" else None

    async def session(self, files: int = 1) -> str:
        asked = json.dumps({"category": "personal", "expectedFiles": files}).encode()
        _, _, body = await self.call("POST", "/api/upload/session", asked, content_type="application/json")
        return str(body["sessionId"])

    async def batch(self, session: str, name: str = "a.bin") -> int:
        kind = "multipart/form-data; boundary=B"
        return (
            await self.call("POST", "/api/upload/batch", BATCH % (session.encode(), name.encode()), content_type=kind)
        )[0]

    async def pack(self, session: str, name: str = "a.bin") -> int:
        body = body_of_pack(manifest_of(session, {name: FILE}), FILE)
        status, _, _ = await self.call("POST", "/api/upload/packs", body, **headers_of(None))
        return status

    async def tus(self, session: str, name: str = "a.bin") -> int:
        """Create an upload, and send its bytes."""
        named = metadata(filename=name, sessionId=session)
        described = {**TUS, "Upload-Length": str(len(FILE)), "Upload-Metadata": named}
        status, headers, _ = await self.call("POST", "/api/upload/files/", **described)
        if status == 201:
            status, _, _ = await self.call(
                "PATCH", urlsplit(headers["location"]).path, FILE, **{**BODY, "Upload-Offset": "0"}
            )
        return status

    async def creation(self, session: str, name: str = "a.bin") -> int:
        """Create an upload with all its bytes."""
        named = metadata(filename=name, sessionId=session)
        described = {**BODY, "Upload-Length": str(len(FILE)), "Upload-Metadata": named}
        return (await self.call("POST", "/api/upload/files/", FILE, **described))[0]

    async def joined(self, session: str, name: str = "a.bin") -> int:
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
        described["Upload-Metadata"] = metadata(filename=name, sessionId=session)
        return (await self.call("POST", "/api/upload/files/", **described))[0]

    async def in_place(self, session: str, name: str = "a.bin") -> int:
        """Create two parts that are written in place, and join them."""
        key, urls = secrets.token_hex(8), []
        for start, piece in ((0, FILE[:5]), (5, FILE[5:])):
            place = {"finalKey": key, "finalLength": str(len(FILE)), "partOffset": str(start)}
            described = {**BODY, "Upload-Length": str(len(piece)), "Upload-Concat": "partial"}
            described["Upload-Metadata"] = metadata(sessionId=session, **place)
            status, headers, _ = await self.call("POST", "/api/upload/files/", piece, **described)
            if status != 201:
                return status
            urls.append(headers["location"])
        described = {**TUS, "Upload-Concat": f"final;{' '.join(urls)}"}
        described["Upload-Metadata"] = metadata(filename=name, sessionId=session, uploadKey=key)
        return (await self.call("POST", "/api/upload/files/", **described))[0]

    async def ietf(self, session: str, name: str = "a.bin") -> int:
        """Create an upload of the IETF's protocol with a part of its bytes, and append the others."""
        version = {"Upload-Draft-Interop-Version": "6", "Content-Type": "application/partial-upload"}
        described = {
            **version,
            "Upload-Complete": "?0",
            "Upload-Metadata": metadata(filename=name, sessionId=session),
        }
        status, headers, _ = await self.call("POST", "/api/upload/files/", FILE[:5], **described)
        if status == 201:
            described = {**version, "Upload-Complete": "?1", "Upload-Offset": "5"}
            status, _, _ = await self.call("PATCH", urlsplit(headers["location"]).path, FILE[5:], **described)
        return status

    async def moved(self, session: str, name: str = "a.bin") -> int:
        """Move an upload without its last byte from a session that ended, by repeating its creation, and send that."""
        named = {"filename": name, "uploadKey": secrets.token_hex(8)}
        described = {**BODY, "Upload-Length": str(len(FILE))}
        first = await self.session(2)
        other = metadata(sessionId=first, **named)
        await self.call("POST", "/api/upload/files/", FILE[:-1], **described, Upload_Metadata=other)
        await self.call("POST", f"/api/upload/session/{first}/finish", b"{}", content_type="application/json")
        here = metadata(sessionId=session, **named)
        status, headers, _ = await self.call("POST", "/api/upload/files/", **described, Upload_Metadata=here)
        if status == 200:
            described = {**BODY, "Upload-Offset": str(len(FILE) - 1)}
            status, _, _ = await self.call("PATCH", urlsplit(headers["location"]).path, FILE[-1:], **described)
        return status


REQUESTS = ["batch", "pack", "tus", "creation", "joined", "in_place", "ietf", "moved"]
ENDS = ("cancel", "finish")


async def ended_at(application: Application, requests: Sequence[str], end: str, at: int, files: int) -> bool:
    """End a session of `files` files at a wait of requests, which are sent at the same time; check what is left.

    Return whether there was such a wait. What is answered as stored is stored and counted, of what is refused nothing
    is; and an ended session stays as it is.
    """
    session = await application.session(files)
    names = {f"{number}.bin": request for number, request in enumerate(requests)}
    path = {"cancel": f"/api/upload/cancel/{session}", "finish": f"/api/upload/session/{session}/finish"}[end]
    waits = Waits(at, lambda: application.call("POST", path, b'{"failed": 1}', content_type="application/json"))
    counting.set(waits)
    sent = [asyncio.ensure_future(getattr(application, request)(session, name)) for name, request in names.items()]
    counting.set(None)
    statuses = dict(zip(names, await asyncio.gather(*sent), strict=True))
    answer: Any = None if waits.acting is None else await waits.acting
    _, _, progress = await application.call("GET", f"/api/upload/progress/{session}")
    there = sorted(path.name for path in application.root.glob("personal/*"))
    where = f"{end} at wait {at} of {names}: answered {statuses}, the end {answer}, {progress}, {there}"
    assert all(status < 300 or status in {404, 409, 410} for status in statuses.values()), where
    assert answer is not None or files < len(names) or all(status < 300 for status in statuses.values()), where
    assert there == sorted(name for name, status in statuses.items() if status < 300), where
    assert progress["completedFiles"] == len(there), where
    assert not list(application.root.glob(".uploader/incoming/*")), where
    if answer is not None and answer[0] == 200:
        assert progress["overallStatus"] in ({"cancelled"} if end == "cancel" else {"completed", "partial"}), where
        assert await application.pack(session, "later.bin") in {404, 409}, where
        _, _, later = await application.call("GET", f"/api/upload/progress/{session}")
        assert {**later, "lastUpdate": ""} == {**progress, "lastUpdate": ""}, where
        application.ended[session] = later
    for name in there:
        (application.root / "personal" / name).unlink()
    return answer is not None


async def end_at_random(directory: Path, seed: int, rounds: int) -> None:
    """End sessions at random waits of up to three requests at the same time; they are as they were after a restart."""
    chance = random.Random(f"endings {seed}")
    asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]
    application = Application(directory, chance.choice(["none", "fsync"]))
    try:
        for _ in range(rounds):
            requests = chance.choices(REQUESTS, k=chance.randint(1, 3))
            await ended_at(application, requests, chance.choice(ENDS), chance.randint(1, 120), chance.randint(1, 4))
    finally:
        application.app.close()
    restarted = Application(directory)
    try:
        for session, before in application.ended.items():
            _, _, after = await restarted.call("GET", f"/api/upload/progress/{session}")
            same = all(after[name] == before[name] for name in ("overallStatus", "completedFiles", "failedFiles"))
            assert same, f"{before} before a restart, and {after} after it"
    finally:
        restarted.app.close()

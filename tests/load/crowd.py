"""Light uploaders and their watchers in one process: `python -m load.crowd URL UPLOADERS WATCHERS SECONDS RATE SEED`.

Each uploader has its own connection and sends one session after another: a pack, a tus upload in one request, one in
several, and a batch. Its watchers join each session, some of them late, and must receive its end. The process prints a
line once all watchers are connected, waits for a line on stdin, and prints its `Figures` as JSON at the end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from load.watching import PATIENCE, Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALLED_AT_ONCE = 20
PIECE = 64 << 10
"""Bytes of one request of a tus upload in several."""
BOUNDARY = "LOAD"
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


@dataclass
class Figures:
    """What was done, and what failed."""

    requests: int = 0
    sessions: int = 0
    files: int = 0
    bytes: int = 0
    unfinished: int = 0
    """How often a watcher did not hear the end of a session."""
    events: list[int] = field(default_factory=list)
    """Of each watcher."""
    seconds: list[float] = field(default_factory=list)
    """The time to the answer of some requests."""
    errors: Counter[str] = field(default_factory=Counter)

    def failed(self, text: str) -> None:
        self.errors[text] += 1

    def add(self, other: Figures) -> None:
        for name, value in vars(other).items():
            if name == "errors":
                self.errors.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


class Pace:
    """A limit of `rate` steps per second for all callers together."""

    def __init__(self, rate: float) -> None:
        self._interval, self._next = 1 / rate, 0.0

    async def step(self) -> None:
        now = time.monotonic()
        self._next = max(self._next, now) + self._interval
        await asyncio.sleep(self._next - now)


class Line:
    """A persistent HTTP connection."""

    def __init__(self, url: str, figures: Figures) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._figures = figures
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(
        self, method: str, target: str, expected: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[dict[str, str], bytes]:
        """Send a request; return headers (names in lower case) and body of an answer with the `expected` status."""
        async with asyncio.timeout(PATIENCE):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            began = time.monotonic()
            fields = {"Host": f"{self._host}:{self._port}", "Content-Length": str(len(body)), **(headers or {})}
            lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            status, answered = _head(await reader.readuntil(b"\r\n\r\n"))
            length = 0 if method == "HEAD" or status == 204 else int(answered["content-length"])
            content = await reader.readexactly(length)
        self._figures.requests += 1
        if self._figures.requests % 20 == 0:
            self._figures.seconds.append(round(time.monotonic() - began, 4))
        if answered.get("connection") == "close":
            self._figures.failed(f"{method} {target[:20]}: the connection was closed")
            await self.close()
        if status != expected:
            raise UnexpectedError(f"{method} {target.partition('?')[0][:20]}: {status} {content[:200]!r}")
        return answered, content

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None


class UnexpectedError(Exception):
    """An answer that no uploader should get."""


def _head(text: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = text.decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


class Uploader:
    """Sends sessions until `until` (monotonic seconds)."""

    def __init__(self, number: int, url: str, pace: Pace, figures: Figures, seed: int) -> None:
        self._line = Line(url, figures)
        self._figures, self._pace = figures, pace
        self._name, self._random = f"load/{number}", random.Random(f"{seed} {number}")

    async def run(self, watchers: list[Watcher], until: float) -> None:
        while time.monotonic() < until:
            try:
                await self._send_session(watchers)
            except (OSError, EOFError, TimeoutError, UnexpectedError) as error:
                self._figures.failed(f"{type(error).__name__}: {error}")
                await self._line.close()
                await asyncio.sleep(1)
        await self._line.close()

    async def _send_session(self, watchers: list[Watcher]) -> None:
        finishes = self._random.random() < 0.2
        files = 7
        asked = {"category": "personal", "expectedFiles": files + finishes}
        session = str(json.loads(await self._post_json("/api/upload/session", asked, 201))["sessionId"])
        late = len(watchers) // 5
        await asyncio.gather(*(watcher.join(session) for watcher in watchers[late:]))
        await self._send_pack(session, [self._bytes(self._random.randrange(16, 4096)) for _ in range(4)])
        await self._send_tus(session, self._bytes(20_000), 20_000)
        large = self._bytes(3 * PIECE)
        await self._send_tus(session, large, PIECE)
        await asyncio.gather(*(watcher.join(session) for watcher in watchers[:late]))
        stored = await self._send_batch(session, self._bytes(32_000))
        if finishes:
            await self._post_json(f"/api/upload/session/{session}/finish", {}, 200)
        ends = await asyncio.gather(*(watcher.end() for watcher in watchers))
        self._figures.unfinished += sum(end is None or end["completedFiles"] != files for end in ends)
        await self._call("HEAD", stored, 200)
        self._figures.sessions += 1

    def _bytes(self, size: int) -> bytes:
        self._figures.files += 1
        self._figures.bytes += size
        return self._random.randbytes(size)

    def _path(self, data: bytes) -> str:
        """Return a path that names the content, so that the stored file can be checked."""
        return f"{self._name}/{hashlib.sha256(data).hexdigest()}"

    async def _call(
        self, method: str, target: str, expected: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[dict[str, str], bytes]:
        await self._pace.step()
        return await self._line.call(method, target, expected, headers, body)

    async def _post_json(self, target: str, body: object, expected: int) -> bytes:
        sent = json.dumps(body).encode()
        return (await self._call("POST", target, expected, {"Content-Type": "application/json"}, sent))[1]

    async def _send_pack(self, session: str, files: list[bytes]) -> None:
        entries = [
            {"relativePath": self._path(data), "size": len(data), "sha256": self._path(data)[-64:], "lastModified": 0}
            for data in files
        ]
        manifest = json.dumps({"sessionId": session, "files": entries}).encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Idempotency-Key": str(uuid.uuid4())}
        body = _multipart([('name="manifest"', manifest), ('name="data"', b"".join(files))])
        _, answer = await self._call("POST", "/api/upload/packs", 200, headers, body)
        if any(file["status"] != "stored" for file in json.loads(answer)["files"]):
            raise UnexpectedError(f"a file of a pack: {answer[:200]!r}")

    async def _send_tus(self, session: str, data: bytes, piece: int) -> None:
        """Create an upload with its first bytes, and send the rest in pieces."""
        path = self._path(data)
        fields = {"filename": path.rpartition("/")[2], "relativePath": path, "sessionId": session}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items())
        headers = {**TUS, **_checksum(data[:piece]), "Upload-Length": str(len(data)), "Upload-Metadata": metadata}
        answered, _ = await self._call("POST", "/api/upload/files/", 201, headers, data[:piece])
        for start in range(piece, len(data), piece):
            part = data[start : start + piece]
            headers = {**TUS, **_checksum(part), "Upload-Offset": str(start)}
            await self._call("PATCH", answered["location"], 204, headers, part)

    async def _send_batch(self, session: str, data: bytes) -> str:
        """Send a file and return the URL of the stored one."""
        path = self._path(data)
        parts = [
            ('name="sessionId"', session.encode()),
            ('name="category"', b"personal"),
            ('name="relativePath"', path.encode()),
            (f'name="files"; filename="{path.rpartition("/")[2]}"', data),
        ]
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        _, answer = await self._call("POST", "/api/upload/batch", 200, headers, _multipart(parts))
        (file,) = json.loads(answer)["files"]
        if file["status"] != "completed":
            raise UnexpectedError(f"a file of a batch: {file}")
        return str(file["filePath"])


def _checksum(data: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"sha256 {base64.b64encode(hashlib.sha256(data).digest()).decode()}"}


def _multipart(parts: list[tuple[str, bytes]]) -> bytes:
    begin = f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
    pieces = (f"{begin}{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


async def dialled(url: str, count: int, figures: Figures) -> list[Watcher]:
    """Connect this many watchers."""
    some = asyncio.Semaphore(DIALLED_AT_ONCE)
    watchers = [Watcher(url, figures.failed) for _ in range(count)]

    async def dial(watcher: Watcher) -> None:
        async with some:
            await watcher.dial()

    await asyncio.gather(*map(dial, watchers))
    return watchers


async def main() -> None:
    url, count, watching, seconds, rate, seed = sys.argv[1], *map(int, sys.argv[2:])
    figures = Figures()
    watchers = await dialled(url, watching, figures)
    listening = [asyncio.create_task(watcher.listen()) for watcher in watchers]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    pace, until = Pace(rate), time.monotonic() + seconds
    uploaders = [Uploader(seed * 100_000 + number, url, pace, figures, seed) for number in range(count)]
    shares = [watchers[number::count] for number in range(count)]
    await asyncio.gather(*(one.run(share, until) for one, share in zip(uploaders, shares, strict=True)))
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    figures.events = [watcher.events for watcher in watchers]
    print(json.dumps(vars(figures)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

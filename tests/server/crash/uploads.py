"""Clients that can be interrupted at any moment and go on where the server says that they are.

Each `Upload` knows what it sends and what the server has confirmed. `run` sends the rest; it raises `Lost` if the
server is gone, `Refused` after another answer than a success, and AssertionError if the server has lost something that
it confirmed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from server.batches import body_of, file, new_session, text
from server.packs.packing import post_pack
from server.tus.tus_client import DEADLINE, ENDPOINT, append, checksum, concatenate, create, head, metadata, terminate

if TYPE_CHECKING:
    from collections.abc import Callable

PARTIAL = {"Upload-Concat": "partial"}
DRAFT = {"Upload-Draft-Interop-Version": "8"}
LARGE = 150_000
"""Bytes of a file; more than the server writes on the event loop, or before it saves the row of an upload."""


def path_of(created: requests.Response) -> str:
    """Return the path of an upload: another server may continue it."""
    return urlsplit(created.headers["location"]).path


class Lost(Exception):
    """The connection was closed without an answer."""


class Refused(Exception):
    """The server answered, and not with a success."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status}: {why}")
        self.status = status


def nothing() -> None:
    """The default of `last`."""


def asked(call: Callable[..., requests.Response], *arguments: Any, **named: Any) -> requests.Response:
    """Return a successful answer. Raises Lost, Refused."""
    try:
        answer = call(*arguments, **named)
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise Lost from error
    if not answer.ok:
        raise Refused(answer.status_code, answer.text[:200])
    return answer


class Upload:
    """One file, or some, that one client uploads below `personal/`."""

    def __init__(self, name: str, files: dict[str, bytes], *, checked: bool, key: str) -> None:
        self.name, self.checked, self.key = name, checked, key
        self.files = {f"personal/{path}": data for path, data in files.items()}
        self.allowed = {path: {data} for path, data in self.files.items()}
        """The contents that may stand under each name: a meddling client changes what it sends."""
        self.confirmed = False
        self.session = ""

    def begin(self, url: str) -> Upload:
        """Create the session."""
        self.session = new_session(url, 50)
        return self

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        """Send what the server does not have; call `last` before the request that completes the upload."""
        raise NotImplementedError

    def meddle(self, url: str) -> None:
        """Do what a client may do after an error, with other bytes; any answer will do."""

    def _sum(self, data: bytes) -> dict[str, str]:
        return checksum(data) if self.checked else {}


class Tus(Upload):
    """A plain tus upload."""

    def __init__(
        self,
        name: str,
        *,
        checked: bool,
        key: str,
        size: int = LARGE,
        pieces: int = 1,
        creation: bool = False,
        deferred: bool = False,
    ) -> None:
        """Send the file in `pieces`; the first with the `creation`; the length with the last one if `deferred`."""
        self.data = content_of(name, size)
        super().__init__(name, {f"{name}.bin": self.data}, checked=checked, key=key)
        size = len(self.data)
        self._ends = [size * (number + 1) // pieces for number in range(pieces)]
        self._creation, self._deferred = creation, deferred
        self._told = -1

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        offset = self._create(url, last)
        while not self.confirmed:
            end = next(end for end in self._ends if end > offset)
            final = end == len(self.data)
            piece = self.data[offset:end]
            headers = {**self._sum(piece), **({"Upload-Length": str(end)} if self._deferred and final else {})}
            if final:
                last()
            answer = asked(append, url + self._path, offset, piece, headers)
            offset = self._tell(answer)
            assert offset == end, f"{offset} after a PATCH to {end}"

    def _create(self, url: str, last: Callable[[], None]) -> int:
        piece = self.data[: self._ends[0]] if self._creation and self._told < 0 else None
        self._told = max(self._told, 0)
        length = None if self._deferred and not self.confirmed else len(self.data)
        if piece == self.data:
            last()
            length = len(self.data)
        fields = {"uploadKey": self.key, "sessionId": self.session, "relativePath": f"{self.name}.bin"}
        sums = self._sum(piece) if piece else {}
        answer = asked(create, url, length, piece, headers=sums, filename=f"{self.name}.bin", **fields)
        self._path = path_of(answer)
        offset = self._tell(answer)
        if offset == len(self.data) and not self.confirmed:  # the length of a deferred one is not known
            asked(append, url + self._path, offset, b"", {"Upload-Length": str(offset)})
            self.confirmed = True
        return offset

    def _tell(self, answer: requests.Response) -> int:
        offset = int(answer.headers["upload-offset"])
        assert offset >= self._told, f"{self.name}: the offset fell from {self._told} to {offset}"
        self._told = offset
        known = not self._deferred or "content-location" in answer.headers
        if offset == len(self.data) and known:
            self.confirmed = True
        return offset

    def meddle(self, url: str) -> None:
        there = head(url + self._path) if hasattr(self, "_path") else None
        if there is None or not there.ok:
            return
        offset = int(there.headers["upload-offset"])
        other = self.data[:offset] + bytes(byte ^ 255 for byte in self.data[offset:])
        (path,) = self.files
        self.allowed[path].add(other)
        length = {"Upload-Length": str(len(other))} if self._deferred else {}
        append(url + self._path, offset, other[offset:], {**self._sum(other[offset:]), **length})
        head(url + self._path)
        terminate(url + self._path)


class Ietf(Upload):
    """An upload of the IETF's protocol: in two pieces, of which only the last one declares the end, or `whole`."""

    def __init__(self, name: str, *, checked: bool, key: str, size: int = LARGE, whole: bool = False) -> None:
        self.data, self._whole = content_of(name, size), whole
        super().__init__(name, {f"{name}.bin": self.data}, checked=checked, key=key)
        self._told, self._path = 0, ""

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        body = self.data if self._whole and not self._path else b""
        if body:
            last()
        created = asked(requests.post, url + ENDPOINT, data=body, headers=self._creation(body), timeout=DEADLINE)
        self._path = path_of(created)
        self._tell(created)
        while not self.confirmed:
            end = len(self.data) // 2 if self._told < len(self.data) // 2 else len(self.data)
            if end == len(self.data):
                last()
            self._tell(asked(self._append, url, self._told, self.data[self._told : end]))

    def _creation(self, body: bytes) -> dict[str, str]:
        fields = {"uploadKey": self.key, "sessionId": self.session, "filename": f"{self.name}.bin"}
        length = {"Upload-Length": str(len(self.data)), "Upload-Metadata": metadata(**fields)}
        return {**DRAFT, "Upload-Complete": f"?{bool(body):d}", **length, **self._digest("Repr-Digest", self.data)}

    def _append(self, url: str, offset: int, piece: bytes) -> requests.Response:
        complete = {"Upload-Complete": f"?{offset + len(piece) == len(self.data):d}"}
        headers = {**DRAFT, "Content-Type": "application/partial-upload", "Upload-Offset": str(offset), **complete}
        headers |= self._digest("Content-Digest", piece)
        return requests.patch(url + self._path, data=piece, headers=headers, timeout=DEADLINE)

    def _digest(self, field: str, data: bytes) -> dict[str, str]:
        return {field: f"sha-256=:{self._sum(data)['Upload-Checksum'].partition(' ')[2]}:"} if self.checked else {}

    def _tell(self, answer: requests.Response) -> None:
        offset, complete = int(answer.headers["upload-offset"]), answer.headers["upload-complete"] == "?1"
        assert offset >= self._told, f"{self.name}: the offset fell from {self._told} to {offset}"
        assert complete >= self.confirmed, f"{self.name}: it was complete"
        self._told, self.confirmed = offset, complete

    def meddle(self, url: str) -> None:
        there = requests.head(url + self._path, headers=DRAFT, timeout=DEADLINE) if self._path else None
        if there is None or not there.ok:
            return
        offset = int(there.headers["upload-offset"])
        other = bytes(byte ^ 255 for byte in self.data[offset:])
        (path,) = self.files
        self.allowed[path].add(self.data[:offset] + other)
        self._append(url, offset, other)
        for method in ("HEAD", "DELETE"):
            requests.request(method, url + self._path, headers=DRAFT, timeout=DEADLINE)


class Join(Upload):
    """Two parts and their concatenation, copied or written `in_place`; the first part comes with its creation."""

    def __init__(self, name: str, *, checked: bool, key: str, in_place: bool) -> None:
        self.data = content_of(name)
        super().__init__(name, {f"{name}.bin": self.data}, checked=checked, key=key)
        middle = len(self.data) // 3
        self._bounds = [(0, middle), (middle, len(self.data))]
        self._in_place = in_place
        self._told = [-1, -1]
        self._paths = ["", ""]
        self._final = ""

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        for number in range(2):
            self._part(url, number)
        last()
        answer = self._join(url)
        self._final = path_of(answer)
        assert int(answer.headers["upload-offset"]) == len(self.data)
        self.confirmed = True

    def _part(self, url: str, number: int) -> None:
        """Send the rest of a part, unless it was confirmed."""
        start, end = self._bounds[number]
        if self._told[number] == end - start:
            return
        with_creation = self.data[start:end] if number == 0 and self._told[0] < 0 else None
        self._told[number] = max(self._told[number], 0)
        offset = self._tell(asked(self._create, url, number, self.key, with_creation), number)
        data = self.data[start + offset : end]
        if data:
            self._tell(asked(append, url + self._paths[number], offset, data, self._sum(data)), number)
        assert self._told[number] == end - start

    def _create(self, url: str, number: int, key: str, data: bytes | None = None) -> requests.Response:
        start, end = self._bounds[number]
        fields = {"uploadKey": f"{key}-{number}", "sessionId": self.session}
        if self._in_place:
            fields |= {"finalKey": self.key, "finalLength": str(len(self.data)), "partOffset": str(start)}
        headers = {**PARTIAL, **(self._sum(data) if data else {})}
        answer = create(url, end - start, data, headers=headers, **fields)
        if answer.ok:
            self._paths[number] = path_of(answer)
        return answer

    def _tell(self, answer: requests.Response, number: int) -> int:
        offset = int(answer.headers.get("upload-offset", 0))
        assert offset >= self._told[number], f"{self.name}, part {number}: {self._told[number]} fell to {offset}"
        self._told[number] = offset
        return offset

    def _join(self, url: str) -> requests.Response:
        fields = {"uploadKey": self.key, "sessionId": self.session, "relativePath": f"{self.name}.bin"}
        return asked(concatenate, url, *(url + path for path in self._paths), filename=f"{self.name}.bin", **fields)

    def meddle(self, url: str) -> None:
        """Send another second part in the place of the first one, and join again."""
        if not all(self._paths):
            return
        terminate(url + self._paths[1])
        start, end = self._bounds[1]
        other = bytes(byte ^ 255 for byte in self.data[start:end])
        (path,) = self.files
        self.allowed[path].add(self.data[:start] + other)
        if self._create(url, 1, f"{self.key}-other").ok:
            append(url + self._paths[1], 0, other, self._sum(other))
        try:
            terminate(url + path_of(self._join(url)))
        except (Refused, Lost):
            return


class Pack(Upload):
    """A pack of some files in one request."""

    def __init__(self, name: str, *, checked: bool = True, key: str) -> None:
        sent = {f"{name}/{n % 2}/{n}.bin": content_of(f"{name}/{n}")[: 3000 * n] for n in range(6)}
        super().__init__(name, sent, checked=checked, key=key)
        self._sent = sent

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        last()
        answer = asked(post_pack, url, self.session, self._sent, key=self.key)
        failed = [entry for entry in answer.json()["files"] if entry["status"] != "stored"]
        if failed:
            assert all(entry["retryable"] for entry in failed), failed
            self.key += "+"  # those that failed go into a new pack; the others are found by their bytes
            raise Refused(200, str(failed[0]))
        self.confirmed = True


class Batch(Upload):
    """Some files in one multipart request."""

    def __init__(self, name: str, *, checked: bool = False, key: str) -> None:
        sent = {f"{name}/{n}.bin": content_of(f"{name}/{n}")[: 1 + 30_000 * n] for n in range(3)}
        super().__init__(name, sent, checked=checked, key=key)
        self._sent = sent

    def run(self, url: str, last: Callable[[], None] = nothing) -> None:
        last()
        head = [text("sessionId", self.session), text("category", "personal")]
        head += [text("relativePath", path) for path in self._sent]
        parts = [file(path.rpartition("/")[2], data) for path, data in self._sent.items()]
        answer = asked(_post_batch, url, body_of([*head, *parts]))
        failed = [entry for entry in answer.json()["files"] if entry["status"] != "completed"]
        if failed:
            raise Refused(200, str(failed[0]))
        self.confirmed = True


def _post_batch(url: str, body: bytes) -> requests.Response:
    headers = {"content-type": "multipart/form-data; boundary=BOUNDARY"}
    return requests.post(f"{url}/api/upload/batch", data=body, headers=headers, timeout=DEADLINE)


def content_of(name: str, size: int = LARGE) -> bytes:
    """Return the bytes of a file: other ones for each name."""
    return random.Random(name).randbytes(size)


KINDS: dict[str, Callable[..., Upload]] = {
    "tus": Tus,
    "tus in pieces": lambda name, **how: Tus(name, pieces=3, **how),
    "tus with creation": lambda name, **how: Tus(name, creation=True, **how),
    "tus, 1 kB with creation": lambda name, **how: Tus(name, size=1000, creation=True, **how),
    "tus, 60 kB with creation": lambda name, **how: Tus(name, size=60_000, creation=True, **how),
    "tus deferred": lambda name, **how: Tus(name, pieces=2, deferred=True, **how),
    "ietf": Ietf,
    "ietf, 60 kB at once": lambda name, **how: Ietf(name, size=60_000, whole=True, **how),
    "join": lambda name, **how: Join(name, in_place=False, **how),
    "join in place": lambda name, **how: Join(name, in_place=True, **how),
    "pack": Pack,
    "batch": Batch,
}
"""Each way to store a file."""
CHECKED = {"pack": [True], "batch": [False]}
"""Whether requests have checksums; other kinds may."""

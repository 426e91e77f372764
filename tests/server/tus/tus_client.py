"""A small tus client that can also send invalid requests."""

from __future__ import annotations

import base64
import hashlib
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import google_crc32c
import requests
from server.batches import eventually
from serving import inside
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer
    from uploader_server.tus.upload import Upload

DEADLINE = PATIENCE
ENDPOINT = "/api/upload/files/"
TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


def metadata(**fields: str) -> str:
    """Upload-Metadata; a value of '' is sent as a bare key."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}".strip() for key, value in fields.items())


def checksum(data: bytes, algorithm: str = "sha256") -> dict[str, str]:
    digest = (google_crc32c.Checksum(data) if algorithm == "crc32c" else hashlib.new(algorithm, data)).digest()
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}


def create(
    url: str, length: int | None, data: bytes | None = None, *, headers: Mapping[str, str] | None = None, **fields: str
) -> requests.Response:
    """POST; `fields` are metadata, a length of None is deferred, `data` comes along."""
    sent = dict(TUS if data is None else BODY)
    sent |= {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    if fields:
        sent["Upload-Metadata"] = metadata(**fields)
    return requests.post(url + ENDPOINT, data=data, headers={**sent, **(headers or {})}, timeout=DEADLINE)


def created(
    url: str, length: int | None, data: bytes | None = None, *, headers: Mapping[str, str] | None = None, **fields: str
) -> str:
    """The URL of a new upload."""
    answer = create(url, length, data, headers=headers, **fields)
    assert answer.status_code == 201, answer.text
    return urljoin(url, answer.headers["location"])


def file_id(root: Path, upload: str) -> str:
    """The public id of the file of an upload, from the database."""
    with closing(sqlite3.connect(root / ".uploader" / "server.sqlite3", timeout=DEADLINE)) as database:
        query = "SELECT file_id FROM tus_uploads WHERE id = ?"
        return str(database.execute(query, (upload.rpartition("/")[2],)).fetchone()[0])


def data_of(root: Path, upload: str) -> Path:
    """The data file of an upload that doesn't share one."""
    return root / ".uploader" / "tus" / file_id(root, upload)


def append(
    upload: str, offset: int, data: bytes | Iterable[bytes], headers: Mapping[str, str] | None = None
) -> requests.Response:
    """PATCH; an iterator is sent in chunks."""
    sent = {**BODY, "Upload-Offset": str(offset), **(headers or {})}
    return requests.patch(upload, data=data, headers=sent, timeout=DEADLINE)


def head(upload: str) -> requests.Response:
    return requests.head(upload, headers=TUS, timeout=DEADLINE)


def offset_of(upload: str) -> int:
    answer = head(upload)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["upload-offset"])


def state_of(server: EmbeddedServer, upload: str) -> Upload:
    found: Any = inside(server).backend.tus.known.get(upload.rpartition("/")[2])
    return found


def taken(server: EmbeddedServer, upload: str, count: int) -> None:
    """Wait until so many bytes of a running request have reached the upload."""
    eventually(lambda: state_of(server, upload).file.size >= count, f"{count} bytes")


def digest_of(where: str) -> bytes:
    """The SHA-256 of a finished upload or a stored file, which the server computes where it does not know it."""
    answer = requests.head(where, headers={**TUS, "Want-Repr-Digest": "sha-256=1"}, timeout=DEADLINE)
    assert answer.status_code == 200, answer.status_code
    return base64.b64decode(answer.headers["repr-digest"].removeprefix("sha-256=:").removesuffix(":"))


def terminate(upload: str, headers: Mapping[str, str] | None = None) -> requests.Response:
    return requests.delete(upload, headers={**TUS, **(headers or {})}, timeout=DEADLINE)


def concatenate(url: str, *parts: str, **fields: str) -> requests.Response:
    sent = {**TUS, "Upload-Concat": "final;" + " ".join(parts)}
    if fields:
        sent["Upload-Metadata"] = metadata(**fields)
    return requests.post(url + ENDPOINT, headers=sent, timeout=DEADLINE)


def part(url: str, data: bytes, **fields: str) -> str:
    """The URL of a finished partial upload."""
    answer = create(url, len(data), data, headers={"Upload-Concat": "partial"}, **fields)
    assert answer.status_code == 201, answer.text
    return urljoin(url, answer.headers["location"])


def content(upload: str) -> bytes:
    answer = requests.get(upload, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return answer.content


def error(answer: requests.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["error"]


class ByHand:
    """A request of which more is claimed than is sent: it stalls, or breaks off with `close`."""

    def __init__(
        self, method: str, url: str, headers: Mapping[str, str], claimed: int | None, usual: Mapping[str, str] = BODY
    ) -> None:
        """A `claimed` of None sends the body in chunks; `headers` are added to the `usual` ones."""
        address = urlsplit(url)
        assert address.hostname is not None
        self.connection = socket.create_connection((address.hostname, address.port or 80))
        self.connection.settimeout(DEADLINE)
        self._chunked = claimed is None
        framing = {"Transfer-Encoding": "chunked"} if claimed is None else {"Content-Length": str(claimed)}
        lines = [f"{method} {address.path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in {**usual, **headers, **framing}.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self.connection.sendall(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End a chunked body."""
        self.connection.sendall(b"0\r\n\r\n")

    def status(self) -> int:
        """The status of the answer; 0 where the connection was closed without one."""
        try:
            return int(self.connection.recv(65536).split(b" ", 2)[1])
        except (IndexError, ConnectionError):
            return 0

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def patching(upload: str, offset: int, claimed: int | None, headers: Mapping[str, str] | None = None) -> ByHand:
    return ByHand("PATCH", upload, {"Upload-Offset": str(offset), **(headers or {})}, claimed)

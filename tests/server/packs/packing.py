"""Small tools of the tests of packs: manifests, bodies byte by byte, and the calls."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import requests
from server.batches import DEADLINE, connected

if TYPE_CHECKING:
    import socket

ENDPOINT = "/api/upload/packs"
Files = dict[str, bytes] | list[tuple[str, bytes]]


def pairs(files: Files) -> list[tuple[str, bytes]]:
    return list(files.items()) if isinstance(files, dict) else files


def entry(path: str, data: bytes, **changed: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"relativePath": path, "size": len(data), "sha256": digest, "lastModified": 1_700_000_000_000, **changed}


def manifest_of(session: str, files: Files, /, **changed: Any) -> bytes:
    entries = [entry(path, data) for path, data in pairs(files)]
    return json.dumps({"sessionId": session, "files": entries, **changed}).encode()


def part(name: str, data: bytes) -> bytes:
    return b'--BOUNDARY\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), data)


def body_of_pack(manifest: bytes, data: bytes) -> bytes:
    return part("manifest", manifest) + part("data", data) + b"--BOUNDARY--\r\n"


def headers_of(key: str | None, **more: str) -> dict[str, str]:
    key = str(uuid.uuid4()) if key is None else key
    return {"Content-Type": "multipart/form-data; boundary=BOUNDARY", "Idempotency-Key": key, **more}


def post_body(url: str, body: bytes, *, key: str | None = None, **more: str) -> requests.Response:
    return requests.post(url + ENDPOINT, data=body, headers=headers_of(key, **more), timeout=DEADLINE)


def post_pack(url: str, session: str, files: Files, *, key: str | None = None, **more: str) -> requests.Response:
    data = b"".join(data for _, data in pairs(files))
    return post_body(url, body_of_pack(manifest_of(session, files), data), key=key, **more)


def send_pack(url: str, session: str, files: Files, *, key: str | None = None) -> list[dict[str, Any]]:
    """The files of the answer."""
    answer = post_pack(url, session, files, key=key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["sessionId"] == session
    listed: list[dict[str, Any]] = answer.json()["files"]
    return listed


def recalled(url: str, key: str, **headers: str) -> requests.Response:
    return requests.get(f"{url}{ENDPOINT}/{key}", headers=headers, timeout=DEADLINE)


def half_sent(url: str, body: bytes, *, sent: int, key: str = "half") -> socket.socket:
    """A pack with only the first bytes of its body sent; the caller closes the connection."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers_of(key).items())
    connection = connected(url)
    connection.sendall(
        f"POST {ENDPOINT} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
    )
    connection.sendall(body[:sent])
    return connection

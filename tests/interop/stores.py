"""Servers that fsspec reads files from, each on a free loopback port: S3, Google Cloud Storage, SFTP and HTTP.

The packages are those of the extra `interop`. A server runs in a thread of the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import requests
from interop.light_s3 import BUCKET
from interop.proxies import running
from scripted_server import Answer, Request, Rule, ScriptedServer
from serving import free_port
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER, PASSWORD = "me", "secret"


class Store(NamedTuple):
    """A directory on a server: its URL, what the clients need in the environment, and how to write a file in it."""

    url: str
    environment: dict[str, str]
    write: Callable[[str, bytes], None]
    top: Path | None = None
    """The directory on this machine, where it is one."""
    beside: Callable[[str, bytes], None] = lambda _key, _data: None
    """Writes an object of S3 beside the directory, which other tests do not see."""
    client: Any = None
    """The client of boto3 for S3."""


@contextlib.contextmanager
def s3() -> Iterator[Store]:
    """Run moto."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": USER, "aws_secret_access_key": PASSWORD}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=BUCKET)
    try:
        yield Store(
            f"s3://{BUCKET}/in",
            {name.upper(): value for name, value in keys.items()} | {"AWS_ENDPOINT_URL": address},
            lambda name, data: client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=data),
            beside=lambda key, data: client.put_object(Bucket=BUCKET, Key=key, Body=data),
            client=client,
        )
    finally:
        requests.post(f"{address}/moto-api/reset", timeout=PATIENCE)  # all servers of a process share their objects
        server.stop()


@contextlib.contextmanager
def light_s3(keys: int = 0) -> Iterator[Store]:
    """Run `light_s3.py`, for many requests or many `keys`, which its directory has at first."""
    import boto3

    port = free_port()
    secret = {"aws_access_key_id": USER, "aws_secret_access_key": PASSWORD}
    with running([sys.executable, str(Path(__file__).with_name("light_s3.py")), str(port), str(keys)], port):
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", **secret)
        yield Store(
            f"s3://{BUCKET}/in",
            {name.upper(): value for name, value in secret.items()} | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"},
            lambda name, data: client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=data),
            client=client,
        )


@contextlib.contextmanager
def gcs() -> Iterator[Store]:
    """Run gcp-storage-emulator."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    address = f"http://127.0.0.1:{server._api._httpd.server_port}"  # noqa: SLF001

    def write(name: str, data: bytes) -> None:
        if not data:
            return  # the emulator can't store an empty file
        place, query = f"{address}/upload/storage/v1/b/{BUCKET}/o", {"uploadType": "media", "name": f"in/{name}"}
        kind = {"Content-Type": "application/octet-stream"}
        requests.post(place, data, params=query, headers=kind, timeout=PATIENCE).raise_for_status()

    # gcsfs asks for the layout of each bucket by gRPC, which the emulator does not have.
    environment = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "FSSPEC_GS_TOKEN": "anon"}
    try:
        yield Store(f"gs://{BUCKET}/in", {**environment, "STORAGE_EMULATOR_HOST": address}, write)
    finally:
        server.stop()


@contextlib.contextmanager
def sftp(top: Path) -> Iterator[Store]:
    """Run the server of asyncssh."""
    import asyncssh

    class Door(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Door,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(top)),
        )

    async def close(listening: asyncssh.SSHAcceptor) -> None:
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    (top / "in").mkdir(parents=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result(PATIENCE)
    environment = {"FSSPEC_SFTP_USERNAME": USER, "FSSPEC_SFTP_PASSWORD": PASSWORD}
    try:
        yield Store(
            f"sftp://127.0.0.1:{listening.get_port()}/in",
            environment,
            lambda *file: _write(top / "in", *file),
            top / "in",
        )
    finally:
        asyncio.run_coroutine_threadsafe(close(listening), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)


def _write(top: Path, name: str, data: bytes) -> None:
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime if path.exists() else None
    path.write_bytes(data)
    if before is not None:
        os.utime(path, (before + 1, before + 1))  # SFTP has whole seconds


class Web:
    """Serves `files`, by ranges or whole, with an ETag or without (then with `Last-Modified`); a context manager."""

    def __init__(self, *, tagged: bool = True, ranges: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self._tagged, self._by_ranges = tagged, ranges
        self.ranges: list[str] = []
        self.failures = 0
        """How many requests are answered with 503, from the first one for a range on."""

    def __enter__(self) -> Self:
        self._server = ScriptedServer(Rule(self._answer)).__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)

    def _answer(self, request: Request) -> Answer:
        data = self.files.get(request.path.strip("/"))
        wanted = request.headers.get("range")
        if wanted:
            self.ranges.append(wanted)
        if self.failures and self.ranges:
            self.failures -= 1
            return Answer(503)
        if data is None or request.method not in ("GET", "HEAD"):
            return Answer(404)
        headers: dict[str, object] = {"Last-Modified": "Thu, 26 Nov 2026 20:16:47 GMT", "Accept-Ranges": "bytes"}
        if self._tagged:
            headers = {"ETag": json.dumps(hashlib.sha256(data).hexdigest())}
        if not wanted or not self._by_ranges:
            return Answer(200, data, headers)
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        return Answer(206, data[first : last + 1], headers)

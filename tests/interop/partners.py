"""The tus servers of npm and PyPI that `uploader` uploads to: how to run them, and what they have stored."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, NamedTuple, Self

from interop.proxies import running
from interop.stores import BUCKET, s3
from serving import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path


Digests = set[tuple[str, str]]
"""Uploads: the name in the metadata and the SHA-256 of each."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(directory: Path, sizes: dict[str, int]) -> Digests:
    """Write files of random bytes, which are the same in each run."""
    directory.mkdir()
    data = {name: random.Random(name).randbytes(size) for name, size in sizes.items()}
    for name, content in data.items():
        (directory / name).write_bytes(content)
    return {(name, sha256(content)) for name, content in data.items()}


def described(pattern: str, data: str) -> Callable[[Path], Digests]:
    """Return a reader of directories with a JSON file for each upload, and its bytes at the path `data` beside it."""

    def read(store: Path) -> Digests:
        infos = [(path, json.loads(path.read_text())) for path in store.glob(pattern)]
        return {
            (info["metadata"]["filename"], sha256((path.parent / data.format(path.stem)).read_bytes()))
            for path, info in infos
        }

    return read


def in_a_database(store: Path) -> Digests:
    with contextlib.closing(sqlite3.connect(store / "uploads.db")) as database:
        rows = database.execute("SELECT upload_id, metadata FROM uploads WHERE completed").fetchall()
    return {(json.loads(metadata)["filename"], sha256((store / key).read_bytes())) for key, metadata in rows}


class Partner(NamedTuple):
    """A server. `flaws` are the checks of `smoke` that it fails, with what it does instead."""

    name: str
    package: str
    """The package whose version is shown."""
    command: tuple[str, ...]
    """Its first word says where it is installed; `{store}` and `{port}` are replaced."""
    stored: Callable[[Path], Digests] | None
    """Reads its directory; None for a bucket."""
    endpoint: str = "/files"
    flaws: Mapping[str, str] = {}
    spoils: bool = False
    """Whether it stores bytes twice after it was killed."""
    preset: str = ""


NO_EXPIRY = {"tus-expiration": "no `Upload-Expires`"}
NODE = ("node", "node_servers.mjs")
PYTHON = ("python", "python_servers.py")
WHERE = ("{store}", "{port}")
PARTNERS = [
    Partner(
        "@tus/server, file store",
        "@tus/server",
        (*NODE, "file", *WHERE),
        described("*.json", "{}"),
        flaws={"tus-version": "400 to another version", **NO_EXPIRY},
        preset="tus-node-server",
    ),
    Partner(
        "@tus/server, S3 store",
        "@tus/s3-store",
        (*NODE, "s3", *WHERE),
        None,
        flaws={"tus-version": "400 to another version", **NO_EXPIRY},
        preset="tus-node-server",
    ),
    Partner(
        "tuspyserver",
        "tuspyserver",
        (*PYTHON, "tuspyserver", *WHERE),
        described("*.info", "{}"),
        endpoint="/files/",
        spoils=True,
        preset="tuspyserver",
    ),
    Partner(
        "asgi-tus",
        "asgi-tus",
        (*PYTHON, "asgi_tus", *WHERE),
        described(".info/*.info", "../{}"),
    ),
    Partner(
        "litestar-tus",
        "litestar-tus",
        (*PYTHON, "litestar_tus", *WHERE),
        described("*.info", "{}"),
        spoils=True,
    ),
    Partner(
        "resumable-upload, server",
        "resumable-upload",
        (
            *("resumable-upload", "serve", "--host", "127.0.0.1", "--port", "{port}", "--upload-dir", "{store}"),
            *("--db-path", "{store}/uploads.db", "--enable-downloads", "--log-level", "ERROR"),
        ),
        in_a_database,
        flaws=NO_EXPIRY,
    ),
    Partner(
        "@uploadx/core",
        "@uploadx/core",
        (*NODE, "uploadx", *WHERE),
        described("*.META", "{}"),
        flaws={"tus-core": "204 to a wrong offset"},
    ),
]


class PartnerServer:
    """A running partner; a context manager. `directory` is the one that it is installed in."""

    _process: subprocess.Popen[str]

    def __init__(self, partner: Partner, directory: Path, store: Path) -> None:
        self.partner, self._directory, self._store = partner, directory, store
        self._port = free_port()
        self._stack = contextlib.ExitStack()
        self._bucket: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        """The creation URL."""
        return f"http://127.0.0.1:{self._port}{self.partner.endpoint}"

    def __enter__(self) -> Self:
        if self.partner.stored is None:
            self._bucket = self._stack.enter_context(s3()).environment
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start it, on the same port each time."""
        store = json.dumps(self._s3_options) if self._bucket else str(self._store)
        words = [word.replace("{store}", store).replace("{port}", str(self._port)) for word in self.partner.command]
        program = shutil.which(words[0], path=f"{self._directory}/bin{os.pathsep}{os.environ['PATH']}")
        command = [program or words[0], *words[1:]]
        self._process = self._stack.enter_context(running(command, self._port, cwd=self._directory))

    def kill(self) -> None:
        """End it without notice."""
        self._process.kill()
        self._process.wait()

    def stored(self) -> Digests:
        """Read what it has stored."""
        return self.partner.stored(self._store) if self.partner.stored else self._in_the_bucket()

    @property
    def _s3_options(self) -> dict[str, object]:
        env = self._bucket
        keys = {"accessKeyId": env["AWS_ACCESS_KEY_ID"], "secretAccessKey": env["AWS_SECRET_ACCESS_KEY"]}
        where = {"endpoint": env["AWS_ENDPOINT_URL"], "region": "us-east-1", "forcePathStyle": True}
        return {"bucket": BUCKET, "credentials": keys, **where}

    def _in_the_bucket(self) -> Digests:
        import boto3

        keys = {name.lower(): value for name, value in self._bucket.items() if name != "AWS_ENDPOINT_URL"}
        client = boto3.client("s3", endpoint_url=self._bucket["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys)
        found, keys_there = set(), [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        for key in keys_there:
            if key.endswith(".info") and key.removesuffix(".info") in keys_there:  # else its upload is not complete
                info, data = (
                    client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
                    for name in (key, key.removesuffix(".info"))
                )
                found.add((json.loads(info)["metadata"]["filename"], sha256(data)))
        return found

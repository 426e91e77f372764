"""Run other tus software in its own processes, and check what it stored on the bundled server."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import requests
from server.tus.tus_client import data_of
from time_limits import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


class Node:
    """The `.mjs` scripts of this directory, copied to a directory with their npm packages."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a script with pipes for its outputs."""
        command: list[str | Path] = ["node", self.directory / script, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def add(self, script: str, text: str) -> Path:
        """Write a further script, beside the packages; return its path."""
        path = self.directory / script
        path.write_text(text)
        return path

    def run(self, script: str, **options: Any) -> dict[str, Any]:
        """Run a script with JSON as its argument, and return the JSON that it prints."""
        process = self.start(script, json.dumps(options))
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        return result


@dataclass
class Destination:
    """The bundled server as a destination for one file, in a session or without one."""

    server: EmbeddedServer
    session: str | None

    @property
    def endpoint(self) -> str:
        """The creation URL for tus clients."""
        return f"{self.server.url}/api/upload/files/"

    def metadata(self, name: str) -> dict[str, str]:
        """Return the metadata that a client sends with its file."""
        return {"filename": name} | ({"sessionId": self.session} if self.session else {})

    def check(self, url: str, name: str, data: bytes) -> None:
        """Check that the upload and the stored file have these bytes, and that the session is completed."""
        answer = requests.get(url, timeout=PATIENCE)
        assert (answer.status_code, answer.content == data) == (200, True)
        stored = requests.get(self.server.url + answer.headers["content-location"], timeout=PATIENCE)
        assert (stored.status_code, stored.content == data) == (200, True)
        if self.session is None:
            return
        assert unquote(answer.headers["content-location"]) == f"/uploads/personal/{name}"
        state = requests.get(f"{self.server.url}/api/upload/progress/{self.session}", timeout=PATIENCE).json()
        assert (state["overallStatus"], state["completedFiles"], state["failedFiles"]) == ("completed", 1, 0)

    def check_gone(self, url: str) -> None:
        """Check that the upload is deleted and nothing of it is stored."""
        for method in ("HEAD", "GET"):
            answer = requests.request(method, url, headers={"Tus-Resumable": "1.0.0"}, timeout=PATIENCE)
            assert answer.status_code == 410
        files = [path for path in self.server.root.rglob("*") if path.is_file()]
        assert [path for path in files if ".uploader" not in path.parts] == []
        assert not data_of(self.server.root, url).exists()


def open_session(server: EmbeddedServer, files: int = 1) -> str:
    """Create a session and return its id."""
    wanted = {"category": "personal", "expectedFiles": files}
    answer = requests.post(f"{server.url}/api/upload/session", json=wanted, timeout=PATIENCE)
    assert answer.status_code == 201
    session: str = answer.json()["sessionId"]
    return session

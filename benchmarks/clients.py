"""The clients that are compared: each makes the commands that send the files of one run."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urljoin

if TYPE_CHECKING:
    from benchmarks.files import Files
    from benchmarks.servers import Server

HERE = Path(__file__).parent
NODE_PACKAGES = HERE.parent / "tests" / "interop" / "package.json"
NODE_DIRECTORY = HERE.parent / "build" / "benchmarks"
NPM_INSTALL = ["npm", "install", "--engine-strict", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
NOT_PASSED_ON = ("UPLOADER_", "XDG_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Task:
    """What is to be sent in one run, where to, and a new directory for whatever a client needs."""

    files: Files
    server: Server
    directory: Path
    ca_bundle: Path | None = None


Command: TypeAlias = list[str]
Client: TypeAlias = Callable[[Task], list[Command]]
"""Makes the commands, which then run at the same time."""


def environment(directory: Path, ca_bundle: Path | None = None) -> dict[str, str]:
    """Return the environment of a run: without settings of the user, with an empty journal, without proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(NOT_PASSED_ON) and not name.lower().endswith("_proxy")
    }
    if ca_bundle is not None:
        kept["NODE_EXTRA_CA_CERTS"] = str(ca_bundle)
    places = {f"XDG_{name}_HOME": str(directory / name.lower()) for name in ("CONFIG", "STATE", "CACHE")}
    return {**kept, **places, "TERM": "xterm-256color"}


def uploader(command: str, *options: str, progress: str = "none") -> Client:
    """Return an `uploader`, which sends the whole directory."""

    def commands(task: Task) -> list[Command]:
        return [[*_uploader(command, task, progress), *options, str(task.files.directory)]]

    return commands


def importer(command: str, workers: int, *options: str) -> Client:
    """Return an `uploader import` with processes of this machine."""

    def commands(task: Task) -> list[Command]:
        name, _, *rest = _uploader(command, task)
        return [[name, "import", "--on", f"local:{workers}", *rest, *options, str(task.files.directory)]]

    return commands


def uploaders_at_once(command: str, files_each: int) -> Client:
    """Return as many `uploader` processes as are needed when each sends so many files."""

    def commands(task: Task) -> list[Command]:
        paths = [str(path) for path in task.files.paths()]
        return [
            [
                *_uploader(command, task),
                "--state-dir",
                str(task.directory / f"state-{at}"),
                *paths[at : at + files_each],
            ]
            for at in range(0, len(paths), files_each)
        ]

    return commands


def _uploader(command: str, task: Task, progress: str = "none") -> Command:
    server = task.server
    where = ["--tus-endpoint", server.endpoint] if server.plain else ["--server", server.url]
    trust = ["--ca-bundle", str(task.ca_bundle)] if task.ca_bundle else []
    return [command, "upload", *where, *trust, "--json", "--progress", progress]


def curl_patch(task: Task) -> list[Command]:
    """Send each file as the body of one PATCH; the uploads are created before, which is not measured."""
    transfers = [
        [
            f'url = "{_created(task, path)}"',
            f'upload-file = "{path}"',
            'request = "PATCH"',
            'header = "Upload-Offset: 0"',
        ]
        for path in task.files.paths()
    ]
    return _curl(task, transfers, jobs=len(transfers))


def curl_post(jobs: int) -> Client:
    """Return curl sending each file in one POST (creation with upload), so many at once."""

    def commands(task: Task) -> list[Command]:
        transfers = [
            [
                f'url = "{task.server.endpoint}"',
                f'data-binary = "@{path}"',
                f'header = "Upload-Length: {path.stat().st_size}"',
                f'header = "Upload-Metadata: {_metadata(path)}"',
            ]
            for path in task.files.paths()
        ]
        return _curl(task, transfers, jobs)

    return commands


def _curl(task: Task, transfers: list[list[str]], jobs: int) -> list[Command]:
    """Return one curl for all transfers; each is a list of lines of a config file."""
    common = [
        "fail",
        'output = "/dev/null"',
        'header = "Tus-Resumable: 1.0.0"',
        'header = "Content-Type: application/offset+octet-stream"',
        'header = "Expect:"',
    ]
    config = task.directory / "curl.config"
    config.write_text("\nnext\n".join("\n".join([*lines, *common]) for lines in transfers) + "\n")
    trust = ["--cacert", str(task.ca_bundle)] if task.ca_bundle else []
    together = ["--parallel", "--parallel-max", str(jobs)] if len(transfers) > 1 else []
    return [["curl", "-q", "--silent", "--show-error", *together, *trust, "--config", str(config)]]


def _created(task: Task, path: Path) -> str:
    """Create an upload, and return its URL."""
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(path.stat().st_size),
        "Upload-Metadata": _metadata(path),
    }
    request = urllib.request.Request(task.server.endpoint, b"", headers, method="POST")
    context = ssl.create_default_context(cafile=task.ca_bundle) if task.ca_bundle else None
    with urllib.request.urlopen(request, context=context) as answer:
        return urljoin(task.server.endpoint, str(answer.headers["Location"]))


def _metadata(path: Path) -> str:
    return f"filename {base64.b64encode(path.name.encode()).decode()}"


def tuspy(task: Task) -> list[Command]:
    """Send with tuspy, one file after the other."""
    listed = task.files.listed(task.directory / "list")
    return [[sys.executable, "-m", "benchmarks.tuspy_client", task.server.endpoint, str(listed)]]


def tus_js(script: Path, jobs: int, parts: int = 1) -> Client:
    """Return tus-js-client, which sends so many files at once, and each in so many parts."""

    def commands(task: Task) -> list[Command]:
        listed = task.files.listed(task.directory / "list")
        return [["node", str(script), task.server.endpoint, str(listed), str(jobs), str(parts)]]

    return commands


@dataclass(frozen=True)
class Installed:
    """Which other clients are on this machine. What is missing has its reason in `missing` once it was asked for."""

    missing: dict[str, str]

    @cached_property
    def curl(self) -> bool:
        return self._have("curl", shutil.which("curl") is not None, "is not in PATH")

    @cached_property
    def tuspy(self) -> bool:
        return self._have("tuspy", importlib.util.find_spec("tusclient") is not None, "comes with the extra `dev`")

    @cached_property
    def node(self) -> Path | None:
        """The directory of the scripts for node, with what they import; installed there once."""
        absent = [name for name in ("node", "npm") if shutil.which(name) is None]
        why = f"needs {' and '.join(absent)} in PATH" if absent else _install_node_packages()
        return NODE_DIRECTORY if self._have("tus-js-client, @tus/server", not why, why) else None

    def _have(self, name: str, found: bool, why: str) -> bool:
        if not found:
            self.missing[name] = why
        return found


def _install_node_packages() -> str:
    """Install what the interop tests use as well, unless it is there; return why that failed, or nothing."""
    NODE_DIRECTORY.mkdir(parents=True, exist_ok=True)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, NODE_DIRECTORY)
    packages = NODE_DIRECTORY / "package.json"
    if packages.exists() and packages.read_bytes() == NODE_PACKAGES.read_bytes():
        return ""
    packages.unlink(missing_ok=True)
    shutil.copy(NODE_PACKAGES, packages)
    done = subprocess.run(NPM_INSTALL, cwd=NODE_DIRECTORY, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    packages.unlink()  # so that the next run tries again
    return f"npm install failed: {done.stderr.strip()[-300:]}"

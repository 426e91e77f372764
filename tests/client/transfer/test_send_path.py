"""The way of a file through the client: short stacks, the functions that CONTRIBUTING lists, one job for each file."""

from __future__ import annotations

import math
import re
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import running_server
from tus_services import Plain

from uploader_cli import Settings, __main__, upload
from uploader_cli.transfer.pool import Pool, Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

MOST_FRAMES = 10
MOST_FUNCTIONS = 25
CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"
OURS = Path(__main__.__file__).parent


def stack_of_ours(loop: Any) -> list[str]:
    """Return the functions of the client that are being called, from the socket to the `loop` (excluded)."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    names = list[str]()
    while frame is not None and frame.f_code is not loop.__code__:
        if "uploader_cli" in frame.f_code.co_filename:
            names.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return names if frame is not None else []


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The stacks of all calls of `socket.send` in workers, to a server that is not distant, however busy it is."""
    monkeypatch.setattr("uploader_cli.transfer.tus_state.FAR", math.inf)
    stacks: list[list[str]] = []
    real = socket.socket.send

    def send(sock: socket.socket, data: Any, *flags: int) -> int:
        if stack := stack_of_ours(Worker.run):
            stacks.append(stack)
        return real(sock, data, *flags)

    monkeypatch.setattr(socket.socket, "send", send)
    return stacks


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The jobs that the workers have taken."""
    taken: list[object] = []
    take = Pool.take

    def spy(pool: Pool) -> Any:
        job = take(pool)
        taken.extend([job] if job is not None else [])
        return job

    monkeypatch.setattr(Pool, "take", spy)
    return taken


@pytest.mark.parametrize(
    "size", [pytest.param(1000, id="one request"), pytest.param(20 << 20, id="chunks", marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize("kind", ["bundled", "tus", "batch"])
def test_at_most_ten_frames_are_between_a_worker_and_its_socket(
    kind: str, size: int, sends: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(size))
    if kind == "tus":
        with Plain() as plain:
            result = upload([tmp_path / "a.mp4"], Settings(tus_endpoint=plain.url))
    else:
        with running_server(packs=True, tus=kind != "batch") as server:
            result = upload([tmp_path / "a.mp4"], Settings(server=server.url))
    assert result.ok
    assert sends
    deepest = max(sends, key=len)
    assert len(deepest) <= MOST_FRAMES, deepest


def listed_functions() -> list[tuple[str, str]]:
    """Return the modules and names of the functions from the command to the socket."""
    text, module, found = CONTRIBUTING.read_text(encoding="utf-8"), "", list[tuple[str, str]]()
    _, _, section = text.partition("### From `uploader upload x` to the socket")
    for place, name in re.findall(r"^\|(?: `(\S+\.py)`)? \| `(\S+)` \|", section, re.MULTILINE):
        module = place or module
        found.append((module, name))
    return found


def test_contributing_lists_what_is_called_from_the_command_to_the_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    met = {("__main__.py", "run"), ("transfer/pool.py", "Pool.put")}  # the one calls `main`; the other is replaced

    def seen(real: Callable[..., Any], of: str) -> Callable[..., Any]:
        def call(*arguments: Any, **how: Any) -> Any:
            frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
            while threading.current_thread().name == of and frame is not None:
                path = Path(frame.f_code.co_filename)
                if path.is_relative_to(OURS):
                    met.add((path.relative_to(OURS).as_posix(), frame.f_code.co_qualname))
                frame = frame.f_back
            return real(*arguments, **how)

        return call

    monkeypatch.setattr(threading.Thread, "start", seen(threading.Thread.start, threading.current_thread().name))
    monkeypatch.setattr(Pool, "put", seen(Pool.put, "uploader-scheduler"))
    for name in ("send", "sendall"):
        monkeypatch.setattr(socket.socket, name, seen(getattr(socket.socket, name), "uploader-worker"))
    (tmp_path / "a.mp4").write_bytes(bytes(1000))
    with Plain() as plain:
        assert __main__.main(["upload", str(tmp_path / "a.mp4"), "--tus-endpoint", plain.url, "--quiet"]) == 0
    listed = listed_functions()
    assert len(listed) <= MOST_FUNCTIONS
    assert set(listed) == met


@pytest.mark.thorough
def test_each_file_is_one_job(jobs: list[object], tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(200):
        (files / f"{number}.mp4").write_bytes(b"content")
    with Plain() as plain:
        assert upload([files], Settings(tus_endpoint=plain.url)).ok
    assert len(jobs) == 200

"""The way of a file through the client: short stacks, and one job for each file."""

from __future__ import annotations

import math
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import running_server
from tus_services import Plain

from uploader_cli import Settings, upload
from uploader_cli.transfer.pool import Pool, Worker

if TYPE_CHECKING:
    from pathlib import Path

MOST_FRAMES = 10


def stack_of_ours(loop: Any) -> list[str]:
    """Return the functions of the client that are being called, from the socket to the `loop` (excluded)."""
    frame, names = sys._getframe(1), []  # noqa: SLF001
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


@pytest.mark.thorough
def test_each_file_is_one_job(jobs: list[object], tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(200):
        (files / f"{number}.mp4").write_bytes(b"content")
    with Plain() as plain:
        assert upload([files], Settings(tus_endpoint=plain.url)).ok
    assert len(jobs) == 200

"""Expiry counts only the time in which the server runs; data that a restored database doesn't know is kept."""

from __future__ import annotations

import shutil
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import DEADLINE, eventually, new_session, progress
from server.packs.packing import ENDPOINT, headers_of, post_pack
from server.tus.tus_client import append, created, data_of, head, offset_of, part
from server_clock import ServerClock
from serving import running_server

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600.0


class SystemClock(ServerClock):
    """Moves the system time alone."""

    def monotonic(self) -> float:
        return time.monotonic()


class Things:
    """A session, an upload, a part and the answer to a pack."""

    def __init__(self, url: str) -> None:
        self._made_at = url
        self.session = new_session(url, 9)
        self.upload, self.part = created(url, 3, b"ab", sessionId=self.session), part(url, b"ab")
        assert post_pack(url, self.session, {"p": b"pack"}, key="key").status_code == 200

    def statuses(self, url: str) -> list[int]:
        """Return the statuses of the answers about them."""
        answer = requests.get(f"{url}{ENDPOINT}/key", headers=headers_of("key"), timeout=DEADLINE)
        there = [head(one.replace(self._made_at, url)) for one in (self.upload, self.part)]
        return [progress(url, self.session).status_code, *(one.status_code for one in there), answer.status_code]


@pytest.mark.parametrize("durability", ["fsync", "none"])
def test_time_without_a_server_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str) -> None:
    config = {"root": tmp_path, "durability": durability, "packs": True}
    with running_server(**config) as server:
        old, things = server.url, Things(server.url)
    clock = ServerClock(monkeypatch)
    clock.ahead = 8 * DAY
    with running_server(**config) as server:
        clock.wait_for_sweeps()
        assert things.statuses(server.url) == [200] * 4
        expires = head(things.upload.replace(old, server.url)).headers["upload-expires"]
        left = parsedate_to_datetime(expires).timestamp() - clock.time()
        assert abs(left - server.config.upload_ttl) < DEADLINE
        assert append(things.upload.replace(old, server.url), 2, b"c").status_code == 204


@pytest.mark.parametrize("days", [8, -8, 3650])
def test_jump_of_the_system_clock_expires_nothing(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    clock = SystemClock(monkeypatch)
    with running_server(packs=True) as server:
        things = Things(server.url)
        clock.ahead = days * DAY
        clock.wait_for_sweeps()
        assert things.statuses(server.url) == [200] * 4


def test_time_of_an_idle_server_counts_across_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server is killed after five idle days, or stopped."""
    clock = ServerClock(monkeypatch)
    roots = [tmp_path / name for name in ("first", "second", "third")]
    config = {"packs": True, "session_ttl": 12 * DAY, "upload_ttl": 12 * DAY}
    with running_server(root=roots[0], **config) as server:
        things = Things(server.url)
        clock.ahead += 5 * DAY
        clock.wait_for_sweeps()
        shutil.copytree(roots[0], roots[1])  # what a kill leaves
    with running_server(root=roots[1], **config) as server:
        clock.ahead += 5 * DAY
    roots[1].rename(roots[2])
    with running_server(root=roots[2], **config) as server:
        clock.wait_for_sweeps()
        assert data_of(roots[2], things.upload).exists()
        clock.ahead += 3 * DAY
        clock.wait_for_sweeps()
        assert things.statuses(server.url) == [404, 410, 410, 404]


def test_last_use_of_an_upload_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server(root=tmp_path) as server:
        old, upload = server.url, created(server.url, 3, b"ab")
        clock.ahead += 5 * DAY
        assert offset_of(upload) == 2
    with running_server(root=tmp_path) as server:
        clock.ahead += 4 * DAY
        clock.wait_for_sweeps()
        assert offset_of(upload.replace(old, server.url)) == 2


def test_uploads_of_a_newer_database_are_kept_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ServerClock(monkeypatch)
    private = tmp_path / ".uploader"
    config = {"root": tmp_path, "durability": "fsync"}
    with running_server(**config) as server:
        new_session(server.url)
    shutil.copy(private / "server.sqlite3", tmp_path / "older")
    with running_server(**config) as server:
        old, upload = server.url, created(server.url, 9, b"abcdef")
        created(server.url, 9)
        finished = created(server.url, 3, b"abc", filename="finished")
    data = data_of(tmp_path, upload)
    shutil.copy(private / "server.sqlite3", tmp_path / "newer")
    shutil.copy(tmp_path / "older", private / "server.sqlite3")
    with running_server(**config) as server:
        (lost,) = (private / "lost").iterdir()
        assert (lost.name.partition("-")[2], lost.read_bytes()) == (data.name, b"abcdef")
        logged = [record.message for record in caplog.records if record.levelname == "ERROR"]  # shown by default
        assert any(f"the database doesn't know the upload of {data} (6 bytes), now {lost}" in line for line in logged)
        assert [head(url.replace(old, server.url)).status_code for url in (upload, finished)] == [404, 404]
        clock.ahead += 6 * DAY
        clock.wait_for_sweeps()
        assert list((private / "tus").iterdir()) == []
        assert lost.exists()
    shutil.copytree(tmp_path, tmp_path.with_name("repaired"))
    with running_server(**config) as server:
        assert lost.exists()
        clock.ahead += 1.5 * DAY
        eventually(lambda: not lost.exists(), "its removal")
    repaired = tmp_path.with_name("repaired")
    (repaired / ".uploader" / "lost" / lost.name).rename(repaired / ".uploader" / "tus" / data.name)
    (repaired / "newer").rename(repaired / ".uploader" / "server.sqlite3")
    with running_server(root=repaired) as server:
        assert append(upload.replace(old, server.url), 6, b"ghi").status_code == 204

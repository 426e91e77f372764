"""Files with an expected SHA-256 are compared ahead of the transfer, in a thread of their own."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, FileFailed
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection import selection as module
from uploader_cli.selection.selection import Selection, WalkQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


GUARD = 30.0
SHA256 = hashlib.sha256(b"aaa").hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> list[LocalFile]:
    """Three files as a list names them."""
    (tmp_path / "a").write_bytes(b"aaa")
    info = (tmp_path / "a").stat()
    return [LocalFile(n, str(tmp_path / "a"), "a", 3, info.st_mtime_ns, named=True, sha256=SHA256) for n in range(3)]


def test_differing_file_fails_and_is_not_sent(files: list[LocalFile]) -> None:
    """The event has the file as it was listed, for the reports."""
    told: list[ev.Event] = []
    files[1] = replace(files[1], sha256="0" * 64)
    walk_queue = WalkQueue(Selection(files), told.append)
    walk_queue.start()
    found = [walk_queue.take(GUARD) for _ in range(3)]
    assert [file.file for file in found if file is not None] == [0, 2]
    assert walk_queue.ended
    (failed,) = [event for event in told if isinstance(event, ev.FileFailed)]
    assert (failed.file, failed.code, failed.local) == (1, FailureCode.MISMATCH, files[1])
    assert sum(isinstance(event, ev.FileSelected) for event in told) == 3


def test_long_check_names_its_file(files: list[LocalFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is named while it is compared, and not any more after that."""
    monkeypatch.setattr(module, "NOTICEABLE", 3)
    told: list[ev.Event] = []
    files[1] = replace(files[1], sha256=None)
    walk_queue = WalkQueue(Selection(files), told.append)
    walk_queue.start()
    while not walk_queue.ended:
        walk_queue.take(GUARD)
    checked = [event.path for event in told if isinstance(event, ev.ContentChecked)]
    assert checked == [files[0].path, "", files[2].path, ""]


def test_an_interrupt_ends_the_checks_and_loses_no_file(
    files: list[LocalFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were not compared are left over like those that were: all are cancelled."""
    begun, closed = threading.Event(), threading.Event()
    check = module.differs

    def slow(file: LocalFile, go_on: Callable[[], None]) -> FileFailed | None:
        if file.file == 1:
            begun.set()
            assert closed.wait(GUARD)
        return check(file, go_on)

    monkeypatch.setattr(module, "differs", slow)
    monkeypatch.setattr(module, "JOIN_WITHIN", GUARD)
    walk_queue = WalkQueue(Selection(files), lambda _event: None)
    walk_queue.start()
    assert begun.wait(GUARD)
    shutting = threading.Timer(0.05, closed.set)
    shutting.start()
    left = walk_queue.close()
    shutting.join()
    assert [file.file for file in left] == [0, 1, 2]

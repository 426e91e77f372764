"""Notifications of the system, with real files: which of them are open."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from fakes import Clock
from time_limits import PATIENCE

from uploader_cli.features.folder.notifications import OPEN_WITHIN, TELLS_OPEN, Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not TELLS_OPEN, reason="only Linux tells which files are open")


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier(tmp_path: Path, woken: threading.Event, clock: Clock) -> Iterator[Notifier]:
    (tmp_path / "in").mkdir()
    made = Notifier([str(tmp_path / "in")], woken.set, clock)
    yield made
    made.close()


def becomes(notifier: Notifier, path: str, *, opened: bool) -> None:
    """Wait for the notifications that say whether the file is open."""
    end = time.monotonic() + PATIENCE
    while notifier.is_open(path) is not opened:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("name", [b"a.bin", b"\xff.bin"])
def test_file_is_open_until_it_is_closed(
    notifier: Notifier, woken: threading.Event, tmp_path: Path, name: bytes
) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path / "in"), name))
    with open(path, "wb", buffering=0) as file:
        file.write(b"1")
        becomes(notifier, path, opened=True)
        woken.clear()
    becomes(notifier, path, opened=False)
    assert woken.wait(PATIENCE)


def test_file_that_is_renamed_or_linked_into_place_is_not_open(notifier: Notifier, tmp_path: Path) -> None:
    for name in ("renamed.bin", "linked.bin"):
        (tmp_path / name).write_bytes(b"1")
    os.rename(tmp_path / "renamed.bin", tmp_path / "in/renamed.bin")
    os.link(tmp_path / "linked.bin", tmp_path / "in/linked.bin")
    last = str(tmp_path / "in/last.bin")
    with open(last, "wb"):
        becomes(notifier, last, opened=True)
        assert not notifier.is_open(str(tmp_path / "in/renamed.bin"))
        assert not notifier.is_open(str(tmp_path / "in/linked.bin"))


def test_file_stays_open_while_it_is_renamed_and_closed_when_its_mode_changes(
    notifier: Notifier, tmp_path: Path
) -> None:
    part, path, last = (str(tmp_path / "in" / name) for name in ("a.part", "a.bin", "last"))
    with open(part, "wb"):
        becomes(notifier, part, opened=True)
        os.rename(part, path)
        becomes(notifier, path, opened=True)
    becomes(notifier, path, opened=False)
    os.chmod(path, 0o600)
    with open(last, "wb"):
        becomes(notifier, last, opened=True)
        assert not notifier.is_open(path)


def test_close_that_is_lost_is_not_awaited_for_ever(notifier: Notifier, tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "in/a.bin")
    with open(path, "wb"):
        becomes(notifier, path, opened=True)
        clock.pass_(OPEN_WITHIN)
        assert not notifier.is_open(path)


def test_file_in_a_new_directory_is_open_until_it_is_closed(notifier: Notifier, tmp_path: Path) -> None:
    (tmp_path / "in/new").mkdir()
    path, end, seen = str(tmp_path / "in/new/a.bin"), time.monotonic() + PATIENCE, False
    while not seen:  # the directory may be noticed after the first times
        assert time.monotonic() < end
        with open(path, "wb"):
            time.sleep(0.05)
            seen = notifier.is_open(path)
    becomes(notifier, path, opened=False)

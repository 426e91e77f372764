"""Moving local files between file systems, and beside files that are there already."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import FileFailure
from uploader_cli.features.then import removal
from uploader_cli.features.then.removal import ASIDE
from uploader_cli.sources.files import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"data" * 1000
ROUNDS = 100
SHA256 = hashlib.sha256(DATA).hexdigest()


class Killed(BaseException):
    """Ends the program at once."""


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    """A file that is selected, with its identity."""
    path = tmp_path / "in" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(DATA)
    path.chmod(0o640)
    info = path.stat()
    return removal.identified(LocalFile(0, str(path), "in/a.bin", info.st_size, info.st_mtime_ns))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory of another file system."""
    here = tmp_path.stat().st_dev
    other = next((place for place in ("/dev/shm", "/tmp") if os.stat(place).st_dev != here), None)
    if other is None:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=other) as name:
        yield Path(name)


def moved(file: LocalFile, place: Path, sha256: str = SHA256) -> Path:
    return Path(removal.move(file, str(place), sha256, lambda: None))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file get a second name, as in FAT."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_file_that_is_gone_has_no_identity(tmp_path: Path) -> None:
    gone = LocalFile(0, str(tmp_path / "gone"), "gone", 1, 1)
    assert removal.identified(gone) == gone


@pytest.mark.parametrize("links", [True, False])
def test_file_is_copied_to_another_file_system(
    file: LocalFile, elsewhere: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its mode and its time of change, to a free name, and without leftovers, also no open descriptor."""
    if not links:
        without_links(monkeypatch)
    (elsewhere / "a.bin").write_bytes(b"other")
    opened = len(os.listdir("/dev/fd"))
    new = moved(file, elsewhere / "a.bin")
    assert len(os.listdir("/dev/fd")) == opened
    assert new == elsewhere / "a (2).bin"
    assert new.read_bytes() == DATA
    assert (new.stat().st_mode & 0o777, new.stat().st_mtime_ns) == (0o640, file.mtime_ns)
    assert (elsewhere / "a.bin").read_bytes() == b"other"
    assert names(elsewhere) == ["a (2).bin", "a.bin"]
    assert not os.path.exists(file.path)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
def test_copy_counts_once_its_directory_is_on_the_disk(
    error: int, file: LocalFile, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems can't say: they write directories at once."""
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    if error == errno.EINVAL:
        assert moved(file, elsewhere / "a.bin").read_bytes() == DATA
    else:
        with pytest.raises(OSError, match="Input/output error"):
            moved(file, elsewhere / "a.bin")
    assert os.path.exists(file.path) == (error == errno.EIO)


@pytest.mark.parametrize("far", [True, False])
def test_link_to_the_file_is_not_taken_for_its_copy(
    file: LocalFile, elsewhere: Path, tmp_path: Path, far: bool
) -> None:
    target = elsewhere if far else tmp_path / "sent"
    target.mkdir(exist_ok=True)
    (target / "a.bin").symlink_to(file.path)
    assert moved(file, target / "a.bin") == target / "a (2).bin"
    assert (target / "a (2).bin").read_bytes() == DATA


def test_copy_that_was_there_stays_where_the_file_changes(file: LocalFile, tmp_path: Path) -> None:
    """An interrupted move has left it; the file changes while the copy is compared."""
    (tmp_path / "sent").mkdir()
    copy = Path(shutil.copy2(file.path, tmp_path / "sent/a.bin"))

    def change() -> None:
        Path(file.path).write_bytes(b"new")

    with pytest.raises(FileFailure, match="it has changed since it was read"):
        removal.move(file, str(copy), SHA256, change)
    assert (copy.read_bytes(), Path(file.path).read_bytes()) == (DATA, b"new")


def test_copy_that_differs_deletes_nothing(file: LocalFile, elsewhere: Path) -> None:
    with pytest.raises(FileFailure, match="differs from what was sent"):
        moved(file, elsewhere / "a.bin", "0" * 64)
    assert names(elsewhere) == []
    assert Path(file.path).read_bytes() == DATA


@pytest.mark.parametrize("far", [True, False])
def test_interrupted_move_is_completed(
    file: LocalFile, elsewhere: Path, tmp_path: Path, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the file has its new name and still the old one, and before that in the copy."""
    target = elsewhere if far else tmp_path / "sent"
    target.mkdir(exist_ok=True)

    def kill(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", kill)
        with pytest.raises(Killed):
            moved(file, target / "a.bin")
    assert os.path.exists(file.path)
    again = removal.identified(file)
    if far:
        device, inode = (again.identity.device, again.identity.inode) if again.identity else (0, 0)
        (target / f".uploader-{device:x}-{inode:x}.part").write_bytes(DATA[:10])
    assert moved(again, target / "a.bin") == target / "a.bin"
    assert not os.path.exists(file.path)
    assert [name for name in names(target) if not name.startswith(".")] == ["a.bin"]
    assert (target / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("far", [True, False])
def test_change_during_a_move_keeps_the_file(
    file: LocalFile, elsewhere: Path, tmp_path: Path, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is copied, or while it has both names: the new one is taken back."""
    target = elsewhere if far else tmp_path / "sent"
    target.mkdir(exist_ok=True)
    step = "fchmod" if far else "link"
    whole = getattr(os, step)

    def change(*names: Any, **how: Any) -> None:
        whole(*names, **how)
        with open(file.path, "ab") as handle:
            handle.write(b"more")

    monkeypatch.setattr(os, step, change)
    with pytest.raises(FileFailure, match="has changed since it was read"):
        moved(file, target / "a.bin")
    assert Path(file.path).read_bytes() == DATA + b"more"
    assert names(target) == []


def test_file_is_not_moved_into_its_own_directory(file: LocalFile) -> None:
    """By another path to it: the file at the new place would be the file itself."""
    directory = Path(file.path).parent
    alias = directory.parent / "alias"
    alias.symlink_to(directory)
    with pytest.raises(FileFailure, match="its own directory"):
        moved(file, alias / "a.bin")
    assert names(directory) == ["a.bin"]


def test_file_that_is_written_all_the_time_has_no_identity(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(10))

    def write(_seconds: float) -> None:
        with open(file.path, "ab") as handle:
            handle.write(b"more")
        next(looks)

    just_now = SimpleNamespace(time=lambda: os.stat(file.path).st_ctime)
    monkeypatch.setattr(removal, "time", just_now)
    assert removal.identified(replace(file, identity=None), write).identity is None
    assert next(looks) == removal.LOOKS


def test_file_of_a_clock_that_was_ahead_has_an_identity(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert removal.identified(replace(file, identity=None), slept.append) == file
    assert slept == [removal.GRANULARITY]


def test_runs_that_set_files_of_a_directory_aside_wait_for_each_other(file: LocalFile, tmp_path: Path) -> None:
    """A walk puts nothing back meanwhile, and each file is in its place in the end."""
    other = replace(file, path=str(tmp_path / "in" / "b.bin"))
    shutil.copy2(file.path, other.path)
    other = removal.identified(other)

    def ask(asked: LocalFile) -> None:
        for _ in range(ROUNDS):
            with removal.set_aside(asked):
                assert not os.path.exists(asked.path)
            info = os.lstat(asked.path)
            asked = replace(asked, identity=identity_of(info))

    def walk() -> None:
        for _ in range(ROUNDS):
            assert removal.restore(str(tmp_path / "in")) == {}

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(ask, file), pool.submit(ask, other), pool.submit(walk)]:
            done.result()
    assert names(tmp_path / "in") == ["a.bin", "b.bin"]


def test_file_that_another_run_has_set_aside_is_named_and_left_there(
    file: LocalFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "OTHER_RUN", 0.0)
    with removal.set_aside(file):
        ((path, failure),) = removal.restore(str(tmp_path / "in")).items()
        assert (path, failure.code, failure.retryable) == (str(tmp_path / "in" / ASIDE / "a.bin"), "in_use", True)
        other = replace(file, path=str(tmp_path / "in" / "b.bin"))
        with pytest.raises(FileFailure, match="a run has set a file of its directory aside"), removal.set_aside(other):
            pass
    assert names(tmp_path / "in") == ["a.bin"]


def test_leftover_whose_place_is_taken_is_named_and_kept(tmp_path: Path) -> None:
    """One with an empty place is put back; so is one whose run was killed between its two steps."""
    aside = tmp_path / ASIDE
    aside.mkdir()
    for name in ("free", "taken", "linked"):
        (aside / name).write_text(name)
    (tmp_path / "taken").write_text("another")
    (tmp_path / "linked").hardlink_to(aside / "linked")
    ((path, failure),) = removal.restore(str(tmp_path)).items()
    assert (path, failure.code, failure.retryable) == (str(aside / "taken"), "unreadable", False)
    assert {item.name: item.read_text() for item in tmp_path.iterdir() if item.is_file()} == {
        "free": "free",
        "taken": "another",
        "linked": "linked",
    }
    assert names(aside) == ["taken"]

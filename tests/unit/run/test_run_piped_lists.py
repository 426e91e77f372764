"""The copy of a piped list."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uploader_cli.run.piped_lists import readable_list
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")


@contextmanager
def copied(content: bytes, tmp_path: Path) -> Iterator[Path]:
    pipe = tmp_path / "list.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(pipe.write_bytes, content)
        with readable_list(Settings(server="http://localhost", state_dir=tmp_path / "state", from_file=pipe), []) as it:
            assert isinstance(it.from_file, Path)
            yield it.from_file
        assert writing.result()


def test_piped_list_is_copied_whole_for_this_user_only(tmp_path: Path) -> None:
    content = b"path\n" + b"a.mp4\n" * 400_000
    with copied(content, tmp_path) as copy:
        assert copy.read_bytes() == content
        assert copy.suffix == ".csv"
        assert not copy.parent.stat().st_mode & 0o077
    assert not copy.exists()


def test_copies_that_killed_processes_left_are_deleted_after_a_day(tmp_path: Path) -> None:
    lists = tmp_path / "state" / "lists"
    lists.mkdir(parents=True)
    killed, running = lists / f"{0:064x}-killed", lists / f"{1:064x}-running"
    for file, hours in ((killed, 25), (lists / "tmpkilled", 25), (running, 23)):
        file.touch()
        os.utime(file, (0, time.time() - 3600 * hours))
    with copied(b"path\n", tmp_path):
        pass
    assert [*lists.iterdir()] == [running]


def test_list_of_the_user_named_like_a_copy_is_kept(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    own = tmp_path / "lists" / f"{0:064x}-own.txt"
    own.write_bytes(b"a.mp4\n")
    with readable_list(Settings(state_dir=tmp_path / "state", from_file=own), []):
        pass
    assert own.exists()

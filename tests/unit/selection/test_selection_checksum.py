"""A file is compared with the SHA-256 in its list before anything of it is sent."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.events import FailureCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection.selection import differs
from uploader_cli.sources.content import PIECE

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"x" * (2 * PIECE + 1)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    """A file of three pieces, as it was selected."""
    path = tmp_path / "a.mp4"
    path.write_bytes(CONTENT)
    return LocalFile(3, str(path), "a.mp4", len(CONTENT), path.stat().st_mtime_ns, named=True, sha256=SHA256)


def test_file_with_the_listed_digest_passes(file: LocalFile) -> None:
    assert differs(file) is None


def test_nothing_is_read_of_a_file_of_which_nothing_is_expected(file: LocalFile) -> None:
    assert differs(replace(file, path="/no/where", sha256=None)) is None


def test_file_with_another_digest_is_refused(file: LocalFile) -> None:
    """The error has both digests."""
    found = differs(replace(file, sha256="0" * 64))
    assert found is not None
    assert (found.file, found.path, found.code) == (3, file.path, FailureCode.MISMATCH)
    assert found.message == f"the SHA-256 is {SHA256}, not {'0' * 64} as listed; not sent"


def test_file_changed_during_the_check_is_refused(file: LocalFile) -> None:
    """Whatever its digest: what will be sent may be something else."""
    os.utime(file.path, ns=(0, 1))
    found = differs(file)
    assert found is not None
    assert found.code is FailureCode.MISMATCH


def test_a_file_that_can_not_be_read(file: LocalFile, tmp_path: Path) -> None:
    gone = differs(replace(file, path=f"{file.path}.gone"))
    assert gone is not None
    assert gone.code is FailureCode.VANISHED
    directory = differs(replace(file, path=str(tmp_path)))
    assert directory is not None
    assert directory.code is FailureCode.UNREADABLE


def test_check_stops_between_two_reads(file: LocalFile) -> None:
    class Stopped(Exception):
        pass

    calls = []

    def checkpoint() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        differs(file, checkpoint)
    assert len(calls) == 2

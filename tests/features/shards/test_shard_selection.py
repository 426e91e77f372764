"""Shards: together everything, none twice, and the same on every machine."""

from __future__ import annotations

import os
from itertools import chain

import pytest
from fakes import local_file
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped, SkipReason
from uploader_cli.features.shards.part import Shard
from uploader_cli.selection.selection import within
from uploader_cli.settings import Settings


def shard(index: int, count: int) -> Shard:
    return Shard(Settings(shard=f"{index}/{count}"))


@given(st.text(max_size=20).filter(lambda name: "\0" not in name), st.integers(1, 9))
def test_every_name_is_in_exactly_one_shard(name: str, count: int) -> None:
    assert sum(shard(index, count).holds(name) for index in range(1, count + 1)) == 1


@pytest.mark.parametrize(
    ("name", "index"), [("videos/a.mp4", 1), ("videos/b.mp4", 4), ("videos/ä.mp4", 4), (os.fsdecode(b"x\xff"), 2)]
)
def test_shard_of_a_name_never_changes(name: str, index: int) -> None:
    """Shards of different versions and machines must fit together: these are not to change."""
    assert shard(index, 4).holds(name)


def test_shards_are_of_about_the_same_size() -> None:
    sizes = [sum(shard(index, 4).holds(f"d{n // 100}/f{n}.bin") for n in range(4000)) for index in (1, 2, 3, 4)]
    assert sum(sizes) == 4000
    assert all(900 < size < 1100 for size in sizes)


def test_files_of_another_shard_are_passed_by() -> None:
    """Also skipped or unreadable files are reported by one shard alone."""
    steps = [
        *[local_file(f"d/{number}.mp4", number) for number in range(20)],
        *[
            FileSkipped(number, f"/there/{number}", SkipReason.SYMLINK, relative_path=f"d/{number}")
            for number in range(20, 40)
        ],
        *[
            FileFailed(
                number, f"/there/{number}", FailureCode.UNREADABLE, "", retryable=False, relative_path=f"d/{number}"
            )
            for number in range(40, 60)
        ],
        None,
    ]
    told = [[step.file for step in within(steps, [shard(index, 3)]) if step is not None] for index in (1, 2, 3)]
    assert all(told)
    assert sorted(chain.from_iterable(told)) == list(range(60))
    assert len(list(within(steps, [shard(1, 3)]))) == len(steps)


def test_without_a_shard_all_is_kept() -> None:
    steps = [local_file("a.mp4"), None]
    assert list(within(steps, [])) == steps


def test_where_the_files_lie_does_not_matter() -> None:
    """Two machines may have the same tree in different places."""
    here = FileSkipped(0, "/mnt/a/d/x", SkipReason.SYMLINK, relative_path="d/x")
    there = FileSkipped(0, "/srv/b/d/x", SkipReason.SYMLINK, relative_path="d/x")
    assert [bool(*within([here], [shard(n, 5)])) for n in range(1, 6)] == [
        bool(*within([there], [shard(n, 5)])) for n in range(1, 6)
    ]

"""The server is killed, stopped or fails at each call that changes a file, one after the other.

A name in the root always means complete bytes, and what was confirmed stays (docs/reliability.md). The plain run takes
one combination, and the thorough run some; the others are acceptance tests.
"""

from __future__ import annotations

import errno
import itertools
import random
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
from command import uploader
from server.crash.stopping import fail_each_call, server_on, stop_at_each_call, stop_at_each_call_of_the_start
from server.crash.uploads import CHECKED, KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from command import Done

EVERYTHING = [
    (kind, durability, checked)
    for kind, durability in itertools.product(KINDS, ("fsync", "none"))
    for checked in CHECKED.get(kind, [True, False])
]
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EOPNOTSUPP")

thorough, acceptance = pytest.mark.thorough, pytest.mark.acceptance
everything = pytest.mark.parametrize(("kind", "durability", "checked"), EVERYTHING)


@pytest.mark.parametrize(
    ("kind", "durability", "checked"),
    [
        ("tus", "fsync", True),
        ("tus, 1 kB with creation", "none", False),
        pytest.param("tus, 60 kB with creation", "fsync", True, marks=thorough),
        pytest.param("ietf, 60 kB at once", "none", False, marks=thorough),
        pytest.param("join in place", "none", False, marks=thorough),
        pytest.param("pack", "none", True, marks=thorough),
    ],
)
def test_server_killed_at_any_call_keeps_only_complete_files(
    tmp_path: Path, kind: str, durability: str, checked: bool
) -> None:
    with server_on(tmp_path, durability) as server:
        assert stop_at_each_call(server, partial(KINDS[kind], checked=checked), "kill").findings == []
        assert not (tmp_path / ".uploader" / "lost").exists(), "the database knows every upload"


@pytest.mark.parametrize(
    ("kind", "durability", "checked", "error", "then"),
    [
        ("batch", "none", False, "ENOSPC", "go on"),
        pytest.param("tus", "fsync", False, "EIO", "meddle later", marks=thorough),
        pytest.param("join", "none", False, "ENOSPC", "go on", marks=thorough),
        pytest.param("join in place", "none", True, "EIO", "meddle", marks=thorough),
    ],
)
def test_error_of_any_call_leaves_the_file_of_another_client_unchanged(
    tmp_path: Path, kind: str, durability: str, checked: bool, error: str, then: str
) -> None:
    with server_on(tmp_path, durability) as server:
        make = partial(KINDS[kind], checked=checked)
        assert fail_each_call(server, make, getattr(errno, error), then=(then,)).findings == []


@acceptance
@everything
@pytest.mark.parametrize("action", ["kill", "stop"])
def test_every_stop_at_any_call_keeps_only_complete_files(
    tmp_path: Path, kind: str, durability: str, checked: bool, action: str
) -> None:
    """A stop (SIGTERM) overtakes the call, which takes longer than the server waits for requests."""
    with server_on(tmp_path, durability) as server:
        make, then = partial(KINDS[kind], checked=checked), ("go on", "meddle")
        assert stop_at_each_call(server, make, action, then, seconds=0.5).findings == []
        assert not (tmp_path / ".uploader" / "lost").exists(), "the database knows every upload"


@acceptance
@everything
def test_every_stop_of_a_start_after_a_stop_keeps_only_complete_files(
    tmp_path: Path, kind: str, durability: str, checked: bool
) -> None:
    with server_on(tmp_path, durability) as server:
        assert stop_at_each_call_of_the_start(server, partial(KINDS[kind], checked=checked)).findings == []


@acceptance
@everything
@pytest.mark.parametrize("onwards", [False, True], ids=["once", "onwards"])
@pytest.mark.parametrize("error", ERRORS)
def test_every_error_of_any_call_leaves_the_file_of_another_client_unchanged(
    tmp_path: Path, kind: str, durability: str, checked: bool, error: str, onwards: bool
) -> None:
    with server_on(tmp_path, durability) as server:
        make = partial(KINDS[kind], checked=checked)
        assert fail_each_call(server, make, getattr(errno, error), onwards=onwards).findings == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "durability", "error"),
    [
        ("tus", "none", "EDQUOT"),
        *(
            pytest.param(*each, marks=acceptance)
            for each in itertools.product(KINDS, ("fsync", "none"), ("ENOSPC", "EDQUOT"))
        ),
    ],
)
def test_full_disk_is_answered_with_507(tmp_path: Path, kind: str, durability: str, error: str) -> None:
    """Whatever call finds that the disk is full, also a commit of the database."""
    with server_on(tmp_path, durability) as server:
        make = partial(KINDS[kind], checked=CHECKED.get(kind, [True])[0])
        refusals = fail_each_call(server, make, getattr(errno, error), onwards=True, then=("go on",)).refusals
    assert set(refusals) == {507}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "durability", "error"),
    [
        ("tus", "none", "EPERM"),
        *(
            pytest.param(*each, marks=acceptance)
            for each in itertools.product(KINDS, ("fsync", "none"), ("EPERM", "EOPNOTSUPP", "ENOSYS"))
        ),
    ],
)
def test_server_without_hard_links_stores_only_complete_files_or_does_not_start(
    tmp_path: Path, kind: str, durability: str, error: str
) -> None:
    refused = ""
    try:
        with server_on(tmp_path, durability, "--no-links", str(getattr(errno, error))) as server:
            make = partial(KINDS[kind], checked=CHECKED.get(kind, [True])[0])
            assert stop_at_each_call(server, make, "kill").findings == []
    except RuntimeError as refusal:
        refused = str(refusal)
    assert not refused or "link" in refused


SIZES = {"large.bin": 300_000, "whole.bin": 70_000, "small/a": 0, "small/b": 5000, "small/c": 60_000}
"""Files that the client sends in chunks, in one request, and in a pack."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("durability", "rounds"),
    [("none", 2), *(pytest.param(each, 60, marks=acceptance) for each in ("fsync", "none"))],
)
def test_exit_code_is_true_after_an_error_of_any_call(tmp_path: Path, durability: str, rounds: int) -> None:
    """0 only if every file is stored, also after the server was killed; else trying again helps."""
    chance = random.Random(rounds)
    top = tmp_path / "files"
    for name, size in SIZES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(chance.randbytes(size))
    with server_on(tmp_path / "root", durability) as server:

        def upload(number: int, *more: str) -> Done:
            options = ("--chunk-size", "64K", "--retries", "1", "--max-wait", "1", "--no-resume", "--json", *more)
            dest = ("--dest", str(number))
            return uploader("upload", str(top), "--server", server.url, *options, *dest, home=tmp_path)

        def missing(number: int, paths: Iterable[str]) -> list[str]:
            there = tmp_path / "root" / "personal" / str(number)
            found = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
            wrong = [name for name in found if (there / name).read_bytes() != (tmp_path / name).read_bytes()]
            return [*wrong, *(set(paths) - found)]

        server.arm(action="kill", at=1_000_000)
        assert upload(0).code == 0
        calls = server.disarm()
        for number in range(1, rounds + 1):
            error = getattr(errno, chance.choice(ERRORS))
            server.arm(action="fail", at=chance.randint(1, calls), number=error, onwards=chance.random() < 0.5)
            done = upload(number)
            server.disarm()
            where = f"exit code {done.code} after {errno.errorcode[error]} in {server.hit}: {done.err}"
            told = [f"files/{event['path'].partition('files/')[2]}" for event in done.of("file.completed")]
            assert missing(number, told) == [], where
            assert (done.code == 0) == (len(told) == len(SIZES)), where
            assert done.code in (0, 3, 6), where
            server.end(signal.SIGKILL)
            server.start()
            assert missing(number, told) == [], where
            assert upload(number, "--skip-existing").code == 0, where
            assert missing(number, (f"files/{name}" for name in SIZES)) == [], where
        assert server.told() == []

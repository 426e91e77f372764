"""Kill clients with `--then` at random moments (`kill -9`): no file is gone here that the server does not have."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from acceptance.bench import digests, make_files
from command import ended, finish, start, uploader
from feature_samples import of
from proxy import Onlooker, Proxy
from serving import server_process

from uploader_cli.features.then.removal import ASIDE

if TYPE_CHECKING:
    from command import Process
    from proxy import Request

FILES = {f"small/{number:02}.bin": 100 + number for number in range(40)}
FILES |= {f"large/{number}.bin": 300_000 + number for number in range(8)}
MOST_ANSWERS = {True: 14, False: 60}
"""A client is killed after so many answers of the server at most, with and without packs, ..."""
LATEST = 0.01
"""... and so many seconds later at most."""

PAUSE = 5.0
"""Seconds after which a watch is killed that waits for files."""


class Strike(Onlooker):
    """Calls a function shortly after a random answer."""

    def __init__(self, chance: random.Random, most: int) -> None:
        self._chance, self._most, self._left = chance, most, 0
        self._lock = threading.Lock()

    def set(self, process: Process) -> None:
        """Kill this process."""
        with self._lock:
            self._left, self._process = self._chance.randint(1, self._most), process

    def at_answer(self, request: Request) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                threading.Timer(self._chance.uniform(0, LATEST), self._process.kill).start()


def kill_clients(directory: Path, seed: int, kills: int, *, packs: bool, watch: bool, sent: Path | None) -> None:
    """Kill clients, each of which resumes, and let the last one complete; look at all files after each kill.

    When no file is left, there are new ones.
    """
    chance = random.Random(seed)
    strike = Strike(chance, MOST_ANSWERS[packs])
    files = directory / "files"
    expected = dict[str, str]()
    then = "delete" if sent is None else f"move:{sent}"
    with server_process(packs=packs) as server, Proxy(server.url, strike) as proxy:
        line = ["upload", files, "-s", proxy.url, "--then", then, "--chunk-size", "64K", "--json"]
        line += ["--watch", "--settle", "0.2"] if watch else []

        def refill(number: int) -> None:
            if not here(files, killed=True):
                expected.update(make_files(files, {f"{number}/{name}": FILES[name] for name in FILES}, seed + number))

        killed, last = 0, 0
        for number in range(kills):
            refill(number)
            resumes = last < 0 and not watch and chance.random() < 0.5
            process = start(*(["resume", "--json"] if resumes else line), home=directory)
            strike.set(process)
            if watch:
                alarm = threading.Timer(PAUSE, process.kill)
                alarm.start()
            last = finish(process).code
            if watch:
                alarm.cancel()
            assert last in (0, -signal.SIGKILL)
            killed += last < 0
            check(expected, here(files, killed=last < 0), server.root / "personal", sent, complete=False)
        print(f"{killed} of {kills} killed, {len(expected)} files, {len(here(files, killed=True))} left")
        refill(kills)
        if watch:
            process = start(*line, home=directory)
            seen = ""
            assert process.stdout is not None
            while any(path.is_file() for path in files.rglob("*")):
                seen += process.stdout.readline()
            assert ended(process, seen, signal.SIGTERM).code == 143
        else:
            done = uploader(*line, home=directory)
            assert done.code == 0, done.err
        check(expected, here(files), server.root / "personal", sent, complete=True)


def here(files: Path, *, killed: bool = False) -> dict[str, str]:
    """The files that are left, by their paths on the server.

    A client that was killed may have set one file aside; it counts as in its place.
    """
    found = {f"{files.name}/{name}": digest for name, digest in digests(files).items()}
    aside = [name for name in found if f"/{ASIDE}/" in name]
    assert len(aside) <= killed
    for name in aside:
        digest, place = found.pop(name), name.replace(f"/{ASIDE}/", "/")
        assert found.setdefault(place, digest) == digest
    return found


def check(expected: dict[str, str], local: dict[str, str], stored: Path, sent: Path | None, *, complete: bool) -> None:
    """Check that each file is here (`local`) or moved with its bytes, and that what is not here is stored once."""
    there = digests(stored) if stored.exists() else {}
    moved = {} if sent is None else {name: one for name, one in digests(sent).items() if not name.endswith(".part")}
    assert local.items() <= expected.items()
    assert there.items() <= expected.items()
    assert moved.items() <= expected.items()
    assert expected.keys() - local.keys() <= there.keys()
    if sent is not None:
        assert local.keys() | moved.keys() == expected.keys()
    if complete:
        assert (local, there) == ({}, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("packs", [True, False])
def test_file_removed_before_a_kill_is_stored(tmp_path: Path, packs: bool) -> None:
    """Short form."""
    kill_clients(tmp_path, 1, 4, packs=packs, watch=False, sent=None)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("watch", [of("folder", True), False])
def test_file_removed_before_any_of_thirty_kills_is_stored(
    tmp_path: Path, seed: int, packs: bool, moves: bool, watch: bool
) -> None:
    """With `--then move` into another file system, where there is one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as other:
        kill_clients(tmp_path, seed, 30, packs=packs, watch=watch, sent=Path(other) if moves else None)

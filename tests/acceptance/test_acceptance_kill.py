"""Kill client, server or both at seeded moments (`kill -9`): every file is stored exactly once.

The proxy counts what is resent after each kill: at most one chunk of each active file.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from acceptance.accidents import (
    CREATED,
    CREATION,
    FINISH,
    FINISH_UNANSWERED,
    JOURNAL,
    MID_CHUNK,
    UNANSWERED,
    Moment,
    Trap,
    moments,
)
from acceptance.bench import Bench, wait_for_writes
from acceptance.sent_bytes import kind_of, sent_again, uploads
from acceptance.volumes import IN_PARTS, LONG, SHORT
from command import DISTANT
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from acceptance.volumes import Volume

JOBS = 4


CLIENT_MOMENTS = [CREATION, MID_CHUNK, UNANSWERED, JOURNAL, CREATED]
SERVER_MOMENTS = [CREATION, MID_CHUNK, UNANSWERED, CREATED]


def planned(kinds: Sequence[str], count: int, seed: int, *, finished: bool = True) -> list[Moment]:
    """Return `count` moments of every kind, the first one in a creation.

    Moments in PATCH requests follow while the large files last, then those of small files, then the end of the session,
    if the client calls for it: a session whose files one run has sent ends by itself.
    """
    source = random.Random(seed)
    rest = [kinds[number % len(kinds)] for number in range(count - 1)]
    first = source.choice([kind for kind in rest if kind in (CREATION, CREATED)])
    rest.remove(first)
    source.shuffle(rest)
    rest.sort(key=lambda kind: kind not in (MID_CHUNK, UNANSWERED))
    last = [source.choice([FINISH, FINISH_UNANSWERED])] * finished
    return moments([first, *rest, *last], source)


def planned_in_parts(seed: int) -> list[Moment]:
    """Return twenty moments: at the creation of parts, within them, and twice when they are joined."""
    source = random.Random(seed)
    chosen = moments(source.choices([MID_CHUNK, UNANSWERED], k=17), source)
    return [*moments([CREATION], source), *chosen, Moment(CREATION), Moment(CREATED)]


def check_stored(bench: Bench, expected: dict[str, str]) -> None:
    """Check that every file is stored once with equal bytes, and that no unfinished upload is left."""
    assert bench.stored() == expected
    assert bench.left_over() == []


def check_sent_again(bench: Bench, trap: Trap, chunk: int) -> None:
    """Check that each kill resends at most one chunk per open file, and nothing of stored files.

    A file that fails after several kills is sent again by the next run only: the number of files is that of all kills.
    """
    again, interrupted = sent_again(bench.proxy.requests), 0
    for moment, request in trap.struck:
        print(f"{moment}: {kind_of(request)} {request.target[-8:]}, {request.passed} of {request.length} bytes passed")
    for epoch in range(bench.proxy.epoch + 1):
        repeated = again.get(epoch, {})
        print(f"after accident {epoch}: {sum(repeated.values())} bytes again, {dict(repeated)}")
        interrupted += len(repeated)
        assert interrupted <= JOBS * epoch
        assert max(repeated.values(), default=0) <= chunk
    names = {request: name for request, name, _ in uploads(bench.proxy.requests)}
    for moment, request in trap.struck:
        if moment.kind == UNANSWERED:
            assert names[request] not in again.get(request.epoch + 1, {}), f"{moment}: resent although stored"


def kill_clients(
    directory: Path, volume: Volume, plan: Sequence[Moment], seed: int, *, server_too: bool, latency: int = 0
) -> None:
    """Kill one client after the other; each one resumes, and the last one completes.

    With a `latency` (ms) of the server large files are sent in parts.
    """
    constants = DISTANT if latency else None
    source, trap = random.Random(seed), Trap()
    files = directory / "files"
    expected = volume.make(files, seed)
    with Bench(directory, trap, "--latency", str(latency)) as bench:
        upload = ["upload", files, "--jobs", JOBS, "--chunk-size", volume.chunk]
        wal = bench.home / "state/uploader/journal.sqlite3-wal"

        def strike() -> None:
            bench.kill_client()
            if server_too:
                bench.kill_server()
                bench.restart_server()
            bench.proxy.epoch += 1

        for number, moment in enumerate(plan):
            trap.set([moment], strike, born=bench.proxy.epoch)
            command = ["resume"] if number and source.random() < 0.5 else upload
            bench.start(*command, constants=constants)
            if moment.kind == JOURNAL:
                wait_for_writes(wal, moment.nth)
                strike()
            else:
                assert bench.wait().code == -9, f"{moment} never came"
                assert trap.sprung.wait(PATIENCE)
            assert bench.proxy.epoch == number + 1
        bench.start(*upload, constants=constants)
        done = bench.wait()
        assert done.code == 0, done.err
        assert done.finished["completed"] + done.finished["skipped"] == len(expected)
        joined = [request.headers.get("upload-concat", "") for request in bench.proxy.requests]
        assert any(value.startswith("final") for value in joined) == bool(latency)
        check_stored(bench, expected)
        check_sent_again(bench, trap, volume.chunk)


def kill_servers(directory: Path, volume: Volume, plan: Sequence[Moment], seed: int) -> None:
    """Kill servers at the moments and restart them on the same root.

    A client survives until a file has met six kills in a row: then it ends with exit code 3 and is resumed.
    """
    trap = Trap()
    files = directory / "files"
    expected = volume.make(files, seed)
    with Bench(directory, trap) as bench:

        def strike() -> None:
            bench.kill_server()
            bench.proxy.epoch += 1
            bench.restart_server()

        trap.set(plan, strike)
        bench.start("upload", files, "--jobs", JOBS, "--chunk-size", volume.chunk)
        resumed = 0
        while (done := bench.wait(600)).code in (3, 6) and resumed < len(plan):
            resumed += 1
            bench.start("resume")
        print(f"{resumed} times resumed")
        assert done.code == 0, done.err
        assert sorted(map(str, plan)) == sorted(str(moment) for moment, _ in trap.struck)
        check_stored(bench, expected)
        check_sent_again(bench, trap, volume.chunk)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [3])
def test_few_kills_of_the_client(tmp_path: Path, seed: int) -> None:
    """Short form: one kill of each kind."""
    kill_clients(tmp_path, SHORT, planned(CLIENT_MOMENTS, 6, seed), seed, server_too=False)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [4])
def test_few_kills_of_the_server(tmp_path: Path, seed: int) -> None:
    """Short form: one kill of each kind."""
    kill_servers(tmp_path, SHORT, planned(SERVER_MOMENTS, 4, seed, finished=False), seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [5])
def test_few_kills_of_client_and_server(tmp_path: Path, seed: int) -> None:
    """Short form: in a creation, in a chunk, at the end."""
    kill_clients(tmp_path, SHORT, planned([CREATED, MID_CHUNK], 3, seed), seed, server_too=True)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_twenty_kills_of_the_client(tmp_path: Path, seed: int) -> None:
    """At least one at each: creation, chunk, lost answer, journal commit, end of the session."""
    kill_clients(tmp_path, LONG, planned(CLIENT_MOMENTS, 20, seed), seed, server_too=False)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_twenty_kills_of_the_server(tmp_path: Path, seed: int) -> None:
    """The server is restarted on the same root each time."""
    kill_servers(tmp_path, LONG, planned(SERVER_MOMENTS, 20, seed, finished=False), seed)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [31, 32, 33])
def test_twenty_kills_of_client_and_server(tmp_path: Path, seed: int) -> None:
    """Client and server are killed at the same moment."""
    kill_clients(tmp_path, LONG, planned(CLIENT_MOMENTS, 20, seed), seed, server_too=True)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("server_too", [False, True])
@pytest.mark.parametrize("seed", [14, 15])
def test_twenty_kills_of_a_file_in_parts(tmp_path: Path, seed: int, server_too: bool) -> None:
    """At most one chunk of each part is resent; the parts are joined once."""
    kill_clients(tmp_path, IN_PARTS, planned_in_parts(seed), seed, server_too=server_too, latency=30)

"""Real processes: kill -9 in the middle of writes, several at once on the same files, and threads."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from time_limits import PATIENCE
from unit.transfer.journal_fakes import HERE, a_file, claimed, complete

from uploader_cli.transfer.journal.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

FILES = 600
PRELUDE = """
import os, random, sys
from pathlib import Path
from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.journal.receipts import Stored

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def claimed(run, file):
    return run.claim([file])[0]

def complete(run, file, **fields):
    run.completed([Stored(file, **fields)])

def a_file(number):
    return LocalFile(number, f"/data/{number}", str(number), 10, 5)

directory, argument = Path(sys.argv[1]), int(sys.argv[2])
"""
WRITER = (
    PRELUDE
    + """
journal = Journal(directory)
run = journal.begin(RunTarget("http://here:1", "personal"), {})
say("begun", run.id, run.resumed_from or "-")
for number in range(argument):
    claim = claimed(run, a_file(number))
    if claim.state == "done":
        continue
    say("claimed", number, claim.upload.upload_key)
    if number % 5 == 0:
        run.update(a_file(number), url=f"http://here:1/{number}")
        say("created", number)
        parts = run.split(a_file(number), [6, 4])
        say("split", number, parts[1].upload_key)
        run.update(a_file(number), part=1, checked_until=3)
        say("checked", number)
    complete(run, a_file(number), server_id=str(number))
    say("completed", number)
sys.stdin.readline()
run.finish(ok=True)
say("finished")
"""
)
RACER = (
    PRELUDE
    + """
order = list(range(150))
random.Random(argument).shuffle(order)
with Journal(directory) as journal:
    run = journal.begin(RunTarget("http://here:1", "personal"), {"seed": argument})
    say("ready")
    sys.stdin.readline()
    left, first = order, True
    while left:
        busy = []
        for number in left:
            claim = claimed(run, a_file(number))
            if claim.state in ("new", "resume"):
                say("sent", number)
                complete(run, a_file(number))
                if first:  # nobody runs away before the others have begun
                    sys.stdin.readline()
                    first = False
            elif claim.state == "busy":
                busy.append(number)
        left = busy
    sys.stdin.readline()
    run.finish(ok=True)
"""
)
OPENER = (
    PRELUDE
    + """
say("ready")
for number in range(25):
    with Journal(directory) as journal:
        assert journal.notices == ()
        run = journal.begin(RunTarget("http://here:1", "personal"), {"n": number})
        claimed(run, a_file(number * 1000 + argument))
        run.finish(ok=random.random() < 0.5)
"""
)

LOCKER = """
import fcntl, sys
for suffix, start, length in (("", (1 << 30) + 2, 510), ("-shm", 128, 1)):
    with open(sys.argv[1] + suffix, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            print("not locked:", file.name)
        except OSError:
            pass
"""
"""Takes the locks that every connection to a database in WAL mode shares, and prints which were free."""


def start(program: str, directory: Path, argument: int, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(directory), str(argument)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options)


class Promised:
    """What calls that returned have promised, from the lines of processes that were killed later."""

    def __init__(self) -> None:
        self.keys: dict[int, str] = {}
        self.created: set[int] = set()
        self.parts: dict[int, str] = {}
        self.checked: set[int] = set()
        self.completed: set[int] = set()
        self.run = "-"

    def hear(self, line: str) -> None:
        word, number, *rest = line.split()
        match word:
            case "begun":
                self.run = number
            case "claimed":
                assert int(number) not in self.completed, "sent twice"
                assert self.keys.setdefault(int(number), rest[0]) == rest[0], "a creation could be doubled"
            case "created":
                self.created.add(int(number))
            case "split":
                self.parts[int(number)] = rest[0]
                self.checked.discard(int(number))
            case "checked":
                self.checked.add(int(number))
            case "completed":
                self.completed.add(int(number))

    def check(self, directory: Path, *, finished: bool) -> None:
        with closing(sqlite3.connect(f"file:{directory / 'journal.sqlite3'}?mode=ro", uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            receipts = {int(path.rsplit(b"/", 1)[1]) for (path,) in db.execute("SELECT path FROM receipt")}
            pending = dict(db.execute("SELECT path, upload_key FROM pending"))
            urls = {path for (path,) in db.execute("SELECT path FROM pending WHERE url IS NOT NULL")}
            parts = {path: json.loads(text) for path, text in db.execute("SELECT path, parts FROM pending")}
        assert self.completed <= receipts
        assert len(receipts - self.completed) <= 1, "no more than the one call that did not return"
        assert not finished or not pending
        for number, key in self.keys.items():
            path = b"/data/%d" % number
            assert (number in receipts) != (path in pending), "a receipt or under way, never both, never neither"
            if path in pending:
                assert pending[path] == key
                assert number not in self.created or path in urls
                assert number not in self.checked or parts[path][1][5] == 3
        self.completed = receipts


@pytest.mark.thorough
def test_kill_9_at_any_moment_breaks_no_promise(tmp_path: Path) -> None:
    chance, promised = random.Random(1), Promised()
    for kills in range(9):
        process, finished = start(WRITER, tmp_path, FILES), kills == 8
        lines = [process.stdout.readline()]
        if finished:
            process.stdin.write("end\n")
            process.stdin.flush()
        else:
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        lines += process.stdout.read().splitlines()  # not communicate(): it would miss what readline() has read ahead
        process.communicate(timeout=PATIENCE)
        assert lines[0].split()[2] == promised.run, "each resumes the one before"
        assert (process.returncode, lines[-1] == "finished") == (0 if finished else -signal.SIGKILL, finished)
        for line in lines[:-1] if finished else lines:
            promised.hear(line)
        promised.check(tmp_path, finished=finished)
    with Journal(tmp_path) as journal:
        (info,) = journal.runs()
        assert (info.state, info.completed_files, info.open_files) == ("finished", FILES, 0)


@pytest.mark.thorough
def test_kill_9_while_a_journal_is_made_or_opened_leaves_a_journal(tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(6):
        process = start(OPENER, tmp_path, number)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        with Journal(tmp_path) as journal:
            assert journal.notices == ()
            assert not any(info.state == "running" for info in journal.runs())


@pytest.mark.thorough
def test_four_processes_on_the_same_files_send_each_once(tmp_path: Path) -> None:
    racers = [start(RACER, tmp_path, seed, stderr=subprocess.PIPE) for seed in range(4)]
    sent: Counter[str] = Counter()
    for _ in range(2):
        lines = [racer.stdout.readline() for racer in racers]  # "ready", and then the first file of each
        sent.update(line.split()[1] for line in lines if line.startswith("sent"))
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
    for racer in racers:
        answer, errors = racer.communicate("end\n", timeout=PATIENCE)
        assert errors == ""
        sent.update(answer.split()[1::2])
    assert sent == Counter(map(str, range(150)))


@pytest.mark.thorough
def test_many_that_open_and_close_at_once_never_meet_a_locked_journal(tmp_path: Path) -> None:
    openers = [start(OPENER, tmp_path, seed, stderr=subprocess.PIPE) for seed in range(4)]
    assert [opener.communicate(timeout=4 * PATIENCE)[1] for opener in openers] == [""] * 4
    with Journal(tmp_path) as journal:
        assert journal.notices == ()


def test_opening_leaves_locks_of_sqlite_in_place(tmp_path: Path) -> None:
    """Closing any descriptor of a file ends the locks of its process: others would begin the shared memory anew."""
    locker = [sys.executable, "-c", LOCKER, str(tmp_path / "journal.sqlite3")]
    with Journal(tmp_path):
        assert subprocess.run(locker, check=True, capture_output=True, text=True).stdout == ""
        with Journal(tmp_path):
            assert subprocess.run(locker, check=True, capture_output=True, text=True).stdout == ""


def test_threads_share_a_run(tmp_path: Path) -> None:
    """Eight workers that race for the same files: each file to one of them, nothing lost, no error."""
    with Journal(tmp_path) as journal:
        run = journal.begin(HERE, {})
        sent: list[int] = []
        together = threading.Barrier(8)

        def work(worker: int) -> None:
            together.wait()
            for number in range(200):
                file = a_file(f"/data/{number}", file=worker * 1000 + number)
                if claimed(run, file).state == "new":
                    run.update(file, checked_until=5)
                    sent.append(number)
                    complete(run, file)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(sent) == list(range(200))
        assert journal.runs()[0].completed_files == 200

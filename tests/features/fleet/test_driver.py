"""The driver of an import: which worker gets which files, and what becomes of those of lost workers."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from features.fleet.fake_cluster import FakeCluster, Given, completed
from scripted_server import Answer, Rule, ScriptedServer
from time_limits import PATIENCE

from uploader_cli import errors, upload
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, PauseReason
from uploader_cli.features.fleet import cluster, driver, members, tasks
from uploader_cli.features.fleet.outcomes import FileEnd, Journaled
from uploader_cli.features.fleet.run_secret import upload_key
from uploader_cli.transfer.journal.reading import PendingPart, PendingUpload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uploader_cli import Result
    from uploader_cli.features.fleet.cluster import Listed


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ScriptedServer(Rule(Answer(204, headers={"Tus-Resumable": "1.0.0", "Tus-Extension": "creation"}))) as server:
        yield f"{server.url}/files"


class Import:
    """Imports of the files a, b, … on a cluster without processes."""

    def __init__(self, endpoint: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.endpoint, self.directory, self.patch = endpoint, directory, monkeypatch
        self.events: list[ev.Event] = []

    def go(self, workers: FakeCluster, names: str = "ab", *, each: bool = False, **options: Any) -> Result:
        """Upload them, with `each` in a task of its own."""
        for name in names:
            if not (self.directory / name).exists():
                (self.directory / name).write_bytes(b"x")
        self.patch.setattr(cluster, "connected", workers.connected)
        paths = [self.directory / name for name in names]
        if each:
            for constant in ("FIRST", "GROWTH"):
                self.patch.setattr(tasks, constant, 1)
        options = {"tus_endpoint": self.endpoint, "on": "local:1", "task_timeout": PATIENCE, **options}
        return upload(paths, on_event=self.events.append, state_dir=self.directory / "state", **options)

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, ev.RunWarning)]


@pytest.fixture
def run(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    monkeypatch.setattr(driver, "TOLD_EVERY", 0.0)
    monkeypatch.setattr(members, "CHECKED_AGAIN", 0.0)
    monkeypatch.setattr(driver, "NO_WORKERS", PATIENCE)  # no warning while the machine is busy
    monkeypatch.setattr(driver, "PATIENCE", PATIENCE)  # files that the walk finds late are in the same task
    return Import(endpoint, tmp_path, monkeypatch)


def test_each_free_worker_gets_a_task(run: Import) -> None:
    """No worker has more than one task that waits."""
    workers, many = FakeCluster("one", "two"), threading.Event()

    def wait(given: Given) -> None:
        if len(workers.given) == 4:
            many.set()
        assert many.wait(PATIENCE)
        given.complete()

    workers.task = wait
    result = run.go(workers, "abcdefgh", each=True)
    assert (result.ok, len(result.receipts)) == (True, 8)
    assert sorted(given.worker for given in workers.given[:4]) == ["one", "one", "two", "two"]
    assert sorted(given.names for given in workers.given) == [*"abcdefgh"]
    assert workers.checked == ["one", "two"]
    assert len({given.input.process for given in workers.given}) == 2
    assert not run.warnings


@pytest.mark.parametrize("begun", [True, False])
def test_task_of_a_worker_that_is_gone_goes_to_another(run: Import, begun: bool) -> None:
    """What it reported counts."""
    workers = FakeCluster("one")

    def work(given: Given) -> None:
        if given.worker == "two":
            return given.complete()
        if begun:
            given.tell(completed(0))
        workers.join("two")
        return given.die()

    workers.task = work
    result = run.go(workers)
    assert (result.ok, result.exit_code) == (True, 0)
    first, second = workers.given
    assert (first.names, second.names) == ("a b", "b" if begun else "a b")
    assert (first.input.again, second.input.again) == (False, True)
    assert run.warnings == ["worker one died: its task with 1 unfinished files runs again"] * begun


@pytest.mark.parametrize("begun", [True, False])
def test_files_that_several_workers_died_with_fail(run: Import, begun: bool) -> None:
    workers = FakeCluster("w0")

    def work(given: Given) -> None:
        if begun:
            given.tell()
        workers.join(f"w{len(workers.given)}")
        given.die()

    workers.task = work
    run.go(workers, "a")
    (failed,) = [event for event in run.events if isinstance(event, ev.FileFailed)]
    assert failed.message == "the workers that sent it died or made no progress: w0, w1, w2, w3"
    assert failed.code is FailureCode.NETWORK


def test_task_of_a_worker_that_hangs_goes_to_another(run: Import) -> None:
    """How far requests reached is unknown then: the worker may go on. It is stopped, and takes part after a check."""
    workers = FakeCluster("one")
    known = PendingUpload(url="https://h/u", sent_until=1, parts=(PendingPart(0, 0, 1, "k", sent_until=1),))

    ahead = [0.0]
    run.patch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0]))

    def work(given: Given) -> None:
        if len(workers.given) == 1:
            given.tell(Journaled(0, known))
            workers.turn()
            workers.beats()
            ahead[0] = 8.0
        else:
            given.complete()

    workers.task = work
    result = run.go(workers, "a", task_timeout=5.0)
    assert result.ok
    assert workers.stopped == ["one"]
    assert workers.checked == ["one", "one"]
    first, second = workers.given
    assert first.input.uploads == {}
    assert second.input.uploads == {0: known.outdated()}
    assert second.input.process != first.input.process
    assert run.warnings == [
        "worker one made no progress for 5 s: its task with 1 unfinished files runs again",
        "worker one takes part again",
    ]


def test_resumed_run_has_the_keys_that_its_lost_workers_made(run: Import) -> None:
    """Also of uploads of which they could not tell: a server may know them by these keys."""
    workers, cancel = FakeCluster("one"), threading.Event()

    def work(given: Given) -> None:
        if len(workers.given) > 1:
            return given.complete()
        cancel.set()
        return given.die()

    workers.task = work
    assert run.go(workers, cancel=cancel).exit_code == 130
    workers.join("one")
    assert run.go(workers).ok
    first, second = workers.given
    made = {file.file: upload_key(first.input.secret, file) for file in first.files}
    assert {number: upload.upload_key for number, upload in second.input.uploads.items()} == made


@pytest.mark.parametrize("how", ["killed", "replaced"])
def test_task_whose_process_was_replaced_runs_again(run: Import, how: str) -> None:
    """Dask starts another process at the address, which is checked before it gets the task."""
    workers = FakeCluster("one")

    def work(given: Given) -> None:
        if len(workers.given) > 1:
            given.complete()
        elif how == "killed":
            given.future.end(KilledWorker("the task", "one", 3, 3))
        else:
            given.end(process="another")

    workers.task = work
    assert run.go(workers, "a").ok
    assert workers.checked == ["one", "one"]
    assert [given.input.process for given in workers.given] == ["process 1", "process 2"]


class KilledWorker(Exception):
    """As that of Dask, of which the driver knows the name only."""


def test_error_that_ends_a_task_ends_the_run(run: Import) -> None:
    """It names the worker, and where that has its token from. What the task has stored counts."""
    workers = FakeCluster("one")
    refused = errors.Unauthorized("401: the token is wrong", status=401)
    workers.task = lambda given: given.end(completed(0), error=refused)
    result = run.go(workers)
    assert (result.outcome.completed, result.exit_code) == (1, 5)
    assert result.error.startswith("401: the token is wrong (worker one)")
    assert workers.stopped == [None]


def test_no_task_is_submitted_after_a_failure_with_fail_fast(run: Import) -> None:
    workers, over = FakeCluster("one"), threading.Event()
    failed = ev.FileFailed(0, "", FailureCode.SERVER_REFUSED, "it is refused", retryable=False)

    def work(given: Given) -> None:
        if given.input.number == 1:
            given.end(FileEnd("s", 1, failed))
            over.set()
        else:
            assert over.wait(PATIENCE)
            workers.turn()
            given.complete()

    workers.task = work
    result = run.go(workers, "abcd", each=True, fail_fast=True)
    assert (result.outcome.failed, result.outcome.skipped) == (1, 4 - len(workers.given))
    assert len(workers.given) <= 2, "one waited at the worker"


def test_pause_after_a_429_holds_all_workers(run: Import) -> None:
    """The two tasks that were submitted before it end during the pause."""
    workers, began = FakeCluster("one"), dict[int, float]()

    def work(given: Given) -> None:
        began[given.input.number] = time.monotonic()
        if given.input.number == 1:
            given.tell(ev.Paused(0.5, PauseReason.RATE_LIMIT))
        elif given.input.number == 2:
            while not workers.paused:
                time.sleep(0.005)
        given.complete()

    workers.task = work
    assert run.go(workers, "abcd", each=True).ok
    assert workers.paused == [0.5]
    assert min(began[3], began[4]) - began[1] >= 0.5


def test_overloaded_server_gets_half_as_many_tasks_and_then_more(run: Import) -> None:
    """At most half of those that run; each that ends adds one. Another 503 soon after is of the same overload."""
    workers, going = FakeCluster("one", threads=7), list[int]()

    def work(given: Given) -> None:
        if given.input.number != 8:
            return
        first, *rest = workers.given
        for _ in range(2):
            first.tell(ev.CallMade("PATCH", "https://h/", None, 503, 0.1, None))
        first.complete()
        for ended, each in enumerate(rest[:3], start=1):
            workers.turn()
            going.append(len(workers.given) - ended)
            each.complete()
        workers.task = Given.complete
        for each in workers.given[4:]:
            each.complete()

    workers.task = work
    result = run.go(workers, "abcdefghijklmnopqrst", each=True)
    assert (result.ok, going) == (True, [7, 6, 6])


def test_worker_that_can_not_send_files_is_kept_out(run: Import) -> None:
    """It is named once, although it is checked again and again. With the last one the run ends."""
    workers = FakeCluster("one", "two")
    broken = {"one": "it can't read /a"}
    workers.check = lambda name: errors.UsageError(broken[name]) if name in broken else None
    workers.task = lambda given: workers.turn() or given.complete()
    assert run.go(workers, "a").ok
    assert run.warnings == ["worker one takes no part: it can't read /a"]
    assert workers.checked.count("one") > 2
    assert workers.checked.count("two") == 1
    broken["two"] = "it has another file at /a"
    result = run.go(workers, "b")
    assert (result.exit_code, result.error) == (2, "worker one takes no part: it can't read /a")


def test_worker_gets_a_second_check_after_an_outage(run: Import) -> None:
    """At once, and without a warning: it may have met a restart of the server."""
    run.patch.setattr(members, "CHECKED_AGAIN", PATIENCE)
    workers, down = FakeCluster("one"), [errors.ConnectFailed("no connection")]
    workers.check = lambda _name: down.pop() if down else None
    assert run.go(workers, "a").ok
    assert (workers.checked, run.warnings) == (["one", "one"], [])


def test_import_waits_for_workers_up_to_wait_for_server(run: Import) -> None:
    """From the time on at which it has reached the cluster."""
    ahead, workers = [0.0], FakeCluster()
    listed = workers.listed

    def late(wait: float = 0.0) -> Mapping[str, Listed]:
        ahead[0] += PATIENCE if wait else 0.0  # the first list of all
        return listed(wait)

    run.patch.setattr(workers, "listed", late)
    run.patch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0]))
    run.patch.setattr(driver, "NO_WORKERS", -1.0)
    result = run.go(workers, "a", wait_for_server=1)
    missing = "no worker is connected at local:1"
    assert run.warnings == [
        f"{missing}: waiting up to 1 s (--wait-for-server)",
        f"the run ended early: {missing}",
    ]
    assert (result.exit_code, result.error, result.outcome.seconds >= 1) == (3, missing, True)
    workers.check = lambda _name: errors.ConnectFailed("no connection")
    workers.join("one")
    assert run.go(workers, "a", wait_for_server=0.1).error.startswith("no worker has passed its test at local:1")


def test_workers_share_the_limited_rate(run: Import) -> None:
    workers = FakeCluster("one", "two")
    assert run.go(workers, "a", limit_rate="1M").ok
    assert workers.given[0].input.options["limit_rate"] == str(1 << 19)


def test_fewer_tasks_than_the_limited_rate_has_connections(run: Import) -> None:
    workers = FakeCluster("one", "two")
    assert run.go(workers, "abcd", each=True, limit_rate=3000).ok
    assert {given.input.options["limit_rate"] for given in workers.given} == {"3000"}
    assert workers.most_at_once == 1


def test_files_that_were_sent_before_are_no_task(run: Import) -> None:
    workers = FakeCluster("one")
    for skipped in (0, 2):
        result = run.go(workers, "ab", skip_existing=True, trust_receipts=True)
        assert (result.ok, result.outcome.skipped) == (True, skipped)
    assert [given.names for given in workers.given] == ["a b"]


def test_keys_change_the_number_of_tasks(run: Import) -> None:
    """A task that runs is completed during a pause."""
    workers, made = FakeCluster("one", threads=3), list[driver.Driver]()

    class Kept(driver.Driver):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    def work(given: Given) -> None:
        if given.input.number != 1:
            return
        assert (made[0].change_jobs(-1), made[0].change_jobs(-5)) == (2, 1)
        made[0].toggle_pause()
        workers.turn()
        before = [*workers.given]
        for each in before:
            each.complete()
        workers.turn()
        assert workers.given == before
        workers.task, workers.most_at_once = Given.complete, 0
        made[0].toggle_pause()

    workers.task = work
    run.patch.setattr(driver, "Driver", Kept)
    assert run.go(workers, "abcdefgh", each=True).ok
    assert workers.most_at_once == 1
    assert [type(event) for event in run.events if isinstance(event, ev.RunPaused | ev.RunResumed)] == [
        ev.RunPaused,
        ev.RunResumed,
    ]

"""What a task of an import does in its worker, without Dask: a thread of this process stands in for it."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from features.fleet.fake_cluster import FakeCluster, Given
from time_limits import PATIENCE
from tus_services import Service, Unanswered

from uploader_cli import upload
from uploader_cli.core import events as ev
from uploader_cli.core.events import PauseReason
from uploader_cli.features.fleet import cluster, driver, members, worker
from uploader_cli.features.fleet.outcomes import Journaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripted_server import Answer, Request

    from uploader_cli import Result


class Dask:
    """What a task sees of Dask: its key, and the scheduler, which passes its messages on."""

    def __init__(self, workers: FakeCluster) -> None:
        self.key, self.loop, self.scheduler = "key", None, self
        self.task: Any = SimpleNamespace(state="executing")
        self.state = SimpleNamespace(tasks={self.key: self.task})
        self.gone = False
        self._workers = workers

    def get_current_task(self) -> str:
        return self.key

    def log_event(self, *, topic: str, msg: tuple[str, int, bytes]) -> None:
        assert topic == worker.TOPIC
        if self.gone:
            raise OSError("the scheduler is gone")
        self._workers.hear(msg)


class Slow(Service):
    """Counts the creations at the same time; holds the chunk at `held` until `release`, and gives it no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.creating, self.most_creating, self.held = 0, 0, -1
        self.holds, self.release = threading.Event(), threading.Event()
        self.times: list[float] = []

    def _post(self, request: Request) -> Answer:
        self.times.append(time.monotonic())
        self.creating += 1
        self.most_creating = max(self.most_creating, self.creating)
        time.sleep(0.01)
        answer = super()._post(request)
        self.creating -= 1
        return answer

    def _patch(self, request: Request) -> Answer:
        if request.headers["upload-offset"] == str(self.held) and not self.release.is_set():
            self.holds.set()
            assert self.release.wait(PATIENCE)
            raise Unanswered
        return super()._patch(request)


class Import:
    """An import whose tasks run in this process."""

    def __init__(self, directory: Path, service: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.service, self.workers = directory, service, FakeCluster("one")
        self.dask = Dask(self.workers)
        self.workers.process = worker.PROCESS
        self.workers.task = Given.send
        modules = {
            "distributed": SimpleNamespace(get_worker=lambda: self.dask, __spec__=ModuleSpec("distributed", None)),
            "distributed.utils": SimpleNamespace(sync=lambda _loop, call, **what: call(**what)),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(cluster, "connected", self.workers.connected)
        monkeypatch.setattr(members, "CHECKED_AGAIN", 0.0)
        monkeypatch.setattr(worker, "TASK_REPORT_EVERY", 0.02)
        monkeypatch.setattr(driver, "PATIENCE", PATIENCE)  # files that the walk finds late are in the same task
        monkeypatch.setattr(driver, "GRACE", PATIENCE)

    def go(self, cancel: threading.Event | None = None, jobs: int = 4, **sizes: int) -> Result:
        for name, size in sizes.items() - {path.name: path.stat().st_size for path in self.directory.iterdir()}.items():
            (self.directory / name).write_bytes(name.encode() * size)
        paths = [self.directory / name for name in sizes]
        options: Any = {"tus_endpoint": self.service.url, "on": "local:1", "chunk_size": "64k", "jobs": jobs}
        return upload(paths, state_dir=self.directory / "state", cancel=cancel, **options)

    @property
    def stored(self) -> dict[str, int]:
        """The length of each upload, by the name of its file."""
        uploads = self.service.uploads.values()
        assert len(uploads) == len({each.metadata["filename"] for each in uploads})
        return {each.metadata["filename"]: len(each.content) for each in uploads}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    with Slow() as service:
        yield Import(tmp_path, service, monkeypatch)


def test_process_creates_one_upload_at_a_time(run: Import) -> None:
    sizes: dict[str, Any] = dict.fromkeys("abcdefgh", 10)
    assert run.go(**sizes).ok
    assert run.stored == sizes
    assert run.service.most_creating == 1


def test_task_that_no_driver_waits_for_stops_before_its_next_creation(run: Import) -> None:
    """As that of a worker that the scheduler has lost: another worker sends its files."""
    created = list[int]()

    def work(given: Given) -> None:
        if given.worker == "two":
            return given.send()
        run.dask.task.state = "cancelled"
        worker.send(given.input)
        created.append(run.service.created)
        run.dask.task.state = "executing"
        run.workers.join("two")
        return given.die()

    run.workers.task = work
    assert run.go(a=10, b=20).ok
    assert (created, run.stored) == ([0], {"a": 10, "b": 20})


def test_task_stops_where_the_scheduler_is_gone(run: Import) -> None:
    def work(given: Given) -> None:
        if given.worker == "two":
            return given.send()
        run.dask.gone = True
        assert worker.send(given.input).ends == []
        run.dask.gone = False
        run.workers.join("two")
        return given.die()

    run.workers.task = work
    assert run.go(a=10).ok


def test_upload_of_a_lost_worker_is_continued_by_another(run: Import) -> None:
    """The first one has stored a chunk of it, and goes on when it is heard of no more."""
    run.service.held = 64 << 10

    def work(given: Given) -> None:
        if given.worker == "two":
            return given.send()
        run.workers.run(worker.send, given.input)
        assert run.service.holds.wait(PATIENCE)
        run.service.release.set()
        run.workers.join("two")
        return given.die()

    run.workers.task = work
    assert run.go(a=100 << 10).ok
    assert run.stored == {"a": 100 << 10}
    assert run.service.created == 1


def test_url_of_an_upload_in_one_request_is_told_before_its_end(run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the worker dies between, the next one asks for that upload."""
    monkeypatch.setattr(Slow, "extensions", "creation,creation-with-upload")
    known = list[str | None]()

    def work(given: Given) -> None:
        if given.worker == "two":
            known.append(given.input.uploads[0].url)
            return given.complete()
        hear = run.workers.hear

        def heard(message: tuple[str, int, bytes]) -> None:
            hear(message)
            run.dask.gone = any(isinstance(news, Journaled) and news.upload.url for news in pickle.loads(message[2]))

        run.workers.hear = heard
        worker.send(given.input)
        run.workers.join("two")
        return given.die()

    run.workers.task = work
    assert run.go(a=10).ok
    (upload,) = run.service.uploads
    assert known == [f"{run.service.url}{upload}"]


def test_pause_holds_the_calls_of_all_tasks_in_a_process(run: Import) -> None:
    told = list[float]()

    def work(given: Given) -> None:
        told.append(time.monotonic())
        given.tell(ev.Paused(0.5, PauseReason.RATE_LIMIT))
        run.workers.turn()
        given.send()

    run.workers.task = work
    assert run.go(a=10).ok
    assert run.service.times[0] - told[0] >= 0.5


def test_interrupt_stops_the_tasks_and_those_that_begin_later(run: Import) -> None:
    """What was stored by then counts, and no other file is sent."""
    run.service.held, cancel = 64 << 10, threading.Event()

    def interrupt() -> None:
        assert run.service.holds.wait(PATIENCE)
        cancel.set()
        while None not in run.workers.stopped:
            time.sleep(0.005)
        run.service.release.set()

    run.workers.run(interrupt)
    result = run.go(cancel=cancel, jobs=1, a=10, b=100 << 10, c=100 << 10)
    assert (result.exit_code, result.outcome.completed) == (130, 1)
    created = run.service.created
    assert worker.send(run.workers.given[0].input).ends == []
    assert run.service.created == created
    assert run.go(a=10, b=100 << 10, c=100 << 10).ok
    assert run.stored == {"a": 10, "b": 100 << 10, "c": 100 << 10}


def test_task_of_another_process_sends_nothing(run: Import) -> None:
    """Dask gives it to the process that takes the place of the one which was checked."""

    def work(given: Given) -> None:
        run.workers.process = worker.PROCESS
        given.send()

    run.workers.process, run.workers.task = "another", work
    assert run.go(a=10).ok
    assert (len(run.workers.given), run.workers.checked, run.service.created) == (2, ["one", "one"], 1)


def test_error_of_the_settings_of_a_worker_ends_the_run(run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(given: Given) -> None:
        monkeypatch.setenv("UPLOADER_TOKEN_FILE", str(run.directory / "none"))
        given.send()

    run.workers.task = work
    result = run.go(a=10)
    assert result.exit_code == 2
    assert result.error.endswith("(worker one)")

"""Calls to a cluster: what is listed, and that none waits for ever; with a client of Dask that no scheduler answers."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from time_limits import PATIENCE

from uploader_cli import Settings, errors
from uploader_cli.features.fleet import cluster, worker
from uploader_cli.features.fleet.cluster import Cluster, Listed, awaited
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = {
    "tcp://10.0.0.1:4000": {"name": "tcp://10.0.0.1:4000", "nthreads": 2, "last_seen": 7.5, "status": "running"},
    "tcp://10.0.0.2:4000": {"name": 3, "nthreads": 1, "last_seen": 8.5, "status": "paused"},
    "tcp://10.0.0.3:4000": {"name": "ends", "nthreads": 1, "last_seen": 8.5, "status": "closing_gracefully"},
}


class Client:
    """A client of Dask; `down`: no call returns an answer."""

    def __init__(self) -> None:
        self.scheduler, self.down = SimpleNamespace(identity=None), False
        self.dashboard_link: str | None = None
        self.ran: list[tuple[Any, ...]] = []
        self.runs = threading.Event()

    def sync(self, _call: object) -> dict[str, object]:
        if self.down:
            raise OSError("the scheduler is gone")
        return {"workers": WORKERS}

    def run(self, *what: object, on_error: str, **where: object) -> None:
        assert on_error == "ignore"
        self.ran.append((*what, where))
        self.runs.set()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    import dask

    monkeypatch.setattr(cluster, "LOOK_EVERY", 0.01)
    clusters = list[Cluster]()

    def make(client: Any, cluster_timeout: float = PATIENCE) -> Cluster:
        settings = Settings(on="dask://h:8786", cluster_timeout=cluster_timeout)
        clusters.append(Cluster(client, "run", settings, Stop()))
        return clusters[-1]

    with dask.config.set({"distributed.scheduler.allowed-failures": 5}):
        yield make
    for each in clusters:
        assert each.allowed_losses == 5
        each.close()


def test_running_workers_are_listed_with_their_names(made: Callable[..., Cluster]) -> None:
    """Those without one by their addresses. The dashboard is kept once it is known."""
    client = Client()
    there = made(client)
    assert there.listed(PATIENCE) == {
        "tcp://10.0.0.1:4000": Listed("10.0.0.1:4000", 2, 7.5),
        "tcp://10.0.0.2:4000": Listed("3", 1, 8.5),
    }
    assert there.dashboard == ""
    client.dashboard_link = "http://h:8787/status"
    end = time.monotonic() + PATIENCE
    while not there.dashboard and time.monotonic() < end:
        time.sleep(0.005)
    client.dashboard_link = None
    assert there.dashboard == "http://h:8787/status"


def test_scheduler_that_answers_no_more_is_an_error(made: Callable[..., Cluster]) -> None:
    client = Client()
    client.down = True
    there, began = made(client, 0.2), time.monotonic()
    message = "the Dask scheduler at dask://h:8786 has not answered for "
    with pytest.raises(errors.NetworkError, match=message):
        there.listed(0.3)
    assert time.monotonic() - began >= 0.3


def test_workers_are_told_to_pause_and_to_stop(made: Callable[..., Cluster]) -> None:
    """One of them stops what it has now; all of them also what comes later."""
    client = Client()
    there = made(client)
    for call in (lambda: there.pause(7.5), lambda: there.stop("tcp://10.0.0.1:4000"), there.stop):
        client.runs.clear()
        call()
        assert client.runs.wait(PATIENCE)
    assert client.ran == [
        (worker.pause, "run", 7.5, {}),
        (worker.stop, "run", False, {"workers": ["tcp://10.0.0.1:4000"]}),
        (worker.stop, "run", True, {"workers": None}),
    ]


def test_cancelled_future_and_one_of_a_dead_worker_are_errors(made: Callable[..., Cluster]) -> None:
    there = made(Client())
    over = threading.Event()
    cancelled: Any = SimpleNamespace(status="cancelled")
    with pytest.raises(errors.NetworkError, match="is gone, or cancelled the tasks"):
        there.result(cancelled)
    hanging: Any = SimpleNamespace(status="finished", result=lambda timeout: over.wait(PATIENCE) and timeout)
    with pytest.raises(TimeoutError):
        made(Client(), 0.2).result(hanging)
    over.set()
    assert there.result(hanging) == PATIENCE


def test_call_that_returns_too_late_is_undone() -> None:
    over, undone = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        awaited(lambda: over.wait(PATIENCE), 0.05, Stop(), undo=lambda result: result and undone.set())
    assert not undone.is_set()
    over.set()
    assert undone.wait(PATIENCE)


def test_call_that_returns_just_when_the_run_is_stopped_is_undone() -> None:
    returned, undone = threading.Event(), threading.Event()

    class Stopped(Stop):
        def checkpoint(self) -> None:
            assert returned.wait(PATIENCE)
            time.sleep(0.05)
            raise errors.Interrupted("Ctrl-C")

    def call() -> bool:
        returned.set()
        return True

    with pytest.raises(errors.Interrupted):
        awaited(call, PATIENCE, Stopped(), undo=lambda result: result and undone.set())
    assert undone.wait(PATIENCE)


def test_error_of_a_call_is_raised_and_its_result_returned() -> None:
    def fail() -> None:
        raise TimeoutError("of Dask")

    with pytest.raises(TimeoutError, match="of Dask"):
        awaited(fail, PATIENCE, Stop())
    assert awaited(lambda: 7, PATIENCE, Stop(), undo=lambda _result: pytest.fail("in time")) == 7


def test_stop_ends_the_wait_for_a_call() -> None:
    over, stop = threading.Event(), Stop()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(errors.Interrupted):
        awaited(lambda: over.wait(PATIENCE), PATIENCE, stop)
    over.set()

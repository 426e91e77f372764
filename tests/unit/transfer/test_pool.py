"""The number of workers of the pool."""

from __future__ import annotations

import resource
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from time_limits import PATIENCE

from uploader_cli.errors import Interrupted
from uploader_cli.sources.directories import KEPT_OPEN
from uploader_cli.transfer.pool import OF_WORKER, Pool, Worker, most_workers

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)


def no_worker(_pool: Pool) -> Any:
    raise AssertionError("there is no job")


@pytest.mark.parametrize(("limit", "least"), [(256, 50), (1024, 300)])
def test_workers_and_what_a_run_keeps_open_fit_into_the_limit_of_open_files(
    limit: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    kept = KEPT_OPEN + KEPT_OPEN  # directories, and files in doubt
    assert least <= most_workers() <= (limit - kept) // OF_WORKER


@pytest.mark.parametrize(
    ("jobs", "steps", "numbers"),
    [
        ("auto", [1, -1, -1, -1, -1, -1], [5, 4, 3, 2, 1, 1]),
        (15, [1, 1, -1], [16, 16, 15]),
        (32, [1, -1], [32, 31]),
    ],
)
def test_number_of_jobs_that_the_user_changes_stays_between_1_and_16(
    jobs: Any, steps: list[int], numbers: list[int]
) -> None:
    """A larger `--jobs` is the limit itself."""
    pool = Pool(jobs, no_worker)
    assert [pool.resize(step) for step in steps] == numbers


def test_close_waits_only_for_workers_that_run() -> None:
    """It may come, after an interrupt, while the pool starts another worker."""
    ends: list[object] = []

    class Starting(threading.Thread):
        def __init__(self, pool: Pool) -> None:
            super().__init__(daemon=True, target=pool.take)
            self.pool = pool

        def start(self) -> None:
            closing = threading.Thread(target=lambda: ends.append(self.close()), daemon=True)
            closing.start()
            closing.join(0.1)
            super().start()
            self.pool.fail(Interrupted("Ctrl-C"))

        def close(self) -> BaseException | None:
            try:
                self.pool.close()
            except RuntimeError as error:
                return error
            return None

    Pool(2, Starting).put([cast("Any", object())])  # type: ignore[arg-type]
    wait_for(lambda: ends)
    assert ends == [None]


def test_error_of_a_worker_before_its_first_job_ends_the_run() -> None:
    """A job may be queued for it, and no other worker would be started."""
    broken = ValueError("no such route")

    def connect(_url: str) -> None:
        raise broken

    api = cast("Any", SimpleNamespace(connect=connect, close=lambda: None))
    calls = cast("Any", SimpleNamespace(endpoint="http://far.example"))
    pool = Pool(1, lambda pool: Worker(pool, api, calls, lambda *_: None))
    pool.connect_ahead(1)
    pool.put([cast("Any", object())])
    pool.close()
    assert pool.fatal is broken


@pytest.mark.parametrize(("jobs", "cap", "most"), [("auto", 3, 3), (16, 2, 2), (2, 3, 2)])
def test_number_of_jobs_stays_below_its_cap(jobs: Any, cap: int, most: int) -> None:
    pool = Pool(jobs, no_worker, cap=cap)
    assert pool.most == most
    assert pool.resize(1) == min(cap, most + 1)


@pytest.mark.parametrize(("limit", "most"), [(256, 57), (30, 1), (-1, 500), (1 << 20, 500)])
def test_number_of_jobs_fits_the_limit_of_open_files(limit: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (limit, limit))
    assert Pool(100_000, no_worker).most == most


@pytest.mark.parametrize(
    ("jobs", "cap", "queued", "refused", "spare"),
    [
        ("auto", None, 0, 0, 15),
        ("auto", 6, 0, 0, 5),
        ("auto", None, 1, 0, 2),
        ("auto", None, 0, 1, 1),
        ("auto", None, 5, 2, 0),
        (4, None, 0, 0, 3),
    ],
)
def test_spare_workers_of_a_single_job_include_those_that_auto_may_add(
    jobs: Any, cap: int | None, queued: int, refused: int, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uploader_cli.transfer.pool.MEASURED_SECONDS", 0.0)
    pool = Pool(jobs, lambda _: cast("Any", SimpleNamespace(start=lambda: None)), cap=cap)
    for _ in range(refused):
        pool.overloaded()
    pool.put([cast("Any", object())] * (1 + queued))
    pool.take()
    assert pool.spare == spare


def test_number_of_jobs_that_the_user_has_changed_is_no_longer_adapted() -> None:
    pool = Pool("auto", no_worker)
    pool.overloaded()
    assert pool.most == 2
    pool.resize(1)
    pool.overloaded()
    pool.adapt(None)  # type: ignore[arg-type]  # it measures no throughput
    assert pool.most == 3

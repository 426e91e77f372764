"""The number of workers of the pool."""

from __future__ import annotations

from typing import Any

import pytest

from uploader_cli.transfer.pool import Pool


def no_worker(_pool: Pool) -> Any:
    raise AssertionError("there is no job")


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


@pytest.mark.parametrize(("jobs", "cap", "most"), [("auto", 3, 3), (16, 2, 2), (2, 3, 2)])
def test_number_of_jobs_stays_below_its_cap(jobs: Any, cap: int, most: int) -> None:
    pool = Pool(jobs, no_worker, cap=cap)
    assert pool.most == most
    assert pool.resize(1) == min(cap, most + 1)


def test_number_of_jobs_that_the_user_has_changed_is_no_longer_adapted() -> None:
    pool = Pool("auto", no_worker)
    pool.overloaded()
    assert pool.most == 2
    pool.resize(1)
    pool.overloaded()
    pool.adapt(None)  # type: ignore[arg-type]  # it measures no throughput
    assert pool.most == 3

"""The size of batches."""

from __future__ import annotations

from itertools import pairwise

from uploader_cli.core.plan import LocalFile
from uploader_cli.fleet.batches import FILE_COST, FIRST, GROWTH, LAST, SECONDS, BatchSize, cost, fields_of


def test_batches_grow_in_steps_until_a_task_takes_fifteen_seconds() -> None:
    size, rate = BatchSize(), 40 << 20  # cost per second of a worker
    costs = [size.cost]
    for _ in range(6):
        size.measured(size.cost, size.cost / rate)
        costs.append(size.cost)
    assert costs[0] == FIRST
    assert all(after <= before * GROWTH for before, after in pairwise(costs))
    assert abs(costs[-1] / rate - SECONDS) < 0.1


def test_batches_shrink_at_once_after_a_slow_task() -> None:
    size = BatchSize()
    size.measured(FIRST, 10 * SECONDS)
    assert size.cost == FIRST // 10


def test_last_files_are_shared_by_their_cost() -> None:
    """Large files, too: one worker would send the last ones alone."""
    size, large = BatchSize(), [LocalFile(0, "/a", "a", 64 << 20, 1)] * 16
    size.cost = 2 * cost(large)
    assert size.limit(cost(large), slots=4) == cost(large[:2])
    assert size.limit(cost(large[:1]), slots=4) == cost(large[:1]) // 8
    assert size.limit(FILE_COST, slots=4) == LAST
    size.cost = FILE_COST
    assert size.limit(cost(large), slots=4) == FILE_COST


def test_file_travels_whole_and_in_few_fields() -> None:
    plain = LocalFile(3, "b/a", "a", 5, 7)
    assert fields_of(plain, "/x/b/a") == (3, "/x/b/a", "a", 5, 7)
    listed = LocalFile(3, "/a", "a", 5, 7, named=True, category="scenic", sha256="00", destination="scenic/")
    assert LocalFile(*fields_of(listed, "/a")) == listed  # type: ignore[arg-type]

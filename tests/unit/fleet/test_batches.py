"""The size of batches."""

from __future__ import annotations

from itertools import pairwise

from uploader_cli.core.plan import LocalFile
from uploader_cli.fleet.batches import FILE_COST, FIRST, GROWTH, MOST_FILES, SECONDS, BatchSize, cost, fields_of


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


def test_batch_is_full_by_cost_or_number_of_files() -> None:
    size, file = BatchSize(), LocalFile(0, "/a", "a", 0, 1)
    assert cost([file]) == FILE_COST
    assert not size.is_full([file], FIRST - 1)
    assert size.is_full([file], FIRST)
    assert size.is_full([file] * MOST_FILES, 0)


def test_file_travels_whole_and_in_few_fields() -> None:
    plain = LocalFile(3, "b/a", "a", 5, 7)
    assert fields_of(plain, "/x/b/a") == (3, "/x/b/a", "a", 5, 7)
    listed = LocalFile(3, "/a", "a", 5, 7, named=True, category="scenic", sha256="00", destination="scenic/")
    assert LocalFile(*fields_of(listed, "/a")) == listed  # type: ignore[arg-type]

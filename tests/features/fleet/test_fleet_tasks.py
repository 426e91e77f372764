"""The tasks: which files are in them, and how a file travels."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from uploader_cli.core.plan import LocalFile
from uploader_cli.features.fleet import tasks
from uploader_cli.features.fleet.cluster import travelling
from uploader_cli.features.fleet.tasks import FILE_COST, FIRST, GROWTH, LAST, SECONDS, Cutter, cost, fields_of
from uploader_cli.settings import Settings

SMALL = LocalFile(0, "/a", "a", 0, 1)


def cutter(*files: LocalFile, size: int = FIRST) -> Cutter:
    made = Cutter()
    made.size = size
    for file in files:
        made.add(file)
    return made


def test_tasks_grow_in_steps_until_one_takes_fifteen_seconds() -> None:
    made, rate = Cutter(), 400 << 20  # cost per second of a worker
    sizes = [made.size]
    for _ in range(6):
        made.measured(made.size, made.size / rate)
        sizes.append(made.size)
    assert sizes[0] == FIRST
    assert all(after <= before * GROWTH for before, after in pairwise(sizes))
    assert abs(sizes[-1] / rate - SECONDS) < 0.1


def test_tasks_shrink_at_once_after_a_slow_one() -> None:
    made = Cutter()
    made.measured(FIRST, 10 * SECONDS)
    assert made.size == FIRST // 10


def test_task_waits_until_it_is_full() -> None:
    made = cutter(SMALL, SMALL, size=3 * cost([SMALL]))
    assert made.cut(4, last=False) == []
    made.add(SMALL)
    made.add(SMALL)
    assert made.cut(4, last=False) == [SMALL] * 3
    assert made.cut(4, last=False) == []
    assert made.cut(4, last=True) == [SMALL]
    assert made.cut(4, last=True) == []


@pytest.mark.parametrize("last", [False, True])
def test_task_has_a_limited_number_of_files(last: bool) -> None:
    """Also below the cost of a task; and all tasks together have fewer files than may be in progress."""
    most, slots = 3, 100
    limited = {"MOST_FILES": most, "IN_PROGRESS": 2 * slots * 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limited.items():
            patch.setattr(tasks, name, value)
        assert len(cutter(*[SMALL] * 5).cut(1, last=last)) == most
        assert len(cutter(*[SMALL] * 5).cut(slots, last=last)) == 2
        assert len(cutter(*[SMALL] * 5).cut(1000 * slots, last=last)) == 1
    assert len(cutter(*[SMALL] * 5).cut(1, last=last)) == (5 if last else 0)


def test_last_files_are_shared_by_their_cost() -> None:
    """Large files, too: one worker would send the last ones alone."""
    large = [LocalFile(0, "/a", "a", 64 << 20, 1)] * 16
    size = 2 * cost(large)
    assert cutter(*large, size=size).cut(4, last=True) == large[:2]
    assert cutter(*large[:1], size=size).cut(4, last=True) == large[:1]
    assert cutter(*large, size=FILE_COST).cut(4, last=True) == large[:1]


@pytest.mark.parametrize(("size", "least"), [(LAST, LAST), (LAST * 600, LAST * 10)])
def test_last_tasks_are_not_too_short(size: int, least: int) -> None:
    """A task takes a quarter of a second, where `size` is what it does in fifteen."""
    few = least // cost([SMALL])
    assert cutter(*[SMALL] * 2 * few, size=size).cut(100, last=True) == [SMALL] * few


def test_forgotten_files_are_in_no_task() -> None:
    made = cutter(SMALL, SMALL)
    made.clear()
    assert made.cut(1, last=True) == []
    made.add(SMALL)
    made.size = 2 * cost([SMALL])
    assert made.cut(1, last=False) == [], "it waits for another file"


def test_file_travels_whole_and_in_few_fields() -> None:
    plain = LocalFile(3, "b/a", "a", 5, 7)
    assert fields_of(plain, "/x/b/a") == (3, "/x/b/a", "a", 5, 7)
    listed = LocalFile(3, "/a", "a", 5, 7, named=True, category="scenic", sha256="00", destination="scenic/")
    assert LocalFile(*fields_of(listed, "/a")) == listed  # type: ignore[arg-type]


def test_options_of_a_task_are_those_of_the_run_without_its_secrets() -> None:
    settings = Settings(
        server="https://h", on="local:2", insecure=True, digest=True, token="secret", token_file=Path("/t")
    )
    options = travelling(settings)
    told = {name: options[name] for name in ("server", "on", "insecure", "digest", "token_file")}
    assert told == {
        "server": "https://h",
        "on": "none",
        "insecure": True,
        "digest": True,
        "token_file": "/t",
    }
    assert "secret" not in str(options)

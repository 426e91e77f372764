"""How the number of parallel jobs follows the throughput."""

from __future__ import annotations

from uploader_cli.core.jobs import FIRST_JOBS, MOST_JOBS, REST, AutoJobs


def follow(auto: AutoJobs, periods: int, limit: int, *, in_line: bool = True) -> list[int]:
    """Return the jobs after each period on a link where up to `limit` jobs gain 1 MB/s each."""
    return [auto.measured(1e6 * min(auto.jobs, limit), in_line=in_line) for _ in range(periods)]


def test_jobs_rise_by_one_while_the_throughput_rises_up_to_the_maximum() -> None:
    jobs = follow(AutoJobs(), 20, limit=100)
    assert jobs[:4] == [FIRST_JOBS, FIRST_JOBS + 1, FIRST_JOBS + 2, FIRST_JOBS + 3]
    assert jobs[-1] == max(jobs) == MOST_JOBS


def test_jobs_settle_where_one_more_gains_nothing() -> None:
    jobs = follow(AutoJobs(), 200, limit=7)
    assert set(jobs[20:]) == {7, 8}
    assert jobs[20:].count(8) <= len(jobs) // REST


def test_first_period_is_not_compared_because_it_fills_buffers() -> None:
    auto = AutoJobs()
    assert [auto.measured(rate, in_line=True) for rate in (9e6, 4e6, 5e6)] == [4, 5, 6]


def test_jobs_do_not_rise_without_waiting_work() -> None:
    assert set(follow(AutoJobs(), 50, limit=100, in_line=False)) == {FIRST_JOBS}


def test_refusals_halve_the_jobs_down_to_one() -> None:
    auto = AutoJobs(first=12)
    assert [auto.refused() for _ in range(5)] == [6, 3, 1, 1, 1]
    assert follow(auto, REST, limit=100) == [1] * REST
    assert follow(auto, 1, limit=100) == [2]


def test_refusal_ends_the_trial_of_a_job() -> None:
    """The lower throughput of half the jobs takes none of them."""
    auto = AutoJobs(first=12)
    assert [auto.measured(12e6, in_line=True) for _ in range(2)] == [12, 13]
    assert auto.refused() == 6
    assert auto.measured(6e6, in_line=True) == 6


def test_jobs_do_not_rise_while_nothing_is_sent() -> None:
    auto = AutoJobs()
    assert {auto.measured(0.0, in_line=True) for _ in range(50)} == {FIRST_JOBS, FIRST_JOBS + 1}

"""How many jobs run in parallel with `--jobs auto`: additive increase, multiplicative decrease."""

from __future__ import annotations

FIRST_JOBS = 4
"""Jobs at the start of a run."""
MOST_JOBS = 16
"""Jobs beyond which no more are added."""
SHARE = 0.5
"""Part of the ideal gain of one more job that the throughput must show for the job to stay."""
REST = 10
"""Periods without a trial after one that gained nothing, or after a refusal."""


class AutoJobs:
    """Find the number of parallel jobs: one more while the throughput rises, half of them after a refusal."""

    def __init__(self, first: int = FIRST_JOBS, most: int = MOST_JOBS) -> None:
        self.jobs = first
        self._most = most
        self._before: float | None = None
        """Throughput before the job that is on trial, in bytes/s; None where none is."""
        self._rest = 0

    def measured(self, rate: float, *, in_line: bool) -> int:
        """Take the throughput of one period in bytes/s and return the number of jobs for the next one.

        `in_line` is True while jobs wait for a worker: without them one more worker can gain nothing.
        """
        before, self._before = self._before, None
        if before is not None and rate <= before * (1 + SHARE / (self.jobs - 1)):
            self.jobs -= 1
            self._rest = REST
        elif self._rest:
            self._rest -= 1
        elif in_line and self.jobs < self._most:
            self._before = rate
            self.jobs += 1
        return self.jobs

    def refused(self) -> int:
        """Halve the number of jobs, because the server answered 429 or 503, or not in time; return it."""
        self.jobs = max(1, self.jobs // 2)
        self._before, self._rest = None, REST
        return self.jobs

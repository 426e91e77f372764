"""Choose the number of parallel jobs for `--jobs auto`: additive increase, multiplicative decrease."""

from __future__ import annotations

FIRST_JOBS = 4  # jobs at the start of a run
MOST_JOBS = 16  # maximum jobs
SHARE = 0.5  # minimum share of the ideal gain that the throughput must show for an added job to stay
REST = 10  # periods without a trial after a useless one, or after a refusal


class AutoJobs:
    """Adds a job while the throughput rises and halves the jobs after a refusal."""

    def __init__(self, first: int = FIRST_JOBS) -> None:
        self.jobs = first
        self._before: float | None = None
        """Throughput before the job on trial, in bytes/s; None without a trial."""
        self._rest = 1  # the first period also fills buffers: compared with it, a useful job would seem useless

    def measured(self, rate: float, *, in_line: bool) -> int:
        """Take the throughput of a period in bytes/s and return the number of jobs for the next one.

        `in_line` is True while jobs wait for a worker: otherwise another worker gains nothing.
        """
        before, self._before = self._before, None
        if before is not None and rate <= before * (1 + SHARE / (self.jobs - 1)):
            self.jobs -= 1
            self._rest = REST
        elif self._rest:
            self._rest -= 1
        elif in_line and self.jobs < MOST_JOBS:
            self._before = rate
            self.jobs += 1
        return self.jobs

    def refused(self) -> int:
        """Halve the number of jobs, because the server answered 408, 429 or 503 or timed out; return it."""
        self.jobs = max(1, self.jobs // 2)
        self._before, self._rest = None, REST
        return self.jobs

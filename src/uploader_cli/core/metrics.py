"""Measure latency, message lag, failures and throughput of a run.

Memory is bounded: only percentiles and the last few values are kept.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct, field

from uploader_cli.core.events import CallMade, Metrics, SessionProgress, Spread

SAMPLE = 1.0  # seconds per rate sample
LATENCIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Upper bounds of the histogram of response times, in ms."""
LAST_TIMES, LAST_TRIES = 5, 50  # how many of the newest times and attempts an alarm looks at
_ERROR = 0.01  # of a percentile
_FACTOR = (1 + _ERROR) / (1 - _ERROR)
_FLOOR, _CEILING = 1e-6, 1e15  # smaller values count as 0, larger ones as this one: at most 2,500 buckets


class Sketch:
    """Collects non-negative values and estimates their percentiles, each with an error of at most 1 %.

    Values are counted in buckets of exponentially growing size (DDSketch; Masson, Rim, Lee, VLDB 2019).
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.buckets: Counter[int] = Counter()
        self._least, self._most = math.inf, 0.0

    def add(self, value: float) -> None:
        """Count a value; negative ones count as 0."""
        value = min(max(value, 0.0), _CEILING)
        self.count += 1
        self.sum += value
        self._least, self._most = min(self._least, value), max(self._most, value)
        self.buckets[_bucket(value)] += 1

    def quantile(self, share: float) -> float:
        """Return the value that the `share` (0–1) of values does not exceed; 0 without values."""
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                middle = 2 * _FLOOR * _FACTOR**bucket / (_FACTOR + 1) if bucket else 0.0
                return min(max(middle, self._least), self._most)
        return 0.0

    def histogram(self, bounds: Sequence[float]) -> list[int]:
        """Return the number of values up to each of the ascending `bounds` and above the one before; last, the rest."""
        counts = [0] * (len(bounds) + 1)
        last = [_bucket(bound) for bound in bounds]
        for bucket, count in self.buckets.items():
            counts[bisect_left(last, bucket)] += count
        return counts

    def spread(self) -> Spread | None:
        """Return the usual percentiles, rounded to one decimal; None without values."""
        if not self.count:
            return None
        p50, p90, p99 = (round(self.quantile(share), 1) for share in (0.5, 0.9, 0.99))
        return Spread(p50, p90, p99, round(self._most, 1))


def _bucket(value: float) -> int:
    return math.ceil(math.log(value / _FLOOR, _FACTOR)) if value > _FLOOR else 0


class Measures(Struct):
    """Collects the measurements. `latencies`, `lags` (both in ms) and `tries` are the newest ones."""

    calls: int = 0
    failed_calls: int = 0
    dials: int = 0
    failed_dials: int = 0
    failed_polls: int = 0
    files: int = 0
    failed_files: int = 0
    offset: float | None = None
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_TIMES))
    lags: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_TIMES))
    tries: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST_TRIES))  # True for each success
    latency: Sketch = field(default_factory=Sketch)  # response times of requests without file data, in ms
    _connect: Sketch = field(default_factory=Sketch)
    _lag: Sketch = field(default_factory=Sketch)
    _rate: Sketch = field(default_factory=Sketch)
    _uncertainty: float = float("inf")
    _sampled: tuple[float, int] | None = None

    def call(self, call: CallMade) -> None:
        """Record a request or the dial of a websocket. Long polling is ignored: its requests wait on purpose."""
        parts = urlsplit(call.url)
        if parts.scheme in ("ws", "wss"):
            self.dials += 1
            self.failed_dials += call.error is not None
            self.tries.append(call.error is None)
            return
        if "/socket.io/" in parts.path:
            return
        self.calls += 1
        self.failed_calls += not call.well
        self.tries.append(call.well)
        if call.status is not None and not call.carries and "/api/ai/" not in parts.path:
            self.latency.add(call.seconds * 1000)
            self.latencies.append(call.seconds * 1000)

    def connected(self, latency_ms: float) -> None:
        self._connect.add(latency_ms)

    def clock(self, offset: float, uncertainty: float) -> None:
        """Record the offset of the server's clock, ± `uncertainty` seconds; the most certain one is kept."""
        if uncertainty <= self._uncertainty:
            self.offset, self._uncertainty = offset, uncertainty

    def heard(self, message: SessionProgress) -> None:
        """Record the lag of a pushed message."""
        if message.received is None or message.timestamp is None or self.offset is None:
            return
        lag = max(0.0, message.received + self.offset - message.timestamp) * 1000
        self._lag.add(lag)
        self.lags.append(lag)

    def file_over(self, *, well: bool) -> None:
        self.files += 1
        self.failed_files += not well
        self.tries.append(well)

    def sample(self, now: float, sent: int, *, last: bool = False) -> None:
        """Record that `sent` bytes were sent until `now` (run clock); `last` ends the samples of a short run."""
        if self._sampled is None:
            self._sampled = (now, sent)
            return
        earlier, before = self._sampled
        due = SAMPLE if not (last and self._rate.count == 0) else 1e-3
        if now - earlier >= due:
            self._rate.add((sent - before) / (now - earlier))
            self._sampled = (now, sent)

    def result(self, *, seconds: float, events: int, retries: int) -> Metrics:
        tries = self.calls + self.dials + self.files
        failed = self.failed_calls + self.failed_dials + self.failed_files
        return Metrics(
            calls=self.calls,
            failed_calls=self.failed_calls,
            latency_ms=self.latency.spread(),
            dials=self.dials,
            failed_dials=self.failed_dials,
            connect_ms=self._connect.spread(),
            failed_polls=self.failed_polls,
            events_per_second=round(events / seconds, 3) if seconds > 0 else 0.0,
            event_lag_ms=self._lag.spread(),
            clock_offset=None if self.offset is None else round(self.offset, 3),
            retries=retries,
            error_percent=round(100 * failed / tries, 2) if tries else 0.0,
            rate=self._rate.spread(),
        )

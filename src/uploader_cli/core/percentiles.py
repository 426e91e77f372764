"""Percentiles of a stream in bounded memory, each with an error of at most 1 %.

Values are counted in buckets of exponentially growing size (DDSketch; Masson, Rim, Lee, VLDB 2019).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ERROR = 0.01
_FACTOR = (1 + _ERROR) / (1 - _ERROR)
_FLOOR, _CEILING = 1e-6, 1e15  # smaller values count as 0, larger ones as this one: at most 2,500 buckets


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in the unit of the values."""

    p50: float
    p90: float
    p99: float
    max: float


class Sketch:
    """Collects non-negative values and estimates their percentiles."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self._buckets: Counter[int] = Counter()
        self._least, self._most = math.inf, 0.0

    def add(self, value: float) -> None:
        """Count a value; negative ones count as 0."""
        value = min(max(value, 0.0), _CEILING)
        self.count += 1
        self.sum += value
        self._least, self._most = min(self._least, value), max(self._most, value)
        self._buckets[_bucket(value)] += 1

    def quantile(self, share: float) -> float:
        """Return the value that the `share` (0–1) of values does not exceed; 0 without values."""
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                middle = 2 * _FLOOR * _FACTOR**bucket / (_FACTOR + 1) if bucket else 0.0
                return min(max(middle, self._least), self._most)
        return 0.0

    def histogram(self, bounds: Sequence[float]) -> list[int]:
        """Return the number of values up to each of the ascending `bounds` and above the one before; last, the rest."""
        counts = [0] * (len(bounds) + 1)
        last = [_bucket(bound) for bound in bounds]
        for bucket, count in self._buckets.items():
            counts[bisect_left(last, bucket)] += count
        return counts

    def spread(self, digits: int = 1) -> Spread | None:
        """Return the usual percentiles, rounded to `digits`; None without values."""
        if not self.count:
            return None
        p50, p90, p99 = (round(self.quantile(share), digits) for share in (0.5, 0.9, 0.99))
        return Spread(p50, p90, p99, round(self._most, digits))


def _bucket(value: float) -> int:
    return math.ceil(math.log(value / _FLOOR, _FACTOR)) if value > _FLOOR else 0

"""Percentiles of a stream of any length in bounded memory, each off by 1 % at most.

Values are counted in buckets whose bounds grow by a fixed factor (DDSketch; Masson, Rim, Lee, VLDB 2019).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

_ERROR = 0.01
_FACTOR = (1 + _ERROR) / (1 - _ERROR)
_FLOOR, _CEILING = 1e-6, 1e15
"""Smaller values count as 0, larger ones as this one: 2,500 buckets hold everything between."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How values are spread, in their own unit."""

    p50: float
    p90: float
    p99: float
    max: float


class Sketch:
    """Takes values from 0 up, and answers for their percentiles."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()
        self._least, self._most = math.inf, 0.0

    def add(self, value: float) -> None:
        """Count a value; less than 0 is 0."""
        value = min(max(value, 0.0), _CEILING)
        self.count += 1
        self._least, self._most = min(self._least, value), max(self._most, value)
        self._buckets[math.ceil(math.log(value / _FLOOR, _FACTOR)) if value > _FLOOR else 0] += 1

    def quantile(self, share: float) -> float:
        """The value that `share` (0–1) of all are not above; 0 where there is none."""
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                middle = 2 * _FLOOR * _FACTOR**bucket / (_FACTOR + 1) if bucket else 0.0
                return min(max(middle, self._least), self._most)
        return 0.0

    def spread(self, digits: int = 1) -> Spread | None:
        """The usual percentiles, rounded to `digits`; None where nothing was counted."""
        if not self.count:
            return None
        p50, p90, p99 = (round(self.quantile(share), digits) for share in (0.5, 0.9, 0.99))
        return Spread(p50, p90, p99, round(self._most, digits))

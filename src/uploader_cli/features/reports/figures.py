"""What a picture of a run shows: its verdict, the slowest files, the causes of failures, and the ticks of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from uploader_cli.render.words import clock, plural, rate

if TYPE_CHECKING:
    from uploader_cli.report.recorder import Row  # loads sqlite3, which Markdown for checks does not need

SLOWEST, EXAMPLES = 20, 5  # maximum slowest files, and failed files with one cause, that are listed
NOTABLE = 1.0  # seconds of the slowest file that are worth a table
LEAST_CALLS = 20  # in a histogram
POINTS, LEAST_POINTS = 100, 10  # points of a curve
_TIMES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(slots=True)
class Cause:
    """The failures with one code: their number, how many of them are retryable, and the first ones."""

    code: str
    count: int = 0
    retryable: int = 0
    files: list[Row] = field(default_factory=list)

    @property
    def message(self) -> str:
        return str(self.files[0].get("message", ""))


def ranked(rows: Iterable[Row]) -> tuple[list[Row], list[Cause]]:
    """Return the files that took longest, and the causes of failures, most frequent first; memory is bounded.

    Where no file was slow, there is none that took longest.
    """
    causes: dict[str, Cause] = {}
    slowest = nlargest(SLOWEST, _noted(rows, causes), key=lambda row: row.get("seconds") or 0.0)
    slow = len(slowest) > 1 and (slowest[0].get("seconds") or 0.0) >= NOTABLE  # else the totals say it all
    return [row for row in slowest if row.get("seconds")] if slow else [], sorted(
        causes.values(), key=lambda cause: -cause.count
    )


def _noted(rows: Iterable[Row], causes: dict[str, Cause]) -> Iterator[Row]:
    """Yield the rows, after noting the causes of the failures among them."""
    for row in rows:
        if row["outcome"] == "failed":
            code = str(row.get("code", ""))
            cause = causes.setdefault(code, Cause(code))
            cause.count += 1
            cause.retryable += bool(row.get("retryable"))
            if len(cause.files) < EXAMPLES:
                cause.files.append(row)
        yield row


def verdict(head: dict[str, Any]) -> tuple[str, str]:
    """Return the result of a run as a glyph and a line, as `✓` and `20 files uploaded`."""
    counts = head["counts"]
    done, total = counts["completed"], sum(counts[name] for name in ("completed", "failed", "cancelled"))
    if head["ok"]:
        return "✓", f"{plural(done, 'file')} uploaded" if done else "already up to date"
    left = "not sent" if head.get("trouble") else "cancelled"  # by an error, not by the user
    others = (
        f", {counts[name]:,} {word}" for name, word in (("failed", "failed"), ("cancelled", left)) if counts[name]
    )
    return "✗", f"{done:,} of {plural(total, 'file')} uploaded{''.join(others)}"


def limit(head: dict[str, Any]) -> str:
    """Return what limited the speed, for display; empty if it is not known."""
    found = str(head.get("bottleneck") or "")
    return {"limit_rate": "--limit-rate", "cpu": "CPU"}.get(found, found)


@dataclass(frozen=True, slots=True)
class Curve:
    """A speed over time: `values`, each for `step` seconds, and the values at the marks of its axis, from 0.

    `averaged`: its average is not known from the head of the report.
    """

    title: str
    values: Sequence[float]
    step: float
    marks: Sequence[float]
    form: Callable[[float], str]
    averaged: bool = True

    @property
    def seconds(self) -> float:
        return len(self.values) * self.step

    @property
    def details(self) -> list[str]:
        average = f"{self.form(sum(self.values) / len(self.values))} on average"
        return [*([average] if self.averaged else []), f"at most {self.form(max(self.values))}"]


def curves(head: dict[str, Any]) -> list[Curve]:
    """Return the speed in bytes and in files per second; none without a timeline, or if nothing was sent."""
    (data, step), (files, _) = _rates(head, "bytes"), _rates(head, "files")
    if not data:
        return []
    return [
        Curve("Throughput", data, step, ticks(max(data), unit=1024), rate, averaged=False),
        Curve("Files per second", files, step, ticks(max(files)), number),
    ]


def _rates(head: dict[str, Any], name: str) -> tuple[list[float], float]:
    """Return `bytes` or `files` per second over time, and the seconds that each value stands for.

    The values are averages over half a second or more: small files arrive in bursts.
    """
    timeline = head.get("timeline") or {}
    step, counts = timeline.get("step") or 1.0, timeline.get(name) or ()
    if not any(timeline.get("bytes") or ()):
        return [], step
    seconds = len(counts) * step
    count = min(len(counts), POINTS, max(LEAST_POINTS, int(seconds / 0.5)))
    return resampled([amount / step for amount in counts], count), seconds / count


def responses(head: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the histogram of response times, as `≤ 5 ms` and a count, without the empty ends; none of few calls."""
    histogram = head.get("latency_histogram") or {}
    bounds, counts = histogram.get("bounds_ms", ()), histogram.get("counts", ())
    names = [*(f"≤ {milliseconds(bound)}" for bound in bounds), f"> {milliseconds(bounds[-1])}"] if bounds else []
    used = [number for number, count in enumerate(counts) if count]
    shown = sum(counts) >= LEAST_CALLS and len(used) > 1  # else the percentiles say it all
    return list(zip(names, counts, strict=True))[used[0] : used[-1] + 1] if shown else []


def spread(head: dict[str, Any]) -> list[str]:
    """Return the percentiles of the response times, as `p50 12.1 ms`."""
    known = (head.get("metrics") or {}).get("latency_ms") or {}
    return [f"{name} {milliseconds(known[name])}" for name in ("p50", "p90", "p99", "max") if name in known]


def milliseconds(value: float) -> str:
    """Format a response time as `12.1 ms` or `2 s`."""
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def number(value: float) -> str:
    """Format files per second as `1,234` or `1.23`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def ticks(most: float, *, unit: float = 1.0, count: int = 4) -> list[float]:
    """Return about `count` round values from 0 to at least `most`; `unit` 1024 counts in binary units."""
    if most <= 0:
        return [0.0, 1.0]
    scale = unit ** max(0, math.floor(math.log(most, unit))) if unit > 1 else 1.0
    raw = most / scale / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999) * scale
    return [step * number for number in range(math.ceil(most / step - 0.001) + 1)]


def moments(seconds: float, count: int = 6) -> list[tuple[float, str]]:
    """Return at most `count` + 1 times from 0 to `seconds`, and their names."""
    step = next((time for time in _TIMES if seconds / time <= count), math.ceil(seconds / count / 86400) * 86400)
    times = [step * number for number in range(int(seconds / step + 0.001) + 1)]
    return [(time, f"{time:g} s" if seconds < 10 else clock(time)) for time in times]


def resampled(values: Sequence[float], count: int) -> list[float]:
    """Return `count` averages of `values`, each over an equal part of them."""
    edges = [len(values) * number / count for number in range(count + 1)]
    return [_average(values, start, end) for start, end in pairwise(edges)]


def _average(values: Sequence[float], start: float, end: float) -> float:
    """Return the average from `start` to `end`, where each value is as wide as 1."""
    parts = range(int(start), min(len(values), math.ceil(end)))
    return sum(values[at] * (min(end, at + 1) - max(start, at)) for at in parts) / (end - start)

"""Samples as Markdown: medians, the least and the most, and ratios within rounds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.files import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contest import Sample

NOTHING = "–"


def table(samples: dict[str, list[Sample]], unit: str, extras: Sequence[str] = ()) -> str:
    """Return a table with a row for each label that has samples. `unit` is that of rates: MiB, files, or nothing.

    The ratio of a row is the median, over the rounds, of its time to that of the first row with the same amount.
    """
    rows = {label: values for label, values in samples.items() if values}
    if not rows:
        return "No run succeeded."
    first: dict[float, list[Sample]] = {}
    for values in rows.values():
        first.setdefault(_amount(values[0], unit), values)
    head = ["", "seconds", "of these transfer", f"{unit}/s", f"{unit}/s of transfer", "time ÷ first"]
    head += ["client CPU-s", "server CPU-s", "client MiB", "server MiB", *extras, "runs"]
    body = [[label, *_row(values, first[_amount(values[0], unit)], unit, extras)] for label, values in rows.items()]
    kept = [at for at, _ in enumerate(head) if at == 0 or any(row[at] != NOTHING for row in body)]
    lines = [[line[at] for at in kept] for line in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(values: list[Sample], first: list[Sample], unit: str, extras: Sequence[str]) -> list[str]:
    seconds = [value.seconds for value in values]
    transfer = [value.transfer for value in values]
    amount = _amount(values[0], unit)
    ratios = [value.seconds / other.seconds for value, other in zip(values, first, strict=False)]
    return [
        _spread(seconds),
        _spread(transfer),
        number(amount / statistics.median(seconds)),
        number(amount / statistics.median(transfer)) if statistics.median(transfer) else NOTHING,
        number(statistics.median(ratios)),
        *(
            number(statistics.median(column))
            for column in (
                [value.cpu for value in values],
                [value.server_cpu for value in values],
                [value.peak / MIB for value in values],
                [value.server_peak / MIB for value in values],
                *([value.extra.get(name, 0.0) for value in values] for name in extras),
            )
        ),
        str(len(values)),
    ]


def _amount(sample: Sample, unit: str) -> float:
    return {"MiB": sample.bytes / MIB, "files": float(sample.files)}.get(unit, 0.0)


def _spread(values: list[float]) -> str:
    if not any(values):
        return NOTHING
    median = number(statistics.median(values))
    return f"{median} ({number(min(values))}–{number(max(values))})" if len(values) > 1 else median


def number(value: float) -> str:
    """Return three digits, or all before the point; a dash for 0."""
    if not value:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(directory: Path, commands: dict[str, str]) -> str:
    """Return a list that says what this was measured on, and with which programs."""
    cpu = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    lines = [
        f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}",
        f"{int(memory[1]) / (1 << 20) if memory else 0:.0f} GiB of memory",
        f"files on {_file_system(directory)}",
        f"Linux {platform.release()}; load before the first case: {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}, " + ", ".join(_programs()),
        *(f"{name}: {_first_line([command, '--version'])}" for name, command in commands.items()),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _programs() -> list[str]:
    found = [
        f"{name} {_first_line([name, '--version']).split()[-1 if name == 'node' else 1]}"
        for name in ("curl", "node")
        if shutil.which(name)
    ]
    for package in ("tuspy", "granian"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _file_system(directory: Path) -> str:
    """Return the type of the file system that a directory is on."""
    mounts = [line.split()[1:3] for line in _read("/proc/mounts").splitlines()]
    above = [(len(place), kind) for place, kind in mounts if directory.resolve().is_relative_to(place)]
    return max(above, default=(0, "?"))[1]


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["?"])[0]


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""

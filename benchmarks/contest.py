"""Run the entries of a case in turns, each on a server of its own, and keep what was measured."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from benchmarks.clients import Task, environment
from benchmarks.files import drop_large
from benchmarks.measure import BenchmarkError, cpu_seconds, peak_bytes, run_together, until_connected
from benchmarks.servers import relay, stop, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from benchmarks.clients import Client, Command
    from benchmarks.files import Files
    from benchmarks.measure import Measured
    from benchmarks.servers import Serve, Server


@dataclass(frozen=True)
class Entry:
    """One row of a table: a client, what it sends, and the server that takes it."""

    label: str
    client: Client
    files: Files
    serve: Serve
    link: tuple[str, ...] | None = None
    """Options of `benchmarks.slow_link`, where a relay is on the way."""
    ca_bundle: Path | None = None
    watchers: int = 0
    terminal: bool = False

    def run(self, directory: Path) -> Sample:
        """Upload once; everything of the run is in `directory`, which is made. Raises BenchmarkError."""
        directory.mkdir()
        settings = environment(directory, self.ca_bundle)
        server = self.serve(directory / "root", settings)
        try:
            with self._reached(server, settings) as reached:
                commands = self.client(Task(self.files, reached, directory, self.ca_bundle))
                with watched(server, self.watchers, directory / "0.out", settings) as messages:
                    before = cpu_seconds(server.process.pid)
                    measured = run_together(commands, directory, settings, terminal=self.terminal)
                    cpu = cpu_seconds(server.process.pid) - before
            peak = peak_bytes(server.process.pid)
            self.files.check(server.stored())
            transfer = transfer_seconds(directory.glob("*.out"))
            journal = _bytes_below(directory / "state")
        finally:
            stop(server.process)
            drop_large(directory)
        extra = {
            "server start, s": server.start_seconds,
            "client CPU, ms a file": measured.cpu / self.files.count * 1e3,
            "server CPU, ms a file": cpu / self.files.count * 1e3,
            "journal, bytes a file": journal / self.files.count,
            "messages": float(sum(messages)),
        }
        return Sample.of(measured, self.files, transfer, cpu, peak, extra)

    @contextlib.contextmanager
    def _reached(self, server: Server, settings: dict[str, str]) -> Iterator[Server]:
        if self.link is None:
            yield server
            return
        with relay(server, settings, *self.link) as url:
            yield server.at(url)


@dataclass(frozen=True)
class Start:
    """One row of a table: a command that sends nothing, or one that is measured until it connects."""

    label: str
    command: Command
    connects: bool = False
    """The command gets the URL to connect to as its last word, and is killed then."""

    def run(self, directory: Path) -> Sample:
        """Run it once. Raises BenchmarkError."""
        directory.mkdir()
        if self.connects:
            return Sample.of(until_connected(self.command, directory, environment(directory)))
        return Sample.of(run_together([self.command], directory, environment(directory)))


@dataclass(frozen=True)
class Sample:
    """What one run took: seconds, CPU-seconds, bytes of memory. 0 where there is no such thing."""

    seconds: float
    transfer: float
    cpu: float
    peak: int
    files: int = 0
    bytes: int = 0
    server_cpu: float = 0.0
    server_peak: int = 0
    extra: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        measured: Measured,
        files: Files | None = None,
        transfer: float = 0.0,
        server_cpu: float = 0.0,
        server_peak: int = 0,
        extra: dict[str, float] | None = None,
    ) -> Sample:
        """Put together what was measured of the client, and of the server."""
        count, size = (files.count, files.bytes) if files else (0, 0)
        return cls(
            measured.seconds, transfer, measured.cpu, measured.peak, count, size, server_cpu, server_peak, extra or {}
        )


def in_turns(
    entries: list[Entry] | list[Start], runs: int, directory: Path, tell: Callable[[str], None]
) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Run all entries `runs` times; leave out an entry that failed once.

    The order is A B C, C B A, B C A, A C B, and so on: an entry that always followed another one would use the memory
    that the other one has just freed, which is faster than fresh memory.

    Returns the samples by label, one a round, and the reasons of those that failed, by label.
    """
    samples: dict[str, list[Sample]] = {entry.label: [] for entry in entries}
    failed: dict[str, str] = {}
    for number in range(runs):
        first = number // 2 % len(entries)
        order = [*entries[first:], *entries[:first]]
        for entry in reversed(order) if number % 2 else order:
            if entry.label in failed:
                continue
            try:
                sample = entry.run(directory / f"{number}-{entries.index(entry)}")
            except BenchmarkError as error:
                failed[entry.label] = str(error)
                tell(f"{number + 1}/{runs} {entry.label}: {error}")
                continue
            samples[entry.label].append(sample)
            tell(f"{number + 1}/{runs} {entry.label}: {sample.seconds:.2f} s")
    return samples, failed


def transfer_seconds(outputs: Iterable[Path]) -> float:
    """Return the seconds from the first `run.started` to the last `run.finished` in the outputs of `uploader --json`.

    0 where there are none.
    """
    started, finished = [], []
    for output in outputs:
        with output.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"run.started"' in line:
                    started.append(_moment(line))
                elif '"run.finished"' in line:
                    finished.append(_moment(line))
    return (max(finished) - min(started)).total_seconds() if started and finished else 0.0


def _moment(line: str) -> datetime:
    return datetime.fromisoformat(json.loads(line)["ts"])


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def tell_stderr(line: str) -> None:
    """Show how far the benchmark is."""
    print(line, file=sys.stderr, flush=True)

"""`--metrics-file`: the numbers of a run in the Prometheus text format, for the textfile collector of node_exporter.

node_exporter refuses equal series in two files of its directory: therefore each series has the label `upload`, the
name of the file. No name is one of the bundled server's `/metrics`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, cast

from uploader_cli.core.codes import FailureCode
from uploader_cli.core.metrics import LATENCIES, Sketch
from uploader_cli.core.names import escaped
from uploader_cli.core.state import ProgressState
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.report import output_file
from uploader_cli.report.document import OUTCOMES, RunFacts
from uploader_cli.report.recorder import ReportWriter
from uploader_cli.settings import Settings

INTERVAL = 5.0  # seconds between two writes during a run
PREFIX = "uploader_run_"
_SUCCESS = re.compile(rf"^{PREFIX}last_success_timestamp_seconds{{.*}} (\S+)$", re.MULTILINE)


def check(path: Path) -> None:
    """Raise `UsageError` for a name that node_exporter does not read."""
    if path.suffix != ".prom" or output_file.is_special(path):
        raise UsageError(
            f"--metrics-file: {path} is not the name of a metrics file",
            hint=f"use a regular file with the suffix .prom, as {path.stem or 'uploader'}.prom: "
            "node_exporter reads no other files",
        )


def writer(settings: Settings, facts: RunFacts) -> MetricsFile:
    """Return what writes the metrics of a run."""
    return MetricsFile(cast("Path", settings.metrics_file), settings.target_url, facts, time.time, secrets.token_hex(8))


class Family(NamedTuple):
    """A metric: its name without the prefix, its type, its help, and its samples: suffix, labels and value."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, dict[str, str], float]]


@dataclass(slots=True)
class MetricsFile(ReportWriter):
    """Replaces the file every few seconds and at the end. A failure of the last write is a note in `notices`."""

    path: Path
    server: str
    facts: RunFacts
    wall_clock: Callable[[], float]  # unix seconds
    tag: str  # makes the name of the temporary file unique
    _due: float = float("-inf")
    _problem: str = ""  # why the last write failed
    _succeeded: float | None = None  # end of the last run with exit code 0, in unix seconds

    def __post_init__(self) -> None:
        with suppress(OSError, ValueError):  # no file yet, or not ours
            if found := _SUCCESS.search(self.path.read_text(encoding="utf-8")):
                self._succeeded = float(found[1])

    def refresh(self, state: ProgressState, now: float) -> None:
        """Write the file, unless the last write was less than `INTERVAL` ago."""
        if now >= self._due:
            self._due = now + INTERVAL
            self._write([*self._run(None), *_numbers(state), *_present(state, now)])

    def close(self, state: ProgressState, _now: float) -> None:
        code = state.outcome.exit_code if state.outcome is not None else int(Exit.BUG)
        self._write([*self._run(code), *_numbers(state)])
        if self._problem:
            self.notices.notes.append(f"--metrics-file: {self.path} could not be written: {self._problem}")

    def _run(self, code: int | None) -> Iterator[Family]:
        """Yield what is known of the run itself; its exit code is None while it goes on."""
        about = {"server": self.server, "version": self.facts.version}
        yield Family("info", "gauge", "Server and version of uploader; the value is 1.", [("", about, 1)])
        yield _gauge("running", "1 during the run, 0 after it.", int(code is None))
        yield _gauge("start_timestamp_seconds", "Start of the run in unix time.", round(self.facts.started, 3))
        if code is not None:
            ended = self.wall_clock()
            self._succeeded = ended if code == Exit.OK else self._succeeded
            yield _gauge("end_timestamp_seconds", "End of the run in unix time.", round(ended, 3))
            yield _gauge("exit_code", "Exit code of the run.", code)
        if self._succeeded is not None:
            text = "End of the last run with exit code 0 in unix time."
            yield _gauge("last_success_timestamp_seconds", text, round(self._succeeded, 3))

    def _write(self, families: Iterable[Family]) -> None:
        try:
            output_file.write(self.path, _text(families, self.path.stem), self.tag, sync=False)
        except OSError as error:
            self._problem = error.strerror or str(error)
        else:
            self._problem = ""


def _numbers(state: ProgressState) -> Iterator[Family]:
    failures = Counter({str(code): 0 for code in FailureCode})
    for (code, _), count in state.failed_as.items():
        failures[str(code)] += count
    outcomes = {name: getattr(state, name) for name in OUTCOMES}
    yield _gauge("selected_files", "Files to upload, as far as they are known.", state.selected)
    yield _gauge("selected_bytes", "Size of the files to upload, as far as they are known.", state.selected_bytes)
    yield Family("files_total", "counter", "Files that ended, by outcome.", _by("outcome", outcomes))
    yield Family("failures_total", "counter", "Files that failed, by reason.", _by("code", failures))
    yield _counter("retries_total", "Further attempts for a file.", state.retries)
    yield _counter("sent_bytes_total", "Bytes of files that were sent, in all attempts.", state.sent_total)
    yield _counter("completed_bytes_total", "Size of the completed files.", state.completed_bytes)
    yield _counter("requests_total", "Requests with or without an answer.", state.measures.calls)
    yield _counter("failed_requests_total", "Requests that failed.", state.measures.failed_calls)
    yield _latency(state.measures.latency)


def _present(state: ProgressState, now: float) -> Iterator[Family]:
    """Yield what only a run that goes on has."""
    yield _gauge("active_files", "Files that are sent, or processed by the server.", len(state.running))
    paused = "1 while all requests wait: a rate limit, an unreachable server, a full disk, a pause of the user."
    yield _gauge("paused", paused, int(state.paused(now)))


def _latency(sketch: Sketch) -> Family:
    bounds = [*(f"{bound / 1000:g}" for bound in LATENCIES), "+Inf"]
    counts = accumulate(sketch.histogram(LATENCIES))
    buckets = [("_bucket", {"le": bound}, count) for bound, count in zip(bounds, counts, strict=True)]
    samples = [*buckets, ("_sum", {}, round(sketch.sum / 1000, 6)), ("_count", {}, sketch.count)]
    return Family("request_duration_seconds", "histogram", "Response time of requests without file data.", samples)


def _single(kind: str, name: str, text: str, value: float) -> Family:
    return Family(name, kind, text, [("", {}, value)])


_gauge, _counter = partial(_single, "gauge"), partial(_single, "counter")


def _by(label: str, values: dict[str, int]) -> list[tuple[str, dict[str, str], float]]:
    return [("", {label: key}, value) for key, value in values.items()]


def _text(families: Iterable[Family], upload: str) -> Iterator[str]:
    for name, kind, text, samples in families:
        yield f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} {kind}\n"
        for suffix, labels, value in samples:
            inside = ",".join(f'{key}="{_quoted(text)}"' for key, text in {"upload": upload, **labels}.items())
            yield f"{PREFIX}{name}{suffix}{{{inside}}} {value}\n"


def _quoted(text: str) -> str:
    return escaped(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""The events that a task reports to the driver."""

from __future__ import annotations

from pathlib import Path

from fakes import Clock

from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.features.fleet.outcomes import SHOWN, SLOW, FileEnd, TaskReport
from uploader_cli.features.fleet.worker import _Controls
from uploader_cli.sources.content import sha256_of

FILE, SIZE = 7, 2 * SHOWN


def kinds(report: TaskReport) -> list[object]:
    """Return the types of the events, also of those that end a file."""
    return [type(item.event if isinstance(item, FileEnd) else item) for item in report.take()]


def test_sent_bytes_come_before_those_confirmed() -> None:
    """The driver counts sent bytes; a confirmation that came first would hide them."""
    report = TaskReport()
    report.emit(ev.FileStarted(FILE, "a.bin", SIZE, "s", 0, 1))
    report.emit(ev.BytesSent(FILE, 1, 1000))
    report.take()
    for event in (ev.BytesConfirmed(FILE, 1, 1000), ev.BytesSent(FILE, 1, 2000), ev.BytesConfirmed(FILE, 1, 2000)):
        report.emit(event)
    assert report.take() == [ev.BytesSent(FILE, 1, 2000), ev.BytesConfirmed(FILE, 1, 2000)]


def test_last_bytes_come_before_the_end_of_an_attempt() -> None:
    report = TaskReport()
    report.emit(ev.FileStarted(FILE, "a.bin", SIZE, "s", 0, 1))
    report.take()
    report.emit(ev.BytesSent(FILE, 1, 3000))
    report.emit(ev.FileRetry(FILE, 2, 0.0, ev.FailureCode.NETWORK, "lost"))
    assert kinds(report) == [ev.BytesSent, ev.FileRetry]
    report.emit(ev.FileStarted(FILE, "a.bin", SIZE, "s", 0, 2))
    report.emit(ev.BytesSent(FILE, 2, SIZE))
    report.emit(ev.FileCompleted(FILE, "a.bin", SIZE, None, None, verified=True, attempts=2, seconds=1.0))
    assert kinds(report) == [ev.FileStarted, ev.BytesSent, ev.FileCompleted]


def test_small_file_is_shown_once_it_is_slow() -> None:
    """Also the next attempt, from its start."""
    clock = Clock()
    report = TaskReport(clock)
    report.emit(ev.FileStarted(FILE, "a.bin", SHOWN - 1, "s", 0, 1))
    report.emit(ev.BytesSent(FILE, 1, 1000))
    assert kinds(report) == []
    clock.pass_(SLOW)
    report.emit(ev.BytesSent(FILE, 1, 2000))
    assert kinds(report) == [ev.FileStarted, ev.BytesSent]
    report.emit(ev.FileRetry(FILE, 2, 0.0, ev.FailureCode.NETWORK, "lost"))
    report.emit(ev.FileStarted(FILE, "a.bin", SHOWN - 1, "s", 0, 2))
    assert kinds(report) == [ev.FileRetry, ev.FileStarted]


def test_reads_of_a_file_that_is_hashed_are_progress(tmp_path: Path) -> None:
    """Hashing a large file takes longer than `--task-timeout`, and has no events. Waiting is no progress."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"a")
    report, file = TaskReport(), LocalFile(FILE, str(path), "a.bin", 1, path.stat().st_mtime_ns)
    with _Controls().task(report) as stop:
        assert report.moved()
        stop.check()
        assert not report.moved()
        sha256_of(file, stop.checkpoint)
        assert report.moved()

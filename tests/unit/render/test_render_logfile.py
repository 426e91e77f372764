"""The lines of `--log-file`: their fields, the level filter, and a full disk."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.state import ProgressState
from uploader_cli.render.logfile import LEVELS, LogFile

NOON = 1_770_000_000.25


def call(status: int | None, error: str | None = None) -> ev.CallMade:
    return ev.CallMade("GET", "http://localhost:8005/health", "cafe-000001", status, 0.002, error)


OF_EACH_LEVEL: list[tuple[str, ev.Event]] = [
    ("debug", ev.ServerMessage("hello")),
    ("debug", ev.FileProgress(1, 1, 5, 0, 9, 1.0, ev.Phase.SENDING)),
    ("info", ev.FileCompleted(1, "a.mp4", 9, None, None, True, 1, 0.5)),
    ("info", call(200)),
    ("info", call(404)),
    ("warning", call(429)),
    ("warning", call(503)),
    ("warning", call(None, "Connection refused")),
    ("warning", ev.RunWarning(ev.WarningCode.STALLED, "no progress")),
    ("warning", ev.FileRetry(1, 2, 0.5, ev.FailureCode.NETWORK, "lost")),
    ("error", ev.FileFailed(1, "a.mp4", ev.FailureCode.NETWORK, "lost", True)),
    ("info", ev.RunFinished(True, 1, 0, 0, 0, 9, 1.0, 9.0, 0, ev.ChannelStats(), 1)),
    ("error", ev.RunFinished(False, 0, 1, 0, 0, 0, 1.0, 0.0, 3, ev.ChannelStats(), 1)),
]


def lines(*events: ev.Event, **options: Any) -> list[dict[str, Any]]:
    """What is written of `events`."""
    stream: Any = io.StringIO()
    log = LogFile(stream, "cafe", lambda: NOON, **options)
    for event in events:
        log.handle(event, ProgressState(), 0.0)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(("level", "event"), OF_EACH_LEVEL, ids=str)
def test_the_level_of_each_event(level: str, event: ev.Event) -> None:
    (line,) = lines(event, level="debug")
    assert line["level"] == level


@pytest.mark.parametrize("least", LEVELS)
def test_events_below_the_level_are_not_logged(least: str) -> None:
    written = [line["level"] for line in lines(*(event for _, event in OF_EACH_LEVEL), level=least)]
    wanted = LEVELS[LEVELS.index(least) :]
    assert written == [level for level, _ in OF_EACH_LEVEL if level in wanted]


def test_a_line_has_time_level_event_and_run_and_then_its_fields() -> None:
    (line,) = lines(call(200))
    assert list(line.items()) == [
        ("time", "2026-02-02T02:40:00.250Z"),
        ("level", "info"),
        ("event", "call"),
        ("run", "cafe"),
        ("method", "GET"),
        ("url", "http://localhost:8005/health"),
        ("request_id", "cafe-000001"),
        ("status", 200),
        ("seconds", 0.002),
        ("error", None),
    ]


def test_internal_events_are_not_logged() -> None:
    assert lines(ev.SelectionEnded(), ev.FileSelected(1, "a", 1), level="debug") == []


def test_each_text_is_masked_and_stays_json() -> None:
    """A mask may take the rest of a text, but not the rest of the line."""
    warning = ev.RunWarning(ev.WarningCode.JOURNAL, 'the server said "hunter2" to Authorization: x')
    (line,) = lines(warning, mask=lambda text: text.replace('"hunter2" to Authorization: x', "***"))
    assert line["text"] == "the server said ***"


def test_a_name_that_is_no_utf_8_and_a_line_break_in_one_stay_one_line() -> None:
    (line,) = lines(ev.FileSkipped(1, "a\n\udcff\x1b[2J.mp4", ev.SkipReason.TYPE))
    assert line["path"] == "a\n\\xff\x1b[2J.mp4"


class FullDisk(io.StringIO):
    """Takes one line, and no more."""

    def write(self, text: str) -> int:
        if self.getvalue():
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_full_disk_ends_the_log_and_is_reported_at_the_end() -> None:
    told: list[str] = []
    full: Any = FullDisk()
    log = LogFile(full, "cafe", lambda: NOON, lost=told.append)
    for _ in range(3):
        log.handle(call(200), ProgressState(), 0.0)
    assert told == []
    log.close(ProgressState(), 0.0)
    assert told == ["No space left on device"]

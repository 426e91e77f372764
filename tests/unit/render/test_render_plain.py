"""Lines for a pipe."""

from __future__ import annotations

import io
import re

import pytest
from unit.render.render_script import HOSTILE, MIB, SESSION, Script, name_of

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelReason, ChannelState, FailureCode, Transport
from uploader_cli.render.plain import PlainView


class Log(Script):
    """A run into a plain view, and what it has written."""

    def __init__(self, **options: object) -> None:
        self.stream = io.StringIO()
        super().__init__(PlainView(self.stream, **options))  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_small_run_line_by_line() -> None:
    log = Log()
    log.begin(3)
    log.live()
    log.start(0, 1, 2)
    log.complete(0)
    log.put(ev.FileRetry(1, 2, 4.0, FailureCode.NETWORK, "connection reset"))
    log.fail(2)
    log.put(ev.FileSkipped(7, "notes.txt", ev.SkipReason.TYPE))
    log.put(ev.RunWarning(ev.WarningCode.INSECURE, "certificates are not verified"))
    assert log.lines == [
        "uploader: 3 files, 30.0 MiB → 127.0.0.1:8765 (batch, 4 in parallel)",
        "channel: live websocket 12 ms",
        "✓ film-0000.mp4 (10.0 MiB, 1.5 s)",
        "↻ film-0001.mp4: retry 1 in 0:04 (connection reset)",
        "✗ film-0002.mp4: disk full",
        "- notes.txt: skipped (type)",
        "warning: certificates are not verified",
    ]


@pytest.mark.parametrize(
    ("seconds", "last", "lines"),
    [
        (0.9, "connecting", []),
        (1.0, "connecting", ["connecting", "closed before it was connected"]),
        (0.9, "live", ["live websocket 12 ms"]),
    ],
)
def test_channel_that_connects_has_a_line_after_a_second_and_one_of_its_end(
    seconds: float, last: str, lines: list[str]
) -> None:
    log = Log()
    log.begin(3)
    log.put(ev.ChannelChanged(ChannelState.CLOSED, ChannelState.CONNECTING, Transport.WEBSOCKET, ChannelReason.START))
    log.tick(seconds)
    if last == "live":
        log.live()
    log.put(ev.ChannelChanged(ChannelState(last), ChannelState.CLOSED, None, ChannelReason.FINISHED))
    assert log.lines[1:] == [f"channel: {line}" for line in lines]


def test_channel_of_a_silent_server_has_no_line_and_polls_nothing() -> None:
    """There is no session that it could tell of."""
    log = Log()
    log.put(ev.RunStarted("http://h:1", 1, 5, 2, "auto"), ev.FileSelected(0, "a", 5), ev.SelectionEnded())
    log.channel(ChannelState.CLOSED, ChannelState.CONNECTING, reason=ChannelReason.START)
    log.tick(0)
    log.channel(ChannelState.CONNECTING, ChannelState.POLLING, Transport.HTTP, reason=ChannelReason.DEADLINE)
    log.tick(5)
    log.channel(ChannelState.POLLING, ChannelState.CLOSED, reason=ChannelReason.FINISHED)
    assert log.lines[1:] == ["0 % · 0 of 1 done · 0 of 5 B · not connected · no answer from h:1 for 5 s"]


def test_the_progress_line_comes_every_five_seconds() -> None:
    log = Log()
    log.begin(40)
    log.live()
    log.start(0)
    for step in range(1, 101):
        log.tick()
        log.sent(0, step * MIB // 10)
    progress = [line for line in log.lines if " % · " in line]
    assert len(progress) == 1
    line = r"1 % · 0 of 40 done · 5\.\d of 400\.0 MiB · 1\.0 MiB/s · 6:\d\d left · live websocket"
    assert re.fullmatch(line, progress[0])
    log.tick(1)
    assert len([line for line in log.lines if " % · " in line]) == 2


def test_progress_line_at_a_foreign_server_says_that_it_is_finishing() -> None:
    """Such a server sends no messages: the line names no channel, which would look closed."""
    log = Log()
    log.put(ev.RunStarted("http://127.0.0.1:1080", 1, 10 * MIB, 1, "tus", finishes_late=True))
    log.put(ev.FileSelected(0, "a.bin", 10 * MIB), ev.SelectionEnded())
    log.start(0)
    log.sent(0, 10 * MIB)
    log.put(ev.BodySent((0,)))
    for _ in range(120):
        log.tick()
    first, *_, last = (line for line in log.lines if " % · " in line)
    assert "closed" not in first + last
    assert last.endswith(" · the server is finishing")


def test_progress_lines_get_rarer_in_a_long_run() -> None:
    log = Log()
    log.begin(40)
    log.start(0)
    for _ in range(36_000):
        log.tick()
    assert 60 < len(log.lines) < 130


def test_plain_log_has_each_channel_change_once() -> None:
    log = Log()
    log.begin(1)
    log.channel(ChannelState.CONNECTING, ChannelState.CONNECTING, reason=ChannelReason.START)
    log.tick(1)
    log.live()
    log.live()
    log.channel(ChannelState.LIVE, ChannelState.RECONNECTING, reason=ChannelReason.LOST, attempt=1)
    log.channel(ChannelState.RECONNECTING, ChannelState.RECONNECTING, reason=ChannelReason.REFUSED, attempt=2)
    log.channel(ChannelState.RECONNECTING, ChannelState.POLLING, Transport.HTTP, reason=ChannelReason.RETRIES_EXHAUSTED)
    log.channel(ChannelState.POLLING, ChannelState.CLOSED, reason=ChannelReason.FINISHED)
    assert log.lines[1:] == [
        "channel: connecting",
        "channel: live websocket 12 ms",
        "channel: reconnecting 1/3 (lost)",
        "channel: reconnecting 2/3 (refused)",
        "channel: polling (retries exhausted)",
    ]


@pytest.mark.thorough
def test_a_run_of_5000_files_with_200_failures_stays_short() -> None:
    log = Log()
    log.begin(5000, size=MIB)
    log.live()
    for number in range(5000):
        log.start(number, size=MIB)
        log.put(ev.FileRetry(number, 2, 1.0, FailureCode.NETWORK, "reset"))
        log.start(number, size=MIB, attempt=2)
        log.sent(number, MIB, attempt=2)
        if number % 25 == 0:
            log.fail(number)
        else:
            log.complete(number, size=MIB)
        log.channel(ChannelState.LIVE, ChannelState.RECONNECTING, attempt=1 + number % 3)
        log.tick(0.1)
    assert len(log.lines) < 300
    assert sum(line.startswith("✗") for line in log.lines) == 50
    assert not any(line.startswith("✓") for line in log.lines)
    assert "(more than 50 failure lines: further ones are not shown)" in log.lines
    assert "failed" in log.lines[-1]


def test_verbose_names_each_file_and_what_the_server_says() -> None:
    log = Log(verbose=2)
    log.begin(30)
    log.start(*range(30))
    log.server(0, 10.0, "正在上传")
    for number in range(30):
        log.complete(number)
    assert f"session {SESSION}: 30 files, personal" in log.lines
    assert "server: 正在上传" in log.lines
    assert sum(line.startswith("✓") for line in log.lines) == 30


def test_quiet_shows_only_problems() -> None:
    log = Log(quiet=True)
    log.begin(2)
    log.live()
    log.start(0, 1)
    log.complete(0)
    log.fail(1)
    log.tick(60)
    assert log.lines == ["✗ film-0001.mp4: disk full"]


def test_a_walk_in_progress_and_a_resumed_run() -> None:
    log = Log()
    log.put(ev.RunStarted("http://h:1", None, None, 2, "tus", resumed_from="r-1"), ev.FileSelected(0, "a", 5))
    log.put(ev.CallMade("GET", "http://h:1/health", None, 200, 0.01, None))
    log.tick(0.1)
    log.tick(5)
    assert log.lines[0] == "uploader: uploading → h:1 (tus, 2 in parallel), resuming run r-1"
    assert log.lines[1] == "1 file found · 5 B · searching …"


def test_plain_log_shows_the_resumed_offset_once() -> None:
    """Once, of few files; not when it is tried again, and not of a file that begins at its first byte."""
    log = Log()
    log.begin(2)
    log.start(0, offset=5 * MIB)
    log.start(1)
    log.start(0, attempt=2, offset=7 * MIB)
    assert log.lines[1:] == ["↻ film-0000.mp4: resuming at 50 %"]
    many = Log()
    many.begin(21)
    many.start(0, offset=MIB)
    assert len(many.lines) == 1


def test_a_stall_and_a_pause_are_in_the_progress_line() -> None:
    log = Log()
    log.begin(30)
    log.start(0)
    log.tick(1)
    log.now += 40
    log.stall()
    log.tick(0)
    assert log.lines[-1].endswith("no progress for 0:41: the server accepts no bytes")
    log.put(ev.Paused(60, ev.PauseReason.RATE_LIMIT))
    log.tick(5)
    assert log.lines[-1].endswith("rate limited: waiting 0:55")


@pytest.mark.parametrize("name", HOSTILE)
def test_plain_log_has_one_line_per_event_for_any_name(name: str) -> None:
    log = Log()
    log.begin(names=[name])
    log.start(0, names=[name])
    log.put(ev.FileFailed(0, name, FailureCode.NETWORK, f"no {name}", retryable=True))
    assert len(log.lines) == 2
    assert log.stream.getvalue().replace("\n", "").isprintable()


def test_no_progress_line_after_the_end() -> None:
    log = Log()
    log.begin(1)
    log.start(0)
    log.complete(0)
    log.end()
    before = log.lines
    log.tick(60)
    assert log.view is not None
    log.view.close(log.state, log.now)
    assert log.lines == before
    assert name_of(0) in before[-1]


def test_a_stall_while_contents_are_compared_names_the_file() -> None:
    log = Log()
    log.begin(30)
    log.put(ev.ContentChecked("big.mp4"))
    log.tick(1)
    log.now += 40
    log.stall()
    log.tick(0)
    assert log.lines[-1].endswith("no progress for 0:41: big.mp4 is being compared with the list")

"""The log of a long run in CI, as the real observers write it: short enough to be read, and the summary at its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from unit.render.render_script import MIB, Script

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelReason, ChannelState, FailureCode, SkipReason, Transport, WarningCode
from uploader_cli.render import UNFOLDED
from uploader_cli.render.summary import summary
from uploader_cli.run.views import observers
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from uploader_cli.core.state import ProgressState

FILES, EVERY, MINUTES = 5000, 25, 10
"""Each 25th fails: 200."""


class AsInCI:
    """All the observers that a command has in a pipe, as one."""

    def __init__(self, **settings: object) -> None:
        self._all = observers(Settings(server="http://x", **settings), "run")  # type: ignore[arg-type]

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:
        for observer in self._all:
            observer.handle(event, state, now)

    def refresh(self, state: ProgressState, now: float) -> None:
        for observer in self._all:
            observer.refresh(state, now)

    def close(self, state: ProgressState, now: float) -> None:
        for observer in self._all:
            observer.close(state, now)


def run_of_ten_minutes(capsys: pytest.CaptureFixture[str], **settings: object) -> tuple[list[str], Script]:
    """5,000 files in 600 s; 200 fail, each for a reason of its own after a retry, the socket flaps all the time, the
    server pauses us now and then, and the server talks. The lines on stderr.
    """
    run = Script(AsInCI(**settings))
    run.begin(FILES, size=MIB)
    for number in range(FILES):
        run.start(number, size=MIB)
        run.sent(number, MIB // 2)
        run.tick(MINUTES * 60 / FILES / 2)
        run.server(number, 50.0, f"working on file {number}")
        if number % 7 == 0:
            run.put(ev.FileRetry(number, 2, 1.0, FailureCode.NETWORK, f"reset {number}"))
            run.start(number, size=MIB, attempt=2)
        if number % 10 == 0:
            to = ChannelState.POLLING if number % 20 else ChannelState.LIVE
            run.channel(ChannelState.RECONNECTING, to, Transport.HTTP, ChannelReason.LOST)
        if number % 50 == 0:
            run.put(ev.RunWarning(WarningCode.RATE_LIMITED, f"the server asks for a pause of {number} s"))
        if number % EVERY == 0:
            run.fail(number, FailureCode.SERVER_FAILED, f"disk {number} is full")
        elif number % 11 == 0:
            run.put(ev.FileSkipped(number, f"film-{number:04d}.mp4", SkipReason.PRESENT))
        else:
            run.complete(number, size=MIB)
        run.tick(MINUTES * 60 / FILES / 2)
    run.end(exit_code=4, seconds=MINUTES * 60)
    assert run.view is not None
    run.view.close(run.state, run.now)
    return capsys.readouterr().err.splitlines(), run


@pytest.mark.thorough
def test_ten_minutes_5000_files_and_200_failures_are_fewer_than_300_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines, run = run_of_ten_minutes(capsys)
    assert run.state.failed == FILES // EVERY
    assert len(lines) < 300
    end = summary(run.state, run.state.outcome, width=UNFOLDED, listed=True)  # type: ignore[arg-type]
    assert lines[-len(end) :] == end
    assert end[-3].startswith("✗ ")
    assert "200 failed" in end[-3]
    before = lines[: -len(end)]
    failures = [line for line in before if line.startswith("✗ film-")]
    assert failures == [f"✗ film-{number:04d}.mp4: disk {number} is full" for number in range(0, 50 * EVERY, EVERY)]
    assert "(more than 50 failure lines: further ones are not shown)" in before
    assert not any(line.startswith(("✓ film-", "- film-")) for line in before)


@pytest.mark.thorough
def test_ci_log_has_a_progress_line_at_least_every_few_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    """Some CI systems end a job that has said nothing for ten minutes; the count of failures is in each line."""
    lines, _ = run_of_ten_minutes(capsys)
    progress = [line for line in lines if " % · " in line]
    assert 20 <= len(progress) <= 80
    counts = [int(re.search(r" done (?:\([\d,]+ before\) )?· (\d+) failed", line)[1]) for line in progress]  # type: ignore[index]
    assert counts == sorted(counts)
    assert counts[-1] > 180


def test_verbose_has_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    lines, run = run_of_ten_minutes(capsys, verbose=1)
    assert sum(line.startswith("✓ film-") for line in lines) == run.state.completed
    assert sum(line.startswith("✗ film-") for line in lines) == run.state.failed
    assert sum(line.startswith("- film-") for line in lines) == run.state.skipped


@pytest.mark.thorough
def test_quiet_names_the_first_failures_and_ends_with_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    lines, run = run_of_ten_minutes(capsys, quiet=True)
    assert len(lines) < 150
    end = summary(run.state, run.state.outcome, width=UNFOLDED)  # type: ignore[arg-type]
    assert lines[-len(end) :] == end

"""The founding document's recovery: what goes wrong is recorded, and so is how it ended."""

from __future__ import annotations

import json

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelReason, ChannelState, Transport, WarningCode
from uploader_cli.core.incidents import MOST_INCIDENTS, IncidentEnding, IncidentKind, IncidentLog, duration
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.report.document import RunFacts, report_head

LIVE, LOST, POLLING = ChannelState.LIVE, ChannelState.RECONNECTING, ChannelState.POLLING


def channel(to: ChannelState, reason: ChannelReason = ChannelReason.LOST) -> ev.ChannelChanged:
    return ev.ChannelChanged(ChannelState.CONNECTING, to, None, reason)


def progress(source: Transport = Transport.WEBSOCKET) -> ev.SessionProgress:
    return ev.SessionProgress("s", source, 5.0, "uploading", 50.0)


def finished(code: int = 0) -> ev.RunFinished:
    return ev.RunFinished(code == 0, 0, 0, 0, 0, 0, 1.0, 0.0, code, ev.ChannelStats(), 1)


class Run:
    """Events at their times; `told` has the reported recoveries."""

    def __init__(self, *events: tuple[float, ev.Event]) -> None:
        self.state, self.told = ProgressState(), list[str]()
        self.put(0.0, ev.RunStarted("http://x", 9, 9, 1, "tus"), ev.SessionCreated("s", "personal", 9))
        for number in range(3):
            self.put(0.0, ev.FileSelected(number, f"{number}", 10), ev.FileStarted(number, f"{number}", 10, "s", 0, 1))
        for now, event in events:
            self.put(now, event)

    def put(self, now: float, *events: ev.Event) -> None:
        for event in events:
            for out in reduce(self.state, event, now):
                if isinstance(out, ev.RunWarning) and out.code is WarningCode.RECOVERED:
                    self.told.append(out.text)

    @property
    def log(self) -> list[tuple[IncidentKind, IncidentEnding | None, int]]:
        return [(item.kind, item.ending, item.times) for item in self.state.incidents.kept]


def retry(file: int, attempt: int = 2) -> ev.FileRetry:
    return ev.FileRetry(file, attempt, 1.0, ev.FailureCode.SERVER_ERROR, "503")


def again(file: int, attempt: int = 2) -> ev.FileStarted:
    return ev.FileStarted(file, f"{file}", 10, "s", 0, attempt)


def done(file: int) -> ev.FileCompleted:
    return ev.FileCompleted(file, f"{file}", 10, None, None, verified=False, attempts=2, seconds=1.0)


def failed(file: int) -> ev.FileFailed:
    return ev.FileFailed(file, f"{file}", ev.FailureCode.SERVER_ERROR, "503", retryable=True)


def test_timeout_leads_to_polling_and_a_degraded_run() -> None:
    run = Run((5.0, channel(POLLING, ChannelReason.DEADLINE)), (9.0, progress()), (20.0, finished()))
    assert run.log == [(IncidentKind.CHANNEL, IncidentEnding.DEGRADED, 1)]
    assert run.state.incidents.kept[0].text == "no realtime connection: deadline"
    assert run.told == []


def test_lost_connection_is_recovered() -> None:
    run = Run((5.0, channel(LOST)), (6.0, channel(LOST)), (8.2, channel(LIVE, ChannelReason.RECOVERED)))
    assert run.log == [(IncidentKind.CHANNEL, IncidentEnding.RECOVERED, 2)]
    assert run.told == ["reconnected after 3.2 s"]


def test_connection_restored_during_polling_is_recovered() -> None:
    run = Run((5.0, channel(LOST)), (9.0, channel(POLLING)), (10.0, progress(Transport.HTTP)), (80.0, channel(LIVE)))
    assert run.told == ["reconnected after 1 min 15 s, progress was polled meanwhile"]


def test_polls_that_no_server_answered_are_not_called_progress() -> None:
    refused = ev.PollFailed("s", "refused")
    run = Run((5.0, channel(LOST)), (9.0, channel(POLLING)), (10.0, refused), (80.0, channel(LIVE)))
    assert run.told == ["reconnected after 1 min 15 s"]


def test_a_failed_update_keeps_the_last_known_state() -> None:
    run = Run((3.0, progress()), (4.0, ev.PollFailed("s", "timed out")), (5.0, ev.PollFailed("s", "timed out")))
    assert run.state.sessions["s"].percent == 50.0
    assert (run.state.channel.stale, run.state.channel.heard) == ("timed out", 3.0)  # shown with its age
    run.put(16.0, progress())
    assert run.log == [(IncidentKind.UPDATES, IncidentEnding.RECOVERED, 2)]
    assert run.told == ["progress is updated again after 12.0 s"]


def test_a_fault_of_the_server_is_one_incident_however_many_files_it_hits() -> None:
    run = Run((1.0, retry(0)), (1.1, retry(1)), (2.0, again(0)), (2.1, again(1)), (3.0, done(0)))
    assert run.log == [(IncidentKind.TRANSFER, None, 2)]
    run.put(8.5, ev.BytesConfirmed(1, 2, 5))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.RECOVERED, 2)]
    assert run.told == ["transfer resumed after 7.5 s and 2 retries"]


def test_incident_of_retries_lasts_until_bytes_are_sent_again() -> None:
    """The answer to the request comes seconds later, and meanwhile all bytes were sent."""
    run = Run((1.0, retry(0)), (2.0, again(0)), (2.5, ev.BytesSent(0, 2, 8)), (9.0, done(0)))
    (incident,) = run.state.incidents.kept
    assert (incident.began, incident.ended, run.told) == (1.0, 2.5, [])
    run = Run((1.0, retry(0)), (2.0, again(0)), (7.5, ev.BytesSent(0, 2, 8)), (9.0, done(0)))
    assert run.told == ["transfer resumed after 6.5 s and 1 retry"]


@pytest.mark.parametrize(
    ("confirms", "told", "seconds"),
    [(True, [], [0.2, 0.2]), (False, ["transfer resumed after 6.2 s and 2 retries"], [6.2])],
)
def test_retries_of_files_while_others_are_confirmed_are_no_stop_of_the_transfer(
    confirms: bool, told: list[str], seconds: list[float]
) -> None:
    """Bytes that are only sent may have gone nowhere."""
    run = Run((1.0, retry(0)), (1.2, ev.BytesSent(2, 1, 5)))
    if confirms:
        run.put(1.4, ev.BytesConfirmed(2, 1, 5))
    run.put(7.0, retry(1))
    run.put(7.2, ev.BytesSent(2, 1, 7))
    run.put(7.3, again(0), again(1), ev.BytesConfirmed(0, 2, 5), ev.BytesConfirmed(1, 2, 5))
    assert run.told == told
    assert [round(one.ended - one.began, 1) for one in run.state.incidents.kept if one.ended] == seconds


def test_an_offset_that_was_confirmed_before_the_retry_ends_no_incident() -> None:
    run = Run((1.0, retry(0)), (2.0, ev.FileStarted(0, "0", 10, "s", 5, 2)), (3.0, ev.BytesConfirmed(0, 2, 5)))
    assert run.log == [(IncidentKind.TRANSFER, None, 1)]
    run.put(4.0, ev.BytesConfirmed(0, 2, 6))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.RECOVERED, 1)]


def test_short_successful_retry_is_not_reported() -> None:
    run = Run((1.0, retry(0)), (2.0, again(0)), (3.0, done(0)))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.RECOVERED, 1)]
    assert run.told == []


def test_file_that_fails_after_retries_needs_attention() -> None:
    run = Run((1.0, retry(0)), (1.0, retry(1)), (2.0, again(0)), (3.0, failed(0)), (4.0, again(1)), (5.0, done(1)))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.NEEDS_PERSON, 2)]
    assert run.told == []
    run.put(6.0, retry(2))
    run.put(7.0, again(2), done(2))
    assert run.log[1] == (IncidentKind.TRANSFER, IncidentEnding.RECOVERED, 1)


def test_file_found_stored_ends_its_retry_incident() -> None:
    run = Run((1.0, retry(0)), (2.0, ev.FileSkipped(0, "0", ev.SkipReason.PRESENT)))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.RECOVERED, 1)]
    assert not run.state.incidents.retrying


def test_interrupt_leaves_incidents_unrecovered() -> None:
    run = Run((1.0, retry(0)), (2.0, ev.FilesCancelled((0, 1, 2))), (2.0, finished(130)))
    assert run.log == [(IncidentKind.TRANSFER, IncidentEnding.DEGRADED, 1)]
    assert run.told == []


def test_error_that_ends_the_run_needs_attention() -> None:
    run = Run((1.0, ev.EngineStopped(OSError("no server"))), (2.0, finished(6)))
    assert run.log == [(IncidentKind.RUN, IncidentEnding.NEEDS_PERSON, 1)]


def test_rate_limit_incident_ends_with_its_pause() -> None:
    run = Run((1.0, ev.Paused(60.0, ev.PauseReason.RATE_LIMIT)), (30.0, ev.Ticked()))
    assert run.log == [(IncidentKind.RATE_LIMIT, None, 1)]
    run.put(61.0, ev.Ticked())
    assert run.log == [(IncidentKind.RATE_LIMIT, IncidentEnding.RECOVERED, 1)]
    assert run.told == ["resumed after waiting 1 min 0 s for the server's rate limit"]


def test_a_lost_session_is_recovered_by_a_new_one() -> None:
    run = Run((1.0, ev.RunWarning(WarningCode.SESSION_LOST, "gone")), (2.0, ev.SessionCreated("t", "personal", 1)))
    assert run.log == [(IncidentKind.SESSION, IncidentEnding.RECOVERED, 1)]
    assert run.told == []  # the warning said what is done


def test_open_alarm_at_the_end_is_degraded() -> None:
    run = Run((1.0, ev.RunWarning(WarningCode.STALLED, "no progress for 30 s")), (2.0, finished(3)))
    assert run.log == [(IncidentKind.STALL, IncidentEnding.DEGRADED, 1)]


def test_incident_log_is_bounded_and_keeps_the_count() -> None:
    run = Run()
    for number in range(10_000):
        run.put(float(number), channel(LOST), channel(LIVE))
    assert run.state.incidents.total == 10_000
    assert len(run.state.incidents.kept) == MOST_INCIDENTS
    assert run.state.incidents.kept[-1].began == 9999.0
    assert not run.state.incidents.active


def test_recovered_incident_is_one_warning() -> None:
    run = Run((1.0, channel(LOST)), (2.0, channel(LIVE)))
    assert run.state.news == ev.RunWarning(WarningCode.RECOVERED, "reconnected after 1.0 s")
    assert run.state.warnings == []  # good news are none of the summary's warnings
    run.put(3.0, ev.RunWarning(WarningCode.STALLED, "no progress"))
    assert run.state.news == run.state.warnings[-1]


def test_report_has_incidents_with_wall_clock_times() -> None:
    run = Run((5.0, channel(LOST)), (8.25, channel(LIVE)), (9.0, channel(LOST)))
    head = report_head(run.state, RunFacts("r", "1", started=1000.0), 1010.0)
    assert json.loads(json.dumps(head["incidents"])) == {
        "total": 2,
        "kept": [
            {
                "kind": "channel", "ts": "1970-01-01T00:16:45.000Z", "seconds": 3.25, "ending": "recovered", "times": 1,
                "text": "no realtime connection: lost",
            },
            {
                "kind": "channel", "ts": "1970-01-01T00:16:49.000Z", "seconds": None, "ending": None, "times": 1,
                "text": "no realtime connection: lost",
            },
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (125.4, "2 min 5 s")])
def test_durations_are_shown_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("kind", [IncidentKind.RATE_LIMIT, IncidentKind.TRANSFER])
def test_short_wait_ends_without_a_message(kind: IncidentKind) -> None:
    log = IncidentLog()
    said = []
    for seconds in (4.9, 5.0):
        log.begin(kind, 0.0, "wait")
        said.append(bool(log.end(kind, seconds)))
    assert said == [False, True]

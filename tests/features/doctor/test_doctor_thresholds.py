"""From which numbers on the steps of a diagnosis warn, and what they say; with answers that no server sent."""

from __future__ import annotations

import socket
import sqlite3
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock
from time_limits import PATIENCE

from uploader_cli import Settings, errors
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Finding, Verdict
from uploader_cli.features.doctor import disk, network, server, uploads
from uploader_cli.features.doctor.context import Address, DoctorContext, Timed
from uploader_cli.features.doctor.examination import examine
from uploader_cli.transfer.answers import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.features.checks.check import Check

NOW = 1_800_000_000.0
PROGRESS = {"sessionId": "s", "files": []}


class Canned(DoctorContext):
    """A context whose timed requests take the given milliseconds; an error is raised instead."""

    def __init__(self, *times: float | Exception, status: int = 200, body: object = PROGRESS, **settings: Any) -> None:
        super().__init__(Settings(server="http://files.invalid", **settings))
        self.times, self.answer = [*times], Answer(status, {}, body, "http://files.invalid/")

    def timed(self, path: str) -> Timed:
        del path
        ms = self.times.pop(0)
        if isinstance(ms, Exception):
            raise ms
        return Timed(self.answer, ms, NOW)


def found(step: Check, context: DoctorContext) -> Finding:
    finding = step.look(context)
    assert isinstance(finding, Finding)
    return finding


@pytest.mark.parametrize(
    ("meter", "verdict", "message", "reset"),
    [
        ("", Verdict.PASS, "none: the server has no rate limit (3 calls used)", None),
        ("limit=100 remaining=20", Verdict.PASS, "20 of 100 calls left (3 used)", None),
        ("remaining=20", Verdict.PASS, "20 calls left (3 used)", None),
        ("remaining=19", Verdict.WARNING, "the rate limit is nearly used up: 19 calls left", None),
        ("limit=2 remaining=1", Verdict.WARNING, "the rate limit is nearly used up: 1 call of 2 left", None),
        ("remaining=20 reset=90", Verdict.PASS, "20 calls left, reset in 1:30 (3 used)", 90),
        (f"remaining=20 reset={NOW + 90:.0f}", Verdict.PASS, "20 calls left, reset in 1:30 (3 used)", 90),
        (f"remaining=20 reset={NOW - 90:.0f}", Verdict.PASS, "20 calls left, reset in 0:00 (3 used)", 0),
    ],
)
def test_doctor_warns_below_twenty_calls(
    meter: str, verdict: Verdict, message: str, reset: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the reset is in seconds, or a time of day."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    context = Canned()
    context.calls = 3
    context.meter = {f"X-RateLimit-{name.title()}": value for name, value in (one.split("=") for one in meter.split())}
    finding = found(uploads.rate_limit, context)
    assert (finding.verdict, finding.message) == (verdict, message)
    assert finding.details.get("reset_seconds") == reset


@pytest.mark.parametrize(("max_wait", "code"), [(90.0, Exit.OK), (89.0, Exit.RETRY_MAY_HELP)])
def test_used_up_rate_limit_is_a_failure_where_uploads_do_not_wait_so_long(max_wait: float, code: Exit) -> None:
    context = Canned(max_wait=max_wait)
    assert found(uploads.rate_limit, context).verdict is Verdict.SKIPPED, "no call was counted"
    context.limited, context.meter = 90.0, {"X-RateLimit-Limit": "5"}
    finding = found(uploads.rate_limit, context)
    assert finding.message.startswith("the rate limit is used up (429): the server accepts requests again in 1:30")
    assert (finding.exit, finding.details) == (code, {"limit": 5, "remaining": 0, "reset_seconds": 90.0})
    (result,) = examine(context, [uploads.body_limit]).results
    assert (result.verdict, result.finding.message) == (Verdict.SKIPPED, "because the rate limit is used up")


@pytest.mark.parametrize(
    ("times", "verdict", "ms"),
    [
        ([500.0], Verdict.PASS, 500),
        ([501.0, 7.0], Verdict.PASS, 7),  # once more: it may have been accidental
        ([501.0, 900.0], Verdict.WARNING, 501),
        ([1999.0, 1998.0], Verdict.WARNING, 1998),
        ([2000.0], Verdict.WARNING, 2000),
    ],
)
def test_slow_poll_is_repeated_once(times: list[float], verdict: Verdict, ms: float) -> None:
    context = Canned(*times)
    finding = found(uploads.polling, context)
    assert (finding.verdict, finding.details, context.times) == (verdict, {"latency_ms": ms}, [])
    assert f"{ms:,.0f} ms" in finding.message


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([10.0, 20, 30, 40, 50], "30 ms per response (10 to 50 ms)"),
        ([530.0] * 5, "530 ms per response (530 to 530 ms)"),
        ([531.0] * 5, "responses are slow (531 ms): a connection takes 30 ms, so the server is overloaded"),
        ([10.0, 10, 10, 10, 410], "10 ms per response (10 to 410 ms)"),
        ([10.0, 10, 10, 10, 411], "responses take from 10 to 411 ms: the server is overloaded, or the network is"),
        ([100.0, 100, 100, 100, 500], "100 ms per response (100 to 500 ms)"),
        ([101.0, 101, 101, 101, 505], "101 ms per response (101 to 505 ms)"),
        ([101.0, 101, 101, 101, 506], "responses take from 101 to 506 ms"),
        ([10.0, errors.ConnectionLost("cut"), 10, 10, 10], "the server is overloaded: 1 of 5 requests failed"),
        ([3001.0], "responses are slow (3,001 ms)"),  # the others would take too long
    ],
)
def test_slow_and_uneven_responses_are_named(times: list[float], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 ms more than a connection are slow; one that takes 400 ms more than most, and five times as long, differs."""
    if len(times) > 1:
        monkeypatch.setattr(server, "SAMPLING", PATIENCE)
    context = Canned(*times)
    context.health, context.connect_ms = context.timed("/health"), 30.0
    finding = found(server.load, context)
    assert finding.message.startswith(message)
    assert finding.verdict is (Verdict.PASS if "per response" in message else Verdict.WARNING)
    assert finding.details["answers"] + finding.details["refused"] == len(times)


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [([0.13] * 8, Verdict.PASS), ([0.135] * 8, Verdict.WARNING), ([0.29, *[0.1] * 7], Verdict.PASS)],
    ids=["4.03 MB/s", "3.9 MB/s", "a write of 290 ms"],
)
def test_disk_is_slow_below_4_mb_per_second(
    seconds: list[float], verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, context = Clock(), Canned(state_dir=tmp_path)
    monkeypatch.setattr("uploader_cli.features.doctor.disk.time", SimpleNamespace(perf_counter=clock))
    context.fsync = lambda _handle: clock.pass_(seconds.pop())
    assert (found(disk.disk, context).verdict, seconds) == (verdict, [])


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (sqlite3.SQLITE_BUSY, Verdict.PASS),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, Verdict.PASS),
        (sqlite3.SQLITE_PROTOCOL, Verdict.PASS),
        (sqlite3.SQLITE_CORRUPT, Verdict.WARNING),
    ],
)
def test_journal_that_other_processes_use_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, verdict: Verdict
) -> None:
    def connect(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("locking protocol")
        error.sqlite_errorcode = code
        raise error

    (tmp_path / "journal.sqlite3").touch()
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert found(disk.disk, Canned(state_dir=tmp_path)).verdict is verdict


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            errors.TimedOut("no answer"),
            "the server accepts connections, but does not answer in 4 s: it is overloaded or hangs",
            "Ask the server's operator to look at its load, or to restart it.",
        ),
        (errors.ConnectFailed("no connection to x", hint="is it running?"), "no connection to x", "Is it running?"),
        (
            errors.ConnectionLost("it was reset"),
            "the server cut the connection instead of answering (it was reset)",
            "Check the port, and whether --server needs https://.",
        ),
    ],
)
def test_server_without_an_answer_is_named(error: Exception, message: str, hint: str) -> None:
    finding = found(server.health, Canned(error))
    assert (finding.verdict, finding.message, finding.hint) == (Verdict.FAIL, message, hint)


@pytest.mark.parametrize(
    ("times", "left"),
    [([7.0, 7.0, 7.0], []), ([1000.0, 1000.0, 7.0], []), ([1001.0, 7.0], [7.0])],
)
def test_server_error_is_asked_about_three_times_where_it_comes_soon(
    times: list[float], left: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be accidental."""
    monkeypatch.setattr(server, "RETRY_PAUSE", 0.0)
    context = Canned(*times, status=500)
    assert found(server.health, context).message == "the server answers 500: it has an internal error"
    assert context.times == left


@pytest.mark.parametrize(
    ("ahead", "by", "verdict", "message"),
    [
        (0.2, "timestamp", Verdict.PASS, "within 1 s of the server's"),
        (-30, "timestamp", Verdict.PASS, "within 30 s of the server's"),
        (30.1, "timestamp", Verdict.WARNING, "clock skew of 0:30: the local clock is ahead of the server's"),
        (-3600, "Date header", Verdict.WARNING, "clock skew of 1:00:00: the local clock is behind the server's"),
    ],
)
def test_clock_may_differ_by_thirty_seconds(ahead: float, by: str, verdict: Verdict, message: str) -> None:
    """The server's time is that of the middle of the request; a Date header has no fractions."""
    context = Canned()
    told = NOW - 2.0 - ahead
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(told)) + f".{round(told % 1 * 1000):03}Z"
    headers, body = ({}, {"timestamp": stamp}) if by == "timestamp" else ({"Date": formatdate(told, usegmt=True)}, {})
    context.health = Timed(Answer(200, headers, body, ""), 4000.0, NOW)
    finding = found(server.clock, context)
    assert (finding.verdict, finding.message) == (verdict, message)
    assert finding.details == {"skew_seconds": ahead, "by": by, "margin_seconds": 2.0 + (by == "Date header")}
    context.health = Timed(Answer(200, {**headers, "Age": "7"}, body, ""), 4000.0, NOW)
    assert found(server.clock, context).verdict is Verdict.SKIPPED, "a cache answered"


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        (["files.invalid"], "files.invalid is an address"),
        (["10.0.0.1"], "files.invalid is 10.0.0.1"),
        (["10.0.0.1", "10.0.0.1", "::1", "10.0.0.3"], "files.invalid is 10.0.0.1, ::1, 10.0.0.3"),
        (["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "files.invalid is 10.0.0.1, 10.0.0.2, 10.0.0.3 …"),
    ],
)
def test_first_three_addresses_of_a_name_are_shown(
    addresses: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    context = Canned()
    finding = found(network.dns, context)
    assert (finding.message, context.addresses) == (message, list(dict.fromkeys(addresses)))
    assert finding.details == {"addresses": context.addresses}


def test_proxy_is_named_with_its_source() -> None:
    context = Canned(proxy="http://me:hunter2@proxy.invalid:3128")
    finding = found(network.proxy, context)
    assert finding.message == "proxy.invalid:3128, from --proxy"
    assert finding.details == {"proxy": "proxy.invalid:3128", "source": "--proxy"}
    assert context.next_hop == Address("proxy.invalid", 3128)


def test_second_address_is_tried_after_the_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        context = Canned()
        context.next_hop, context.addresses = Address("files.invalid", port), ["127.0.0.2", "127.0.0.1"]
        finding = found(network.tcp, context)
    assert (finding.verdict, finding.message) == (Verdict.PASS, f"port {port} of 127.0.0.1 is open")
    assert 0 < context.connect_ms < 60_000

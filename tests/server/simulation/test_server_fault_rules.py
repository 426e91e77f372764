"""The effect of each fault on the wire, and invalid rules."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import (
    DEADLINE,
    OPEN,
    UNKNOWN,
    Listener,
    dial,
    eventually,
    file,
    listening,
    new_session,
    post_parts,
    progress,
    text,
    upload,
)
from server.packs.packing import post_pack
from server.tus.tus_client import ByHand, append, checksum, content, create, created, error, offset_of
from serving import running_server, server_process

from uploader_server.__main__ import main
from uploader_server.app import create_app
from uploader_server.auth import issue_token
from uploader_server.config import ServerConfig
from uploader_server.simulation.rules import RuleError, parse_rule
from uploader_server.simulation.table import FAULTS
from uploader_server.simulation.wrapper import FaultyApp, FaultyEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.serving import EmbeddedServer

DATA = bytes(range(250)) * 40
SHORT = 0.3
"""Duration of a fault in seconds, or of a wait in which nothing may arrive."""


LATE = 2.0
"""Seconds by which an event is late that arrives after the upload of two files."""


@pytest.fixture(autouse=True)
def _same_events_at_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of events about received bytes depends on the speed, and a swapped one waits for the next."""
    monkeypatch.setattr("uploader_server.sessions.EVENT_INTERVAL", float("inf"))
    monkeypatch.setattr("uploader_server.simulation.wrapper.LONGEST_SWAP", DEADLINE)


Check = tuple[str, "Callable[[EmbeddedServer], None]"]
CHECKS: dict[str, list[Check]] = {}


def fault(rule: str) -> Callable[[Callable[[EmbeddedServer], None]], Callable[[EmbeddedServer], None]]:
    """Register the check of a rule."""

    def register(check: Callable[[EmbeddedServer], None]) -> Callable[[EmbeddedServer], None]:
        CHECKS.setdefault(rule.partition(":")[0], []).append((rule, check))
        return check

    return register


def get(server: EmbeddedServer, path: str = "/health", **more: Any) -> requests.Response:
    return requests.get(server.url + path, timeout=DEADLINE, **more)


def lost(call: Callable[[], Any]) -> requests.exceptions.RequestException:
    """Make a call that gets no complete answer; return the error."""
    with pytest.raises(requests.exceptions.RequestException) as caught:
        call()
    return caught.value


def half(server: EmbeddedServer) -> str:
    return created(server.url, len(DATA), DATA[:100], filename="half.bin")


@fault("status:health#2:503,retry-after=7")
def _(server: EmbeddedServer) -> None:
    answers = [get(server) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert answers[1].headers["retry-after"] == "7"
    assert answers[1].json()["error"] == "SERVICE_UNAVAILABLE"


@fault("status:patch#1:500,when=work")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    assert append(location, 100, DATA[100:]).status_code == 500
    assert offset_of(location) == len(DATA)


@fault("cut:patch#1:1000")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    lost(lambda: append(location, 100, DATA[100:]))
    assert offset_of(location) == 1100


@fault("cut:stored:1000,side=answer")
def _(server: EmbeddedServer) -> None:
    upload(server.url, file("cut.mp4", DATA))
    answer = get(server, "/uploads/personal/cut.mp4", stream=True)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.raw.read(1000) == DATA[:1000]
    assert isinstance(lost(lambda: next(answer.iter_content(10))), requests.exceptions.ChunkedEncodingError)


@fault("reset:patch#1:1000")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    request = ByHand("PATCH", location, {"Upload-Offset": "100"}, len(DATA) - 100)
    request.send(DATA[100:5000])
    with pytest.raises(ConnectionResetError):
        request.connection.recv(100)
    assert offset_of(location) == 1100


@fault("lose:create#1")
def _(server: EmbeddedServer) -> None:
    lost(lambda: create(server.url, len(DATA), DATA, filename="lost.bin"))
    assert (server.root / "tus/lost.bin").read_bytes() == DATA


@fault(f"stall:health#1:before,seconds={SHORT}")
@fault(f"stall:health#1:after,seconds={SHORT}")
def _(server: EmbeddedServer) -> None:
    began = time.monotonic()
    assert get(server).status_code == 200
    assert time.monotonic() - began >= SHORT


@fault(f"stall:patch#1:in,seconds={SHORT},at=1000")
def _(server: EmbeddedServer) -> None:
    location, began = half(server), time.monotonic()
    assert append(location, 100, DATA[100:]).status_code == 204
    assert time.monotonic() - began >= SHORT
    assert content(location) == DATA


@fault("slow:patch:25000")
@fault("slow:stored:25000")
def _(server: EmbeddedServer) -> None:
    location, began = half(server), time.monotonic()
    assert append(location, 100, DATA[100:]).status_code == 204
    assert get(server, "/uploads/tus/half.bin").content == DATA
    assert time.monotonic() - began >= 0.3


@fault("flip:patch#1:1000")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    assert append(location, 100, DATA[100:], checksum(DATA[100:])).status_code == 460
    assert append(location, 100, DATA[100:], checksum(DATA[100:])).status_code == 204
    assert content(location) == DATA


@fault("flip:stored:1000,side=answer")
def _(server: EmbeddedServer) -> None:
    upload(server.url, file("flipped.mp4", DATA))
    got = get(server, "/uploads/personal/flipped.mp4").content
    assert [n for n, (a, b) in enumerate(zip(got, DATA, strict=True)) if a != b] == [1000]


@fault("disk-full:patch#1:1000")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    assert error(append(location, 100, DATA[100:])) == (507, "DISK_FULL")
    assert offset_of(location) == 1100
    assert append(location, 1100, DATA[1100:]).status_code == 204


@fault("disk-full:batch#1:10")
def _(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    parts = [text("sessionId", session), text("category", "personal"), file("a.mp4", DATA)]
    assert error(post_parts(server.url, parts)) == (507, "DISK_FULL")
    assert post_parts(server.url, parts).status_code == 200


@fault("disk-full:pack#1:10")
def _(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    assert error(post_pack(server.url, session, {"a.mp4": DATA})) == (507, "DISK_FULL")
    assert post_pack(server.url, session, {"a.mp4": DATA}).status_code == 200


@fault("offset:head#1:-50")
def _(server: EmbeddedServer) -> None:
    location = half(server)
    assert [offset_of(location), offset_of(location)] == [50, 100]


@fault("truncated:health")
def _(server: EmbeddedServer) -> None:
    text = get(server).text
    assert text.startswith('{"status":"OK"')
    assert not text.endswith("}")


@fault("gigantic:health#1:3M")
def _(server: EmbeddedServer) -> None:
    assert len(get(server).content) == 3 << 20
    assert get(server).json()["status"] == "OK"


@fault("gigantic:health#1:10M,gzip=yes")
def _(server: EmbeddedServer) -> None:
    answer = get(server, stream=True)
    assert len(answer.raw.read()) < 100_000
    assert len(get(server).content) < 10_000


@fault("endless:health#1:100K")
def _(server: EmbeddedServer) -> None:
    answer = get(server, stream=True)
    assert sum(len(piece) for piece, _ in zip(answer.iter_content(1000), range(30), strict=False)) > 20_000
    answer.close()


@fault("html:session#1:200")
def _(server: EmbeddedServer) -> None:
    body = {"category": "personal", "expectedFiles": 1}
    answer = requests.post(f"{server.url}/api/upload/session", json=body, timeout=DEADLINE)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert new_session(server.url)


@fault("empty:health")
def _(server: EmbeddedServer) -> None:
    answer = get(server)
    assert (answer.status_code, answer.content) == (200, b"")


@fault("types:health#1:maxFiles")
def _(server: EmbeddedServer) -> None:
    assert get(server).json()["limits"]["maxFiles"] == "many"
    assert get(server).json()["limits"]["maxFiles"] == 10_000


@fault("types:health")
def _(server: EmbeddedServer) -> None:
    assert get(server).json()["status"] == 7


@fault("restart:patch#1:all,at=1000")
def _(server: EmbeddedServer) -> None:
    location, session = half(server), new_session(server.url)
    before = server.app
    lost(lambda: append(location, 100, DATA[100:]))
    again(server, before)
    assert offset_of(location) == 1100
    assert append(location, 1100, DATA[1100:]).status_code == 204
    assert progress(server.url, session).status_code == 200


@fault("restart:progress#1:files")
def _(server: EmbeddedServer) -> None:
    upload(server.url, file("kept.mp4", DATA))
    session, before = new_session(server.url), server.app
    lost(lambda: progress(server.url, session))
    again(server, before)
    assert progress(server.url, session).status_code == 404
    assert get(server, "/uploads/personal/kept.mp4").content == DATA


@fault(f"restart:progress#1:nothing,down={SHORT}")
def _(server: EmbeddedServer) -> None:
    upload(server.url, file("gone.mp4", DATA))
    began, before = time.monotonic(), server.app
    lost(lambda: progress(server.url, new_session(server.url)))
    again(server, before)
    assert time.monotonic() - began >= SHORT
    assert get(server, "/uploads/personal/gone.mp4").status_code == 404


def again(server: EmbeddedServer, before: object) -> None:
    """Wait until the restarted server answers."""

    def answers() -> bool:
        try:
            return server.app is not before and get(server).status_code == 200
        except requests.ConnectionError:
            return False

    eventually(answers, "the restart")


def seen(server: EmbeddedServer, *, late: int = 0) -> list[dict[str, Any]]:
    """Return the events of a session whose two files are sent one by one, without the snapshot of the join.

    `late` events follow the end of the session.
    """
    session = new_session(server.url, 2)
    with listening(server.url, session) as listener:
        listener.event()
        for number in range(2):
            upload(server.url, file(f"{number}.mp4", b"x"), session=session)
        events = [listener.event()]
        while events[-1]["overallStatus"] != "completed" or "currentFile" in events[-1]:
            events.append(listener.event())
        events += [listener.event() for _ in range(late)]
        with pytest.raises(TimeoutError):
            listener.packet(SHORT)
        return events


def plain() -> list[str]:
    """Return the messages of a session of two files without faults."""
    with running_server() as server:
        return [event["message"] for event in seen(server)]


@fault("event-missing:upload-progress#2-3")
def _(server: EmbeddedServer) -> None:
    expected = plain()
    assert [event["message"] for event in seen(server)] == expected[2:]


@fault("event-doubled:upload-progress#3")
def _(server: EmbeddedServer) -> None:
    expected = plain()
    assert [event["message"] for event in seen(server)] == [*expected[:2], expected[1], *expected[2:]]


@fault("event-swapped:upload-progress#2")
def _(server: EmbeddedServer) -> None:
    expected = plain()
    assert [event["message"] for event in seen(server)] == [expected[1], expected[0], *expected[2:]]


@fault(f"event-late:upload-progress#2:{LATE}")
def _(server: EmbeddedServer) -> None:
    expected = plain()
    assert [event["message"] for event in seen(server, late=1)] == [*expected[1:], expected[0]]


@fault("event-foreign:upload-progress#2")
def _(server: EmbeddedServer) -> None:
    sessions = [event["sessionId"] for event in seen(server)]
    assert sessions[1] not in {sessions[0], sessions[2]}
    assert len(set(sessions)) == 2


@fault("event-types:upload-progress#2:totalProgress")
def _(server: EmbeddedServer) -> None:
    values = [event["totalProgress"] for event in seen(server)]
    assert [value for value in values if not isinstance(value, int)] == values[:1] == ["many"]


@fault("socket-off:realtime")
def _(server: EmbeddedServer) -> None:
    assert [dial(server.url, transport) for transport in OPEN] == [404, 404]


@fault("socket-refuse:polling")
def _(server: EmbeddedServer) -> None:
    assert [dial(server.url, transport) for transport in OPEN] == [101, 403]


@fault("socket-hang:websocket")
def _(server: EmbeddedServer) -> None:
    assert (dial(server.url, "websocket", SHORT), dial(server.url, "polling")) == ("no answer", 200)


def connected_before(server: EmbeddedServer) -> Listener:
    """Connect, before the faults of the server begin with the next connection."""
    rules = [rule.text for rule in server.faults.rules]
    server.faults.clear()
    listener = Listener(server.url)
    for rule in rules:
        server.faults.add(rule)
    dial(server.url, "websocket", SHORT)
    return listener


@fault(f"socket-freeze:websocket:{SHORT}")
def _(server: EmbeddedServer) -> None:
    listener = connected_before(server)
    eventually(lambda: dial(server.url, "websocket", SHORT) == "no answer", "the freeze")
    session = new_session(server.url)

    def is_silent() -> bool:
        try:
            listener.join(session)
            return not listener.packet(2 * SHORT)
        except TimeoutError:
            return True

    eventually(is_silent, "the freeze")  # the dial may have had no answer because the machine is slow
    assert not listener.closed
    assert dial(server.url, "polling") == 200


@fault(f"socket-kick:realtime:{SHORT}")
def _(server: EmbeddedServer) -> None:
    for _ in range(2):
        listener = connected_before(server)
        eventually(lambda listener=listener: listener.closed, "the kick")


@fault(f"socket-flap:realtime:{SHORT}")
def _(server: EmbeddedServer) -> None:
    listener = connected_before(server)
    eventually(lambda: listener.closed, "the unavailable period")
    eventually(lambda: dial(server.url, "polling") == 403, "the unavailable period")
    eventually(lambda: dial(server.url, "websocket") == 101, "the available period")


@fault(f"socket-kill-after:realtime:{SHORT}")
def _(server: EmbeddedServer) -> None:
    listener = connected_before(server)
    eventually(lambda: listener.closed, "the end")
    time.sleep(1.5 * SHORT)
    assert [dial(server.url, transport) for transport in OPEN] == [403, 403]


@fault("latency:150")
def _(server: EmbeddedServer) -> None:
    began = time.monotonic()
    assert get(server).status_code == 200
    assert time.monotonic() - began >= 0.15


@fault("fail-file:*:2.mp4")
def _(server: EmbeddedServer) -> None:
    """Rules with other globs fail no file."""
    server.faults.add("status:GET /*.mp4:503")
    (first, second) = upload(server.url, file("GET /1.mp4", b"x"), file("a:2.mp4", b"x"))
    assert (first["status"], second["status"]) == ("completed", "failed")


def analyse(server: EmbeddedServer, session: str = UNKNOWN, timeout: float = DEADLINE) -> requests.Response:
    (stored,) = upload(server.url, file("analysed.mp4", DATA))
    return requests.post(
        f"{server.url}/api/ai/analyze/content",
        json={"videoPath": stored["filePath"], "sessionId": session},
        headers={"authorization": f"Bearer {issue_token(server.config.jwt_secret)}"},
        timeout=timeout,
    )


@fault("analysis-silent")
def _(server: EmbeddedServer) -> None:
    with listening(server.url, UNKNOWN) as listener:
        assert analyse(server, UNKNOWN).status_code == 200
        with pytest.raises(TimeoutError):
            listener.packet(SHORT)


@fault("analysis-hang")
def _(server: EmbeddedServer) -> None:
    assert isinstance(lost(lambda: analyse(server, timeout=SHORT)), requests.Timeout)


@fault("analysis-fail:report")
def _(server: EmbeddedServer) -> None:
    assert error(analyse(server)) == (503, "ANALYSIS_FAILED")


@fault("analysis-refuse:report")
def _(server: EmbeddedServer) -> None:
    assert error(analyse(server)) == (422, "ANALYSIS_REFUSED")


EVERY = [check for checks in CHECKS.values() for check in checks]


@pytest.mark.parametrize(("rule", "check"), EVERY, ids=[rule for rule, _ in EVERY])
def test_a_fault_has_its_effect_on_the_wire(rule: str, check: Callable[[EmbeddedServer], None]) -> None:
    with running_server(faults=(rule,), packs=True, analysis_seconds=0.05) as server:
        check(server)


def test_every_fault_is_checked_and_its_example_can_be_read() -> None:
    assert set(CHECKS) == set(FAULTS)
    assert [parse_rule(known.example).kind for known in FAULTS.values()] == list(FAULTS)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("stats:patch:503", "'stats:patch:503': there is no fault 'stats'; did you mean 'status'?"),
        ("", "there is no fault ''"),
        ("status:path:503", "'path' is not a valid REQUEST: did you mean 'patch'?; write status:REQUEST"),
        ("status:patch", "code is missing; write status:REQUEST[#WHICH]:CODE"),
        ("status:patch:9999", "code: '9999' is not an HTTP status from 200 to 599"),
        ("status:patch:503,when=never", "when: 'never' is not one of before, body, work"),
        ("status:patch:503,code=500", "code is repeated"),
        ("cut:patch#0:5", "#0 is not one of: #3 (the third)"),
        ("cut:patch#4-2", "#4-2 is not one of"),
        ("cut:patch:64Q", "at: '64Q' is not a size"),
        ("lose:patch:5", "'5' is not a parameter: it has no parameters"),
        ("event-late:upload-progress", "seconds is missing"),
        ("event-late:uploadprogress:1", "did you mean 'upload-progress'?"),
        ("socket-flap:realtime:0", "seconds: it must be more than 0 seconds"),
        ("analysis-fail:reprot", "did you mean 'report'?"),
        ("fail-file", "GLOB is missing; write fail-file:GLOB, for example fail-file:*.tmp"),
    ],
)
def test_a_wrong_rule_is_exit_2_with_the_rule_and_the_fix(
    rule: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuleError):
        parse_rule(rule)
    assert main(["--fault", rule]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert [line.partition(": ")[0] for line in printed.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize(
    ("which", "hit"),
    [("", [1, 2, 3, 4, 5, 6]), ("#2", [2]), ("#2-4", [2, 3, 4]), ("#5-", [5, 6]), ("#/3", [3, 6])],
)
def test_fault_rule_selects_its_occasions(which: str, hit: list[int]) -> None:
    rule = parse_rule(f"lose:any{which}")
    assert [number for number in range(1, 7) if rule.count()] == hit
    assert (rule.seen, rule.hits) == (6, len(hit))


def test_rules_on_one_request_act_together_and_count_alone() -> None:
    rules = (f"stall:health#2-:before,seconds={SHORT}", "status:GET /hea*#1:429", "status:POST /health:500")
    with running_server(faults=rules) as server:
        began = time.monotonic()
        assert get(server).status_code == 429
        assert get(server).status_code == 200
        assert time.monotonic() - began >= SHORT
        assert [rule.hits for rule in server.faults.rules] == [1, 1, 0]


def test_scripted_answer_after_a_body_that_fills_the_disk_is_sent() -> None:
    with running_server(faults=("disk-full:validate:1", "status:validate:401,when=body")) as server:
        answer = requests.post(f"{server.url}/api/upload/validate", json={"files": []}, timeout=DEADLINE)
        assert answer.status_code == 401


def test_faults_can_be_added_and_ended_while_the_server_runs() -> None:
    with running_server() as server:
        rule = server.faults.add("status:health:503")
        server.faults.add("socket-off:realtime")
        assert get(server).status_code == 503
        assert rule.hits == 1
        assert dial(server.url, "polling") == 404
        server.faults.clear()
        assert get(server).status_code == 200
        assert dial(server.url, "polling") == 200


def test_fault_counts_survive_a_restart() -> None:
    with running_server(faults=("status:health#3:503",)) as server:
        assert get(server).status_code == 200
        before = server.app
        server.faults.restart()
        again(server, before)
        statuses = [get(server).status_code for _ in range(3)]  # `again` called once, or more often
        assert server.faults.rules[0].hits == 1
        assert statuses.count(503) <= 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the threads from /proc")
def test_no_thread_of_a_server_survives_its_restart_and_its_stop() -> None:
    """Threads of granian count too; Python does not list them."""

    def threads() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    earlier = threads()
    with running_server() as server:
        before = server.app
        server.faults.restart()
        again(server, before)
    eventually(lambda: threads() <= earlier, "the end of all threads")


@pytest.mark.parametrize("rule", ["types:health", "endless:health", "gigantic:health", "empty:health"])
def test_fault_of_an_answer_and_one_without_an_answer_log_nothing(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with running_server(faults=(rule, "lose:health")) as server:
        lost(lambda: requests.get(f"{server.url}/health", timeout=DEADLINE))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_restarts_leave_no_descriptor_open() -> None:
    def restarted() -> int:
        before = server.app
        server.faults.restart()
        again(server, before)
        return len(os.listdir("/proc/self/fd"))

    with running_server() as server:
        first = [restarted(), restarted()][-1]
        eventually(lambda: restarted() <= first, "a restart after which no more descriptors are open")


def test_the_control_call_changes_the_rules_of_another_process() -> None:
    with server_process("--fault-control", "--fault", "status:health#1:503") as server:
        control = f"{server.url}/faults"
        assert requests.get(control, timeout=DEADLINE).json() == {
            "rules": [{"rule": "status:health#1:503", "seen": 0, "hits": 0}]
        }
        added = {"rules": ["restart:health#2", "latency:1"]}
        assert requests.post(control, json=added, timeout=DEADLINE).status_code == 200
        wrong = requests.post(control, json={"rules": ["latency:1", "latency"]}, timeout=DEADLINE)
        assert error(wrong) == (400, "INVALID_RULE")
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 503
        lost(lambda: requests.get(f"{server.url}/health", timeout=DEADLINE))
        eventually(lambda: dial_http(server.url) == 200, "the restart")
        assert requests.delete(control, timeout=DEADLINE).json() == {"rules": []}


def dial_http(url: str) -> int:
    try:
        return requests.get(f"{url}/health", timeout=DEADLINE).status_code
    except requests.ConnectionError:
        return 0


def test_control_call_needs_its_option_and_a_loopback_client(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_server() as server:
        assert get(server, "/faults").status_code == 404
    assert main(["--fault-control", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "--fault-control" in capsys.readouterr().err


def test_control_call_needs_the_auth_token_if_there_is_one() -> None:
    """Not a JWT, which may delete files."""
    with running_server(fault_control=True, auth_token="token", faults=("latency:1",)) as server:
        jwt = f"Bearer {issue_token(server.config.jwt_secret)}"
        for method in ("GET", "POST", "DELETE"):
            for sent in ({}, {"authorization": jwt}):
                answer = requests.request(method, f"{server.url}/faults", json={}, headers=sent, timeout=DEADLINE)
                assert answer.status_code == 401
        known = requests.get(f"{server.url}/faults", headers={"authorization": "Bearer token"}, timeout=DEADLINE)
        assert [rule["rule"] for rule in known.json()["rules"]] == ["latency:1"]


def test_faults_are_installed_only_on_request() -> None:
    """A server without faults has none of their layers; a rule or its short form installs them."""

    def layers(**options: Any) -> tuple[bool, bool]:
        app = create_app(ServerConfig(**options), scripted=False)
        try:
            deliver = app.state.realtime.deliver
            return isinstance(app.tracker.app, FaultyApp), isinstance(deliver, FaultyEvents)
        finally:
            app.close()

    assert layers() == (False, False)
    assert layers(realtime="flap:3") == layers(faults=("lose:any",)) == (True, True)


def test_switches_are_short_forms_of_rules() -> None:
    config = ServerConfig(
        faults=("lose:patch",),
        realtime="flap:3",
        websocket="off",
        latency_ms=20,
        fail_files=("a*", "b:*"),
        analysis="silent, fail:report",
    )
    assert config.rules == (
        "lose:patch",
        "socket-flap:realtime:3",
        "socket-off:websocket",
        "latency:20",
        "fail-file:a*",
        "fail-file:b:*",
        "analysis-silent",
        "analysis-fail:report",
    )
    assert [parse_rule(rule).text for rule in config.rules] == list(config.rules)


def test_the_list_has_every_fault_with_its_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-faults"]) == 0
    listed = capsys.readouterr().out
    for known in FAULTS.values():
        assert f"  {known.form}\n      {known.text}\n      --fault '{known.example}'\n" in listed

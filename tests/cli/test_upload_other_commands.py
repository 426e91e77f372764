"""`watch`, `status`, `cancel`, `delete` and `validate` against a real server."""

from __future__ import annotations

import json
import shlex
import signal
from typing import TYPE_CHECKING

import jwt
import pytest
import requests
from cli.watch.watch_bench import open_session, rooms, send, wait_until
from command import ended, read_confirmed, read_until, start, uploader
from serving import running_server
from time_limits import PATIENCE

from uploader_cli import Settings, upload
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("flavour", "failing", "realtime", "code"),
    [
        ("bundled", "", None, 0),
        ("bundled", "", "off", 0),
        ("bundled", "b*", None, 4),
        ("bundled", "b*", "off", 4),
        ("reference", "", None, 0),
        ("reference", "", "off", 0),
        ("reference", "b*", None, 4),  # its /progress has no failures, so there is no such case with "off"
    ],
)
def test_watch_ends_with_0_4_or_6(flavour: str, failing: str, code: int, realtime: str | None, tmp_path: Path) -> None:
    """Follow a session of another user to its end, by socket and by polling: 0 completed, 4 partial."""
    config = {"flavour": flavour, "processing_seconds": 0.4, "fail_files": (failing,) if failing else ()}
    with running_server(realtime=realtime, **config) as server:
        session = open_session(server.url, 2)
        watching = start("watch", session, "-s", server.url, "--json", home=tmp_path)
        first = read_until(watching, "run.started")
        if realtime is None:  # what fails in the reference backend is told to those who have joined
            wait_until(lambda: rooms(server))
        send(server.url, session, "a.mp4", "b.mp4")
        done = ended(watching, first)
    assert done.code == code, done.err
    assert done.finished["exit_code"] == code
    assert {event["path"] for event in done.of("file.started")} == {"a.mp4", "b.mp4"}


def test_watch_of_an_unknown_session_ends_with_6(server: EmbeddedServer, tmp_path: Path) -> None:
    """After --wait seconds without an answer."""
    done = uploader("watch", UNKNOWN, "-s", server.url, "--wait", "0.5", "--json", home=tmp_path)
    assert done.code == done.finished["exit_code"] == 6


def test_watch_of_a_cancelled_session_ends_with_4(server: EmbeddedServer, tmp_path: Path) -> None:
    """Late, too: the session has ended before the watcher comes."""
    session = open_session(server.url)
    requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=PATIENCE).raise_for_status()
    assert uploader("watch", session, "-s", server.url, "--json", home=tmp_path).code == 4


def test_watch_finds_the_sessions_of_this_machine(make_files: Files, tmp_path: Path) -> None:
    """The newest one, or that of a prefix, on the server of their run; others need the whole id."""
    files = make_files(**{"a.mp4": 200_000})
    assert "this machine has no open session" in uploader("watch", home=tmp_path).err
    with running_server() as server:
        options = ("-s", server.url, "--chunk-size", "64K", "--limit-rate", "30K", "--json")
        uploading = start("upload", files, *options, home=tmp_path)
        seen = read_confirmed(uploading, 1 << 16)
        session = next(event["session"] for event in map(json.loads, seen.splitlines()) if "session" in event)
        uploading.send_signal(signal.SIGSTOP)
        watchers = [start("watch", *names, "--json", home=tmp_path) for names in ((), (session[:8].upper(),))]
        firsts = [read_until(watching, "run.started") for watching in watchers]
        unknown = uploader("watch", "ffff", home=tmp_path)
        elsewhere = uploader("watch", session[:8], "-s", "localhost:9", home=tmp_path)
        assert ended(uploading, seen, signal.SIGCONT).code == 0
        for watching, first in zip(watchers, firsts, strict=True):
            done = ended(watching, first)
            assert (done.code, done.of("session.finished")[0]["session"]) == (0, session)
    for refused in (unknown, elsewhere, uploader("watch", session[:8], home=tmp_path)):
        assert refused.code == 2
        assert "is not an ID, nor the beginning of an open session of this machine" in refused.err


@pytest.mark.thorough
def test_watch_sends_no_token_to_a_server_that_only_a_directory_named(make_files: Files, tmp_path: Path) -> None:
    """It was the config where the upload ran; elsewhere the journal has it."""
    files = make_files(**{"a.mp4": 200_000})
    with running_server() as server:
        (tmp_path / "uploader.toml").write_text(f'server = "{server.url}"\n')
        uploading = start("upload", files, "--chunk-size", "64K", "--limit-rate", "100K", "--json", home=tmp_path)
        ended(uploading, read_until(uploading, "session.created"), signal.SIGKILL)
        (tmp_path / "uploader.toml").unlink()
        watching = start("watch", "--json", home=tmp_path, UPLOADER_TOKEN="t0ken")
        done = ended(watching, read_until(watching, "warning"), signal.SIGINT)
    assert done.of("warning")[0]["code"] == "token_withheld"


@pytest.mark.feature("server/page")
def test_watch_web_opens_the_page_of_a_session(server: EmbeddedServer, tmp_path: Path) -> None:
    """A server without a page, and a machine without a browser, are named."""
    (tmp_path / "browser").write_text('#!/bin/sh\nprintf %s "$1" > opened\n')
    (tmp_path / "browser").chmod(0o755)
    browser = f"{shlex.quote(str(tmp_path))}/browser %s"
    session = open_session(server.url)
    watch = ("watch", session, "--web", "-s")
    done = uploader(*watch, server.url, home=tmp_path, BROWSER=browser)
    assert (done.code, done.err) == (0, f"opened {server.url}/#{session}\n")
    assert (tmp_path / "opened").read_text() == f"{server.url}/#{session}"
    without = uploader(*watch, server.url, "--json", home=tmp_path, BROWSER="/nothing %s", PATH="", DISPLAY="")
    assert (without.code, json.loads(without.out)["opened"]) == (0, False)
    with running_server(ui=False) as plain:
        refused = uploader(*watch, plain.url, home=tmp_path, BROWSER=browser)
    assert refused.code == 6
    assert "has no page for browsers" in refused.err


def test_status_in_words_as_json_and_of_an_unknown_session(server: EmbeddedServer, tmp_path: Path) -> None:
    """On stdout, in words and as JSON; an unknown session is exit 4."""
    session = open_session(server.url)
    send(server.url, session, "a[b].mp4")
    words = uploader("status", session, "-s", server.url, home=tmp_path)
    assert (words.code, words.err) == (0, "")
    assert "completed" in words.out
    assert "a[b].mp4" in words.out
    machine = uploader("status", session, "-s", server.url, "--json", home=tmp_path)
    assert json.loads(machine.out)["overallStatus"] == "completed"
    unknown = uploader("status", UNKNOWN, "-s", server.url, home=tmp_path)
    assert unknown.code == 4
    assert UNKNOWN in unknown.err


def test_cancel_asks_the_server_and_names_its_limits(server: EmbeddedServer, tmp_path: Path) -> None:
    """The server is asked to cancel, and the limits of that are printed."""
    session = open_session(server.url)
    done = uploader("cancel", session, "-s", server.url, home=tmp_path)
    assert done.code == 0
    assert "may still be stored" in done.err
    assert uploader("status", session, "-s", server.url, home=tmp_path).code == 4
    assert uploader("cancel", UNKNOWN, "-s", server.url, home=tmp_path).code == 4


def test_cancel_of_an_ended_session(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    server.faults.fail_files = ["bad*"]
    said = []
    for names in (["good.txt"], ["fresh.txt", "bad.txt"]):
        with subtests.test(names=names):
            source = make_files(**dict.fromkeys(names, 10))
            sent = uploader("upload", source, "-s", server.url, "--json", home=tmp_path)
            done = uploader("cancel", sent.of("session.created")[0]["session"], "-s", server.url, home=tmp_path)
            said.append((done.code, done.err.partition(": ")[2].strip()))
    assert said == [(0, "completed already"), (4, "ended already, and some of its files failed")]


def test_delete_needs_a_token_and_finds_the_file_once(make_files: Files, tmp_path: Path) -> None:
    """Exit 5 without a token; with one the file is deleted, and the second call exits 4."""
    with running_server(jwt_secret="s" * 40) as server:
        receipt = upload(make_files(**{"a.mp4": 10}), Settings(server=server.url)).receipts[0]
        stored = server.root / "personal" / "files" / "a.mp4"
        assert stored.is_file()
        command = ("delete", str(receipt.server_id), "-s", server.url)
        refused = uploader(*command, home=tmp_path)
        assert refused.code == 5
        assert "UPLOADER_TOKEN" in refused.err
        token = issue_token("s" * 40)
        done = uploader(*command, "--json", home=tmp_path, UPLOADER_TOKEN=token)
        assert (done.code, stored.exists()) == (0, False)
        assert json.loads(done.out)["success"] is True
        assert uploader(*command, home=tmp_path, UPLOADER_TOKEN=token).code == 4
        assert token not in refused.err + done.err + done.out


def test_delete_of_another_clients_file_names_the_token(make_files: Files, tmp_path: Path) -> None:
    with running_server(jwt_secret="s" * 40) as server:
        mine, theirs = (jwt.encode({"sub": name}, "s" * 40, algorithm="HS256") for name in ("me", "you"))
        receipt = upload(make_files(**{"a.mp4": 10}), Settings(server=server.url, token=theirs)).receipts[0]
        refused = uploader("delete", str(receipt.server_id), "-s", server.url, home=tmp_path, UPLOADER_TOKEN=mine)
    assert refused.code == 5
    assert "another client uploaded this file" in refused.err
    assert "token of the client that uploaded it" in refused.err
    assert "session" not in refused.err.lower()


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_validate_exits_4_where_the_server_would_refuse_a_file(flavour: str, make_files: Files, tmp_path: Path) -> None:
    """Names, sizes and types are checked by the server; exit 4 where it would refuse a file."""
    with running_server(flavour=flavour, types=("mp4", "avi")) as server:
        good = make_files("good", **{f"{number}.mp4": 1 for number in range(4)}, **{"x.avi": 1})
        bad = make_files("bad", **{"a.mp4": 1, "b.mov": 1, "c.mp4": 0})
        accepted = uploader("validate", good, "-s", server.url, home=tmp_path)
        assert (accepted.code, "would accept" in accepted.out) == (0, True)
        done = uploader("validate", bad, "-s", server.url, "--json", home=tmp_path)
        assert server.faults.count("POST", "/api/upload/batch") == 0
    assert done.code == 4
    verdict = json.loads(done.out)
    assert verdict["valid"] is False
    assert sorted(item["path"].rsplit("/", 1)[1] for item in verdict["refused"]) == [
        "b.mov",
        *(["c.mp4"] if flavour == "reference" else []),  # an upload to the bundled server stores empty files
    ]

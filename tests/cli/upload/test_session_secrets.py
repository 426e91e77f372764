"""The secret of a session: only who has the journal of its run, or the secret itself, may write to it or cancel it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests
from command import Done, ended, read_confirmed, start, uploader
from feature_samples import of
from proxy import Proxy
from serving import running_server
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

KIB = 1 << 10
SLOW = ("--chunk-size", "16K", "--limit-rate", "20K", "--json")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def journal_of(home: Path) -> Path:
    return home / "state" / "uploader" / "journal.sqlite3"


def secrets_of(home: Path) -> dict[str, str]:
    """The secrets in the journal by session."""
    with closing(sqlite3.connect(journal_of(home))) as journal:
        return dict(journal.execute("SELECT id, secret FROM session").fetchall())


def forget_secrets(home: Path, secret: str = "") -> None:
    with closing(sqlite3.connect(journal_of(home), timeout=PATIENCE)) as journal, journal:
        journal.execute("UPDATE session SET secret = ?", (secret,))


def killed(server: EmbeddedServer, home: Path, files: Path) -> tuple[Done, str]:
    """An upload that is killed after two chunks; the result and its session."""
    process = start("upload", files, "-s", server.url, *SLOW, home=home)
    done = ended(process, read_confirmed(process, 32 * KIB), signal.SIGKILL)
    events = map(json.loads, done.out.splitlines())
    (session,) = {event["session"] for event in events if event["type"] == "session.created"}
    return done, session


def cancelled(server: EmbeddedServer, session: str, home: Path, **extra: str) -> Done:
    return uploader("cancel", session, "-s", server.url, home=home, **extra)


def state_of(server: EmbeddedServer, session: str) -> Any:
    return requests.get(f"{server.url}/api/upload/progress/{session}", timeout=PATIENCE).json()["overallStatus"]


@pytest.mark.thorough
def test_run_that_was_killed_resumes_in_its_session(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Nobody else can write to it; its secret is in the journal alone, which only the user can read."""
    content = os.urandom(640 * KIB)
    files = make_files(**{"a.mp4": content})
    done, session = killed(server, tmp_path, files)
    secret = secrets_of(tmp_path)[session]
    assert stat.S_IMODE(journal_of(tmp_path).stat().st_mode) == 0o600
    assert secret not in done.out + done.err
    for headers in ({}, {"X-Session-Secret": "x" * 40}):
        refused = requests.post(f"{server.url}/api/upload/cancel/{session}", headers=headers, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["error"]) == (403, "NOT_YOURS")
    resumed = uploader("resume", "--limit-rate", "none", "--json", home=tmp_path)
    assert resumed.code == 0, resumed.err
    (began,) = resumed.of("file.started")
    assert (began["session"], began["offset"] >= 32 * KIB) == (session, True)
    assert (server.root / "personal" / "files" / "a.mp4").read_bytes() == content
    assert secrets_of(tmp_path) == {}, "a finished run needs no secret"


def test_each_session_has_its_own_secret(make_files: Files, tmp_path: Path) -> None:
    with running_server(max_files=1) as server, Proxy(server.url) as seen:
        files = make_files(**{f"{n}.mp4": b"content" for n in range(3)})
        assert uploader("upload", files, "-s", seen.url, home=tmp_path).code == 0
        asked = [request for request in seen.requests if request.target == "/api/upload/session"]
        given = [request.headers.get("x-session-secret", "") for request in asked]
        assert len(set(given)) == 3
        assert all(len(secret) >= 22 for secret in given)


@pytest.mark.thorough
def test_cancel_from_another_terminal_needs_the_journal(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files, elsewhere = make_files(**{"a.mp4": 640 * KIB}), tmp_path / "elsewhere"
    elsewhere.mkdir()
    _, session = killed(server, tmp_path, files)
    refused = cancelled(server, session, elsewhere)
    assert refused.code == 5
    assert "another client created this session" in refused.err
    assert "UPLOADER_SESSION_SECRET" in refused.err
    assert state_of(server, session) == "uploading"
    assert cancelled(server, session, tmp_path).code == 0
    assert state_of(server, session) == "cancelled"


@pytest.mark.thorough
def test_cancel_takes_the_secret_from_the_environment(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files, elsewhere = make_files(**{"a.mp4": 640 * KIB}), tmp_path / "elsewhere"
    elsewhere.mkdir()
    _, session = killed(server, tmp_path, files)
    wrong = cancelled(server, session, elsewhere, UPLOADER_SESSION_SECRET="wrong-secret-of-another-session")
    assert wrong.code == 5
    assert "wrong-secret" not in wrong.err
    assert cancelled(server, session, elsewhere, UPLOADER_SESSION_SECRET=secrets_of(tmp_path)[session]).code == 0
    assert state_of(server, session) == "cancelled"


@pytest.mark.thorough
def test_journal_gives_a_secret_only_to_the_server_of_its_session(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    _, session = killed(server, tmp_path, make_files(**{"a.mp4": 640 * KIB}))
    with Proxy(server.url) as seen:  # another port is another server
        assert uploader("cancel", session, "-s", seen.url, home=tmp_path).code == 5
        (request,) = [request for request in seen.requests if "cancel" in request.target]
        assert "x-session-secret" not in request.headers


@pytest.mark.thorough
@pytest.mark.parametrize("secret", ["", "session_" + "x" * 32])
def test_run_without_its_secret_moves_its_uploads_to_a_new_session(
    secret: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A session that the run may not write to costs no byte: the key moves the upload."""
    content = os.urandom(640 * KIB)
    files = make_files(**{"a.mp4": content})
    _, session = killed(server, tmp_path, files)
    forget_secrets(tmp_path, secret)
    resumed = uploader("resume", "--limit-rate", "none", "--json", home=tmp_path)
    assert resumed.code == 0, resumed.err
    assert session in " ".join(event["text"] for event in resumed.of("warning"))
    *_, began = resumed.of("file.started")
    assert began["session"] != session
    assert began["offset"] >= 32 * KIB
    assert (server.root / "personal" / "files" / "a.mp4").read_bytes() == content


@pytest.mark.thorough
def test_resume_takes_the_secret_from_the_environment(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    _, session = killed(server, tmp_path, make_files(**{"a.mp4": 640 * KIB}))
    secret = secrets_of(tmp_path)[session]
    forget_secrets(tmp_path)
    resumed = uploader("resume", "--limit-rate", "none", "--json", home=tmp_path, UPLOADER_SESSION_SECRET=secret)
    assert resumed.code == 0, resumed.err
    assert {event["session"] for event in resumed.of("session.created")} == {session}
    assert not resumed.of("warning")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("smoke",), marks=[pytest.mark.thorough, pytest.mark.feature("smoke")]),
        of("doctor", ("doctor", "--new-session")),
    ],
)
def test_sessions_of_checks_have_a_secret(command: tuple[str, ...], server: EmbeddedServer, tmp_path: Path) -> None:
    with Proxy(server.url) as seen:
        assert uploader(*command, "-s", seen.url, home=tmp_path).code == 0
        opened = [request for request in seen.requests if request.target == "/api/upload/session"]
        assert opened
        assert all(len(request.headers["x-session-secret"]) >= 22 for request in opened)


def test_foreign_endpoint_gets_no_secret(make_files: Files, tmp_path: Path) -> None:
    with running_server() as server, Proxy(server.url) as seen:
        line = ("--tus-endpoint", f"{seen.url}/api/upload/files/", "--metadata", "sessionId=none")
        uploader("upload", make_files(**{"a.mp4": b"a"}), *line, home=tmp_path, UPLOADER_SESSION_SECRET="x" * 40)
        assert seen.requests
        assert not [request for request in seen.requests if "x-session-secret" in request.headers]

"""The summary of `watch`: the result of each session, and why the command ended."""

from __future__ import annotations

import io
from typing import Any

import pytest
from unit.render.render_script import HOSTILE, SESSION, Script

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FileStatus, Transport
from uploader_cli.render.plain import PlainView
from uploader_cli.render.summary import summary
from uploader_cli.render.words import cells

OTHER = "7db80a25-476a-463d-8bac-e9362cf287b7"


class Watch(Script):
    """Sessions of another user."""

    def begin_watch(self, *sessions: str) -> None:
        self.put(ev.RunStarted("http://127.0.0.1:8765", None, None, 0, "watch"), ev.SelectionEnded())
        self.put(*map(ev.SessionWatched, sessions))

    def hear(self, session: str, status: str, *files: str, **more: Any) -> None:
        said = tuple(FileStatus(name, state) for name, _, state in (word.partition("=") for word in files))
        self.put(ev.SessionProgress(session, Transport.WEBSOCKET, self.now, status, files=said, **more))

    def part(self, session: str, status: str) -> None:
        self.put(ev.SessionFinished(session, status))

    def last_words(self, code: int, **how: Any) -> list[str]:
        return summary(self.state, self.end(code), **how)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_summary_of_completed_sessions_counts_their_files(watch: Watch) -> None:
    watch.begin_watch(SESSION, OTHER)
    for session in (SESSION, OTHER):
        watch.hear(session, "completed", "a.mp4=completed", total=1, completed=1)
        watch.part(session, "completed")
    assert watch.last_words(0) == ["✓ 2 sessions completed, 2 of 2 files in 12.3 s"]


def test_each_that_did_not_complete_is_named_with_its_end(watch: Watch) -> None:
    unknown, gone = OTHER.replace("7", "8"), OTHER.replace("7", "9")
    watch.begin_watch(SESSION, OTHER, unknown, gone)
    watch.hear(SESSION, "completed", "a.mp4=completed", total=1, completed=1)
    watch.hear(OTHER, "partial", "b.mp4=failed", total=2, completed=1, failed=1)
    watch.hear(gone, "uploading", total=1)
    watch.part(SESSION, "completed")
    watch.part(OTHER, "partial")
    watch.part(unknown, "unknown")
    watch.part(gone, "unknown")
    lines = watch.last_words(6, width=120)
    assert lines[:3] == [
        f"✗ session {OTHER}: partial, 1 file failed",
        f"✗ session {unknown}: unknown to the server",
        f"✗ session {gone}: no longer known to the server",
    ]
    assert any(line.startswith("  ✗ b.mp4: ") for line in lines)
    assert lines[-2] == "✗ 1 of 4 sessions completed, 2 of 4 files in 12.3 s"
    assert lines[-1] == "  exit code 6: a session is unknown, or the server never answered or is not an upload server"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (3, errors.ConnectFailed("no connection to http://x"), "the connection to the server was lost; retryable"),
        (5, errors.Unauthorized("the server refused: 401", status=401), "not authorised"),
    ],
)
def test_watch_summary_has_the_reason_of_a_lost_server(watch: Watch, code: int, error: Exception, words: str) -> None:
    watch.begin_watch(SESSION)
    watch.put(ev.EngineStopped(error))
    assert watch.last_words(code) == [
        f"✗ {error}",
        "✗ 0 of 1 session completed, in 12.3 s",
        f"  exit code {code}: {words}",
    ]


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_watch_stops_no_upload(watch: Watch, code: int) -> None:
    watch.begin_watch(SESSION)
    watch.hear(SESSION, "uploading", "a.mp4=uploading", total=2)
    lines = watch.last_words(code, resume_hint="uploader resume")
    assert lines[0] == "■ stopped watching, 0 of 2 files in 12.3 s so far; the upload continues"
    assert len(lines) == 2
    assert "interrupted" in lines[1]


def test_many_sessions_are_summarised_by_their_number(watch: Watch) -> None:
    names = [f"session-{number}" for number in range(300)]
    watch.begin_watch(*names)
    for name in names:
        watch.part(name, "cancelled")
    lines = watch.last_words(4)
    assert lines[-2].startswith("✗ 0 of 300 sessions completed")
    assert lines[-3] == "✗ and 290 more sessions"
    assert len(lines) == 13


@pytest.mark.parametrize("width", [20, 40, 80])
def test_server_text_does_not_break_the_layout(watch: Watch, width: int) -> None:
    watch.begin_watch(*HOSTILE)
    for word in HOSTILE:
        watch.part(word, word)
    for line in watch.last_words(4, width=width):
        assert line.isprintable()
        assert cells(line) <= width


def test_plain_lines_of_a_watch_omit_unknown_sizes(watch: Watch) -> None:
    stream = io.StringIO()
    watch.view = PlainView(stream)
    watch.begin_watch(SESSION)
    watch.hear(SESSION, "uploading", "a.mp4=uploading", total=1)
    watch.hear(SESSION, "completed", "a.mp4=completed", total=1, completed=1)
    watch.part(SESSION, "completed")
    assert stream.getvalue().splitlines() == [
        "uploader: watching sessions on 127.0.0.1:8765",
        "✓ a.mp4 (0.0 s)",
        f"session {SESSION}: completed",
    ]

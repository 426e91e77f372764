"""The event stream of real runs: each line against the schema, each type where it belongs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from cli.watch.watch_bench import rooms, wait_until
from command import ended, read_until, start, uploader
from serving import running_server
from time_limits import SLACK

from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def test_stream_of_a_run_has_all_events_in_order(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """From `run.started` to `run.finished`, with the numbers that the files have.

    The time is that of the command: a token command is part of it.
    """
    files = make_files(**{"a.mp4": 3_000_000, "b.mp4": 70_000})
    token = ("--token-command", "sleep 0.5; echo secret")
    done = uploader("upload", files, "-s", server.url, "--json", "-c", "scenic", *token, home=tmp_path)
    started = done.events[0]
    assert (started["server"], started["files"], started["bytes"]) == (server.url, 2, 3_070_000)
    (created,) = done.of("session.created")
    assert (created["category"], created["files"]) == ("scenic", 2)
    assert sorted((event["size"], event["offset"], event["attempt"]) for event in done.of("file.started")) == [
        (70_000, 0, 1),
        (3_000_000, 0, 1),
    ]
    for event in done.of("file.completed"):
        assert event["location"] == f"/uploads/scenic/files/{event['path'].rsplit('/', 1)[1]}"
        assert event["attempts"] == 1
    assert {event["phase"] for event in done.of("file.progress")} <= {"sending", "processing"}
    assert done.of("session.finished")[0]["status"] == "completed"
    finished = done.finished
    assert finished["ok"] is True
    assert (finished["completed"], finished["failed"], finished["skipped"], finished["cancelled"]) == (2, 0, 0, 0)
    assert finished["bytes"] == 3_070_000
    assert finished["seconds"] >= 0.5
    assert finished["rate"] > finished["bytes"] / finished["seconds"], "the start of the command does not count"
    assert finished["exit_code"] == done.code == 0
    assert finished["peak_rss"] > 10_000_000


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_every_line_fits_the_schema(flavour: str, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Also with unusual names, bytes that are not UTF-8, refused files, and the reference backend's quirks."""
    files = make_files(**{"[red]x[/red].mp4": 9, "q\"'uote.mp4": 8, "line\nbreak.mp4": 7, "空 间.avi": 6, "t.txt": 5})
    (files / b"bad\xff.mp4".decode("utf-8", "surrogateescape")).write_bytes(b"12345")
    (files / "empty.mp4").touch()
    with running_server(flavour=flavour, processing_seconds=0.02) as server:
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert done.code == 0
    expected = 7 if flavour == "bundled" else 5
    assert done.finished["completed"] == expected
    assert done.finished["skipped"] == 7 - expected
    (odd,) = [event for event in done.of("file.completed") if "path_b64" in event]
    assert "bad\\xff.mp4" in odd["path"]


def test_stream_has_a_retry_with_delay_and_attempt(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """A 503 with Retry-After: the delay is the server's, the next attempt has the next number."""
    from uploader_server.faults import Answer

    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "1"})])
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path)
    assert done.code == 0
    (retry,) = done.of("file.retry")
    assert (retry["attempt"], retry["delay"], retry["code"]) == (2, 1.0, "server_error")
    assert [event["attempt"] for event in done.of("file.started")] == [1, 2]
    assert done.of("file.completed")[0]["attempts"] == 2


def test_stream_has_code_and_message_of_a_failed_file(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The failure has a code of the closed list, a message, and whether it is retryable."""
    server.faults.fail_files.append("bad*")
    options = ("-s", server.url, "--protocol", "batch", "--json")
    done = uploader("upload", make_files(**{"bad.mp4": 10, "ok.mp4": 9}), *options, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (failed["code"], failed["retryable"]) == ("server_failed", False)
    assert failed["message"]
    assert done.finished["failed"] == 1
    assert done.of("session.finished")[0]["status"] == "partial"


def test_stream_has_a_skipped_file(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Found by walking and not taken by the server: skipped, counted, no failure. The first line counts no link."""
    with running_server(types=("mp4",), max_size=100) as server:
        files = make_files(**{"a.mp4": 10, "b.txt": 10, "c.mp4": 101, "d.mp4": 0})
        (files / "link.mp4").symlink_to(files / "a.mp4")
        done = uploader("upload", files, "-s", server.url, "--protocol", "batch", "--json", home=tmp_path)
    assert done.code == 0
    reasons = {event["path"].rsplit("/", 1)[1]: event["reason"] for event in done.of("file.skipped")}
    assert reasons == {"b.txt": "type", "c.mp4": "size", "d.mp4": "empty", "link.mp4": "symlink"}
    assert (done.events[0]["files"], done.err.split(",")[0]) == (5, "uploader: 4 files")


@pytest.mark.thorough
def test_stream_has_each_channel_change_once(server: EmbeddedServer, tmp_path: Path) -> None:
    """Every move is reported once, each starts where the one before ended, and the last is `closed`."""
    reader, writer = os.pipe()
    with open(reader) as stdin:
        process = start("upload", "-", "--name", "a.mp4", "-s", server.url, "--json", home=tmp_path, stdin=stdin)
    seen = read_until(process, "channel.changed", lambda event: event["to"] == "live")
    wait_until(lambda: rooms(server))
    with open(writer, "w") as rest:
        rest.write("content")
    done = ended(process, seen)
    moves = done.of("channel.changed")
    assert [(move["from"], move["to"]) for move in moves] == [
        ("closed", "connecting"),
        ("connecting", "live"),
        ("live", "closed"),
    ]
    assert moves[1]["transport"] == "websocket"
    assert moves[1]["latency_ms"] > 0
    assert done.finished["channel"]["events"] > 0
    assert done.finished["channel"]["polls"] == 0


def test_stream_has_the_messages_of_the_server(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """The server's messages are passed on unchanged."""
    with running_server(flavour="reference", processing_seconds=6.0) as server:  # the client joins before that
        done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path)
    assert "a.mp4 上传完成" in [event["text"] for event in done.of("server.message")]


def test_stream_has_a_warning_for_a_stall(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """A stall is a warning with a code and the known reason."""
    with running_server(processing_seconds=4.0) as server:
        server.faults.set_realtime("off")
        files = make_files(**{"a.mp4": 10})
        done = uploader("upload", files, "-s", server.url, "--json", "--stall", "0.4", home=tmp_path)
    assert done.code == 0
    stalls = [event["text"] for event in done.of("warning") if event["code"] == "stalled"]
    assert any("waiting for the server" in text for text in stalls)


def test_a_callback_that_fails_ends_the_upload(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    """Its exception comes out, no thread is left, and the library resumes the upload when called again."""
    import threading

    from uploader_cli import upload

    files = make_files(**{"a.mp4": 1 << 20})
    before = set(threading.enumerate())

    def fail(event: object) -> None:
        if getattr(event, "confirmed", 0) >= 1 << 17:
            raise LookupError("no more")

    slow = Settings(server=server.url, chunk_size=1 << 16, limit_rate=1 << 19)
    with pytest.raises(LookupError, match="no more"):
        upload(files, slow, on_progress=fail)

    def left() -> list[str]:
        names = [thread.name for thread in set(threading.enumerate()) - before]
        return [name for name in names if name.startswith("uploader-") and not name.startswith("uploader-server")]

    wait_until(lambda: not left(), left)  # a slow machine delays their end
    offsets = []
    result = upload(files, Settings(server=server.url), on_progress=lambda event: offsets.append(event.confirmed))
    assert result.ok
    assert min(offsets) >= 1 << 17


def test_library_callbacks_get_the_events_of_the_stream(
    server: EmbeddedServer, make_files: Callable[..., Path]
) -> None:
    """The same run as a library call: receipts for each file, callbacks in the calling thread, nothing left behind."""
    import threading

    from uploader_cli import upload

    files = make_files(**{"a.mp4": 200_000, "b.mp4": 10})
    before = set(threading.enumerate())
    progress, completed, errors = list[Any](), list[Any](), list[Any]()
    server.faults.fail_files.append("b*")
    result = upload(
        files,
        Settings(server=server.url),
        on_progress=progress.append,
        on_completed=completed.append,
        on_error=errors.append,
    )
    assert result.exit_code == 4
    assert not result.ok
    assert {receipt.path: receipt.status for receipt in result.receipts} == {
        str(files / "a.mp4"): "completed",
        str(files / "b.mp4"): "failed",
    }
    assert [event.path for event in completed] == [str(files / "a.mp4")]
    assert [event.path for event in errors] == [str(files / "b.mp4")]
    assert max(event.sent for event in progress) == 200_000
    left = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("uploader-server")]
    for thread in left:
        thread.join(SLACK * 1.0)
    assert not [thread for thread in left if thread.is_alive()]

"""The library against the bundled server: options, callbacks, cancelling, resuming, watching, asyncio."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from docs_pages import page
from feature_samples import of
from proxy import Proxy, Sniffer
from serving import running_server
from time_limits import PATIENCE

import uploader_cli
from uploader_cli import (
    Event,
    FileCompleted,
    FileProgress,
    FileStarted,
    Phase,
    Progress,
    RunWarning,
    Settings,
    Uploader,
    UsageError,
    upload,
    upload_async,
)
from uploader_cli.selection.standard_input import file_of
from uploader_cli.transfer.pool import Worker
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

MANY_JOBS: dict[str, Any] = {"jobs": "many"}
SLOW: dict[str, Any] = {"chunk_size": "64k", "limit_rate": "256k", "jobs": 1}


def no_client_thread_is_left() -> bool:
    """Wait for the end of all threads of the client, which a slow machine delays."""
    until = time.monotonic() + PATIENCE
    of_server = ("uploader-server", "uploader-database")
    while any(
        thread.name.startswith("uploader-") and not thread.name.startswith(of_server)
        for thread in threading.enumerate()
    ):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_exported_names_exist_and_are_listed() -> None:
    exported: Any = uploader_cli.__all__
    assert set(exported) <= set(dir(uploader_cli))
    assert all(getattr(uploader_cli, name) is not None for name in exported)
    assert issubclass(uploader_cli.FileCompleted, uploader_cli.Event)
    shown = {name for names in re.findall(r"members: \[(.*)\]", page("api.md")) for name in re.findall(r"\w+", names)}
    assert shown | {"Settings"} >= set(exported)


def test_options_take_numbers_and_strings(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    files = make_files(**{"a.mp4": 10})
    assert upload(files, server=server.url, jobs=2, limit_rate=1_000_000).ok
    assert upload([files], Settings(server=server.url), jobs="3", limit_rate="10M", resume=False).ok


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"job": 3}, "there is no option 'job'"),
        ({"jobs": 0}, "--jobs: must be auto or a whole number"),
        ({"limit_rate": "fast"}, "--limit-rate: "),
        ({"server": "ftp://x"}, "--server: "),
    ],
)
@pytest.mark.parametrize("settings", [None, Settings(server="http://127.0.0.1:1")])
def test_wrong_option_raises_usage_error(
    options: dict[str, Any], said: str, settings: Settings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLOADER_SERVER", "http://127.0.0.1:1")
    with pytest.raises(UsageError, match=re.escape(said)):
        upload(["."], settings, **options)


@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        (5, {}, "paths must be text or os.PathLike, not 5"),
        (["a", 5], {}, "a path must be text or os.PathLike, not 5"),
        (None, {}, "paths must be text or os.PathLike, not None"),
        (["."], {"cancel": True}, "cancel must be a threading.Event, not True"),
        (["."], {"on_event": 1}, "on_event must be callable, not 1"),
        (["."], {"on_progress": "print"}, "on_progress must be callable, not 'print'"),
        (["."], {"token": 5}, "--token: must be text"),
        (["."], {"settings": "http://127.0.0.1:1"}, "settings must be an instance of Settings"),
        (["."], {"settings": Settings(server="ftp://x")}, "--server: "),
        (["."], {"settings": Settings(**MANY_JOBS)}, "--jobs: must be auto or a whole number"),
        (["."], {"include": 5}, "--include: must be text, not 5"),
        of("plan", ["."], {"dry_run": True}, "--dry-run is only for the command"),
        (["."], {"name": "x"}, "names a file object"),
    ],
)
def test_wrong_argument_raises_usage_error(paths: Any, options: dict[str, Any], said: str) -> None:
    options = {"settings": Settings(server="http://127.0.0.1:1"), **options}
    with pytest.raises(UsageError, match=re.escape(said)):
        upload(paths, **options)
    with pytest.raises(UsageError, match=re.escape(said)):
        asyncio.run(upload_async(paths, **options))


def test_settings_and_options_take_text_paths_and_single_values(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    files = make_files(**{"a.mp4": 10, "b.mov": 10})
    given: dict[str, Any] = {"include": "*.mp4", "report": tmp_path / "run.json", "limit_rate": "10M"}
    given |= {"exclude": {"c*"}, "dest": None}
    for how in ({"server": server.url, **given}, {"settings": Settings(server=server.url, proxy="", **given)}):
        with subtests.test(how=how):
            result = upload(files, **how)
            assert [receipt.path[-5:] for receipt in result.receipts] == ["a.mp4"]
            (tmp_path / "run.json").unlink()


def test_empty_option_replaces_that_of_a_config_file(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_files(**{"a.mp4": 10})
    (tmp_path / "uploader.toml").write_text('exclude = ["*.mp4"]')
    monkeypatch.chdir(tmp_path)
    assert upload(files, server=server.url, exclude=()).ok
    assert upload(files, server=server.url, exclude=[], resume=False).receipts


def test_callbacks_get_events_and_totals(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    events: list[object] = []
    totals: list[Progress] = []
    server.faults.fail_files.append("b*")
    files = make_files(**{"a.mp4": 100_000, "b.mp4": 50})
    result = upload(files, server=server.url, on_event=events.append, on_overall=totals.append)
    assert type(events[0]).__name__ == "RunStarted"
    assert type(events[-1]).__name__ == "RunFinished"
    assert [event.path for event in events if isinstance(event, FileCompleted)] == [str(files / "a.mp4")]
    last = totals[-1]
    assert (last.files, last.completed, last.failed, last.bytes, last.sent) == (2, 1, 1, 100_000, 100_000)
    assert {receipt.path: receipt.size for receipt in result.receipts} == {
        str(files / "a.mp4"): 100_000,
        str(files / "b.mp4"): 50,
    }


def test_cancelled_call_can_be_resumed(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    files = make_files(**{"a.mp4": 1 << 20})
    running: list[Uploader] = []

    def cancel(event: FileProgress) -> None:
        if event.confirmed >= 1 << 17:
            running[0].cancel()

    server.faults.add(f"stall:patch#4:before,seconds={PATIENCE}")
    with Uploader(server=server.url, on_progress=cancel, chunk_size="64k") as uploader:
        running.append(uploader)
        first = uploader.upload(files)
    assert first.exit_code == 130
    assert [receipt.status for receipt in first.receipts] == [Phase.CANCELLED]
    assert no_client_thread_is_left()
    events: list[Event] = []
    again = Uploader(server=server.url, on_event=events.append).resume()
    assert again.ok
    assert again.outcome.exit_code == 0
    assert min(event.offset for event in events if isinstance(event, FileStarted)) >= 1 << 17
    with pytest.raises(UsageError, match="no interrupted run"):
        Uploader(server=server.url).resume()


def interrupted(bundled: EmbeddedServer, files: Path, **options: Any) -> None:
    """Upload `files`, and cancel the run when its first file has begun; no chunk is answered before."""
    cancel = threading.Event()
    bundled.faults.add(f"stall:patch:before,seconds={PATIENCE}")

    def begun(event: Event) -> None:
        if isinstance(event, FileStarted):
            cancel.set()

    assert upload(files, on_event=begun, cancel=cancel, chunk_size="64k", **options).exit_code == 130
    bundled.faults.clear()


def warnings_of(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, RunWarning)]


def test_resume_withholds_secrets_from_a_server_that_only_a_directory_names(
    server: EmbeddedServer, make_files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `upload` does, also where the secrets are added to resolved settings. The server of the caller gets them."""
    monkeypatch.chdir(tmp_path)
    files = make_files(**{"a.mp4": 160 << 10})
    secrets: dict[str, Any] = {"token": "s3same", "header": "X-Api-Key: h4ckme"}
    with Proxy(server.url) as relay:
        (tmp_path / "uploader.toml").write_text(f"server = '{relay.url}'")
        interrupted(server, files, **secrets)
        events: list[Event] = []
        assert Uploader(Uploader().settings, on_event=events.append, **secrets).resume().ok
        assert warnings_of(events) == ["token_withheld"]
        assert not [sent for sent in relay.requests if {"authorization", "x-api-key"} & sent.headers.keys()]
        (tmp_path / "a.mp4").write_bytes(b"x")
        assert Uploader(server=relay.url, **secrets).upload(tmp_path / "a.mp4").ok
        assert relay.requests[-1].headers["authorization"] == "Bearer s3same"


def test_resume_withholds_secrets_from_the_server_of_another_run(
    server: EmbeddedServer, make_files: Callable[..., Path]
) -> None:
    with Proxy(server.url) as relay:
        interrupted(server, make_files(**{"a.mp4": 160 << 10}), server=relay.url)
        events: list[Event] = []
        elsewhere = Uploader(server="files.example", token="s3same", header="X-Api-Key: h4ckme", on_event=events.append)
        assert elsewhere.resume().ok
        assert warnings_of(events) == ["token_withheld"]
        assert not [sent for sent in relay.requests if {"authorization", "x-api-key"} & sent.headers.keys()]


def test_resume_uses_the_token_proxy_and_reports_of_the_caller(
    server: EmbeddedServer, make_files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not those of the environment, which the caller has replaced; an explicit token outranks a file."""
    (tmp_path / "token").write_text("of-a-file")
    interrupted(server, make_files(**{"a.mp4": 160 << 10}), server=server.url)
    settings = Uploader(server=server.url, token_file=tmp_path / "token").settings
    monkeypatch.setenv("UPLOADER_FAILED_TO", str(tmp_path / "failed.txt"))
    events: list[Event] = []
    with Proxy(server.url, sniffer := Sniffer()) as proxy:
        options: dict[str, Any] = {"token": "explicit", "proxy": proxy.url, "report": str(tmp_path / "report.json")}
        assert Uploader(settings, on_event=events.append, **options).resume().ok
    assert b"Bearer explicit" in sniffer.seen
    assert b"of-a-file" not in sniffer.seen
    assert warnings_of(events) == []
    assert (tmp_path / "report.json").exists()
    assert not (tmp_path / "failed.txt").exists()


def test_call_with_cancelled_event_sends_nothing(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(uploader_cli.Interrupted):
        upload(make_files(**{"a.mp4": 10}), server=server.url, cancel=cancelled)
    assert not list(server.root.rglob("a.mp4"))


def test_watch_follows_a_session_to_its_end(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    sessions: list[str] = []
    known = threading.Event()

    def heard(event: object) -> None:
        if isinstance(event, uploader_cli.SessionCreated):
            sessions.append(event.session)
            known.set()

    options = {"server": server.url, "protocol": "batch", "limit_rate": "256k"}
    sending = threading.Thread(
        target=upload, args=(make_files(**{"a.mp4": 1 << 18}),), kwargs=options | {"on_event": heard}
    )
    sending.start()
    assert known.wait(30)
    result = Uploader(server=server.url).watch(sessions[0])
    sending.join()
    assert result.exit_code == 0


def test_async_upload_runs_callbacks_in_the_loop(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    threads: set[int] = set()

    async def run() -> uploader_cli.Result:
        return await upload_async(
            make_files(**{"a.mp4": 10}),
            server=server.url,
            on_completed=lambda _event: threads.add(threading.get_ident()),
        )

    assert asyncio.run(run()).ok
    assert threads == {threading.get_ident()}


def test_cancelled_task_cancels_the_upload(server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    files = make_files(**{"a.mp4": 1 << 20})

    async def run() -> None:
        begun = asyncio.Event()
        call = upload_async(files, server=server.url, on_progress=lambda _event: begun.set(), **SLOW)
        task = asyncio.create_task(call)
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert no_client_thread_is_left()

    asyncio.run(run())
    assert not list(server.root.rglob("a.mp4"))


# --- file objects -----------------------------------------------------------------------------------------------------


class Pieces:
    """A source that can only be read, once; an exception among its pieces is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)

    def read(self, size: int = -1) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > size >= 0:
            self._pieces.insert(0, piece[size:])
        return piece[:size]


def test_result_has_the_error_that_ended_the_run(make_files: Callable[..., Path]) -> None:
    """Also of one that ended before its first file."""
    result = upload(make_files(a=1), server="127.0.0.1:9", wait_for_server=0)
    assert (result.exit_code, result.error) == (6, f"no connection to http://127.0.0.1:9: {os.strerror(111)}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("can't start new thread"), "the system starts no more threads"),
        (MemoryError(), "there is not enough memory"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "too many files are open"),
    ],
)
def test_run_that_lacks_a_resource_may_be_retried(
    error: Exception,
    said: str,
    server: EmbeddedServer,
    make_files: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_worker: Worker) -> None:
        raise error

    monkeypatch.setattr(Worker, "start", fail)
    result = upload(make_files(a=1), server=server.url)
    assert (result.exit_code, result.error) == (3, said)


def test_file_objects_are_stored_under_their_names(server: EmbeddedServer, tmp_path: Path) -> None:
    """From their position on; one that can't seek has no known length."""
    whole = io.BytesIO(b"--" + bytes(300_000))
    whole.seek(2)
    (tmp_path / "some").write_bytes(b"from a file")
    with (tmp_path / "some").open("rb") as opened:
        given: dict[str, Any] = {
            "a/whole.bin": whole,
            "opened.bin": opened,
            "pieces.bin": Pieces(b"12", b"3", bytes(200_000), b"4"),
        }
        for name, source in given.items():
            result = upload(source, server=server.url, name=name, chunk_size="64k", verify=True)
            assert result.ok, result
            (receipt,) = result.receipts
            assert (receipt.path, receipt.size) == (name, len((server.root / "personal" / name).read_bytes()))
    assert (server.root / "personal" / "a" / "whole.bin").read_bytes() == bytes(300_000)
    assert (server.root / "personal" / "pieces.bin").read_bytes() == b"123" + bytes(200_000) + b"4"


def test_file_objects_with_the_same_name_size_and_time_are_different_files(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The second one does not continue the upload of the first one."""
    server.faults.next_answers("PATCH", "*", [None, None, Answer(400)])
    for content, ok in ((b"1" * 300_000, False), (b"2" * 300_000, True)):
        (tmp_path / "some").write_bytes(content)
        os.utime(tmp_path / "some", (1, 1))
        with (tmp_path / "some").open("rb") as opened:
            result = upload(opened, server=server.url, name="same.mp4", chunk_size="64k", retries=0)
            assert result.ok is ok
            assert file_of(Settings(server=server.url, name="same.mp4"), opened, "-")[1].mtime_ns == 10**9
    assert (server.root / "personal" / "same.mp4").read_bytes() == content


def test_file_object_is_sent_to_a_server_without_tus() -> None:
    with running_server(tus=False, faults=("status:batch#1:503",)) as server:
        assert asyncio.run(upload_async(io.BytesIO(b"bytes"), server=server.url, name="a.mp4")).ok
        with pytest.raises(UsageError, match="exclude each other"):
            upload(io.BytesIO(b"bytes"), server=server.url, name="a.mp4", failed_to="list.txt")
        assert upload(Pieces(b"bytes"), server=server.url, name="b.mp4").exit_code == 2
        assert [path.name for path in (server.root / "personal").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (io.BytesIO(b"x"), {}, "a file object has no name"),
        (io.BytesIO(b"x"), {"name": "/x"}, "name must be a relative path"),
        (io.StringIO("x"), {"name": "x"}, "not a binary file object"),
        (Pieces(b"x"), {"name": "x", "skip_existing": True}, "--skip-existing and a file object exclude each other"),
    ],
)
def test_unusable_file_object_is_a_usage_error(source: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        upload(source, server="localhost:1", **options)


def test_exception_of_a_file_object_leaves_the_call(server: EmbeddedServer) -> None:
    """The upload stays incomplete: nothing is stored, and nothing can be resumed."""
    with Uploader(server=server.url, name="half.bin", chunk_size="64k") as uploader:
        with pytest.raises(RuntimeError, match="the producer failed"):
            uploader.upload(Pieces(bytes(200_000), RuntimeError("the producer failed")))
        with pytest.raises(UsageError, match="no interrupted run"):
            uploader.resume()
    assert not (server.root / "personal" / "half.bin").exists()
    assert no_client_thread_is_left()

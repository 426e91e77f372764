"""The library against the bundled server: options, callbacks, cancelling, resuming, watching, asyncio."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING

import pytest

import uploader_cli
from uploader_cli import (
    FileCompleted,
    FileProgress,
    Phase,
    Progress,
    Settings,
    Uploader,
    UsageError,
    upload,
    upload_async,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SLOW = {"chunk_size": "64k", "limit_rate": "256k", "jobs": 1}


def client_threads() -> list[str]:
    of_server = ("uploader-server", "uploader-database")
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("uploader-") and not name.startswith(of_server)]


def test_exported_names_exist_and_are_listed() -> None:
    assert set(uploader_cli.__all__) <= set(dir(uploader_cli))
    assert all(getattr(uploader_cli, name) is not None for name in uploader_cli.__all__)
    assert issubclass(uploader_cli.FileCompleted, uploader_cli.Event)


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
    options: dict[str, object], said: str, settings: Settings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLOADER_SERVER", "http://127.0.0.1:1")
    with pytest.raises(UsageError, match=re.escape(said)):
        upload(["."], settings, **options)


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

    with Uploader(server=server.url, on_progress=cancel, **SLOW) as uploader:
        running.append(uploader)
        first = uploader.upload(files)
    assert first.exit_code == 130
    assert [receipt.status for receipt in first.receipts] == [Phase.CANCELLED]
    assert client_threads() == []
    offsets: list[int] = []
    again = Uploader(server=server.url, on_progress=lambda event: offsets.append(event.confirmed)).resume()
    assert again.ok
    assert again.outcome.exit_code == 0
    assert min(offsets) >= 1 << 17
    with pytest.raises(UsageError, match="no interrupted run"):
        Uploader(server=server.url).resume()


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
        assert client_threads() == []

    asyncio.run(run())
    assert not list(server.root.rglob("a.mp4"))

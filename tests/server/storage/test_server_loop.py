"""Which calls of the disk the event loop makes itself (`storage.disk`): all others wait in threads."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from chaos.endings import REQUESTS, Application

from uploader_server.storage import disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLS = (
    *("access", "close", "fdatasync", "fstat", "fsync", "ftruncate", "link", "listdir", "lstat", "mkdir", "open"),
    *("pread", "preadv", "pwrite", "pwritev", "read", "readlink", "remove", "rename", "replace", "rmdir", "scandir"),
    *("stat", "statvfs", "symlink", "truncate", "unlink", "utime", "write"),
)
ALWAYS = {
    ("categories.py", "close", "close"),  # looks up a file
    ("categories.py", "__init__", "open"),
    ("categories.py", "enter", "open"),
    ("categories.py", "look", "lstat"),
    ("categories.py", "open", "open"),
    ("categories.py", "open", "fstat"),
    ("files.py", "__call__", "close"),  # sends what the system has in its cache
    ("files.py", "_read_at_once", "preadv"),
    ("saved.py", "remove", "unlink"),  # the second name of a stored file
    ("saved.py", "size", "stat"),
    ("store.py", "is_shared", "stat"),
    ("writing.py", "__init__", "open"),
    ("writing.py", "_end", "close"),  # a small temporary file of a batch
    ("writing.py", "append", "pwritev"),
}
WITHOUT_FLUSHES = {
    ("put.py", "_examine", "stat"),
    ("put.py", "_identify", "stat"),
    ("put.py", "_identify", "unlink"),
    ("saved.py", "_make", "close"),
    ("saved.py", "_make", "open"),
    ("saved.py", "_make", "stat"),
    ("saved.py", "_make", "utime"),
    ("store.py", "link", "link"),
}


@pytest.mark.parametrize(("durability", "more"), [("fsync", set()), ("none", WITHOUT_FLUSHES)])
def test_event_loop_makes_only_short_calls_of_the_disk(
    durability: str, more: set[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ours = set[tuple[str, str, str]](), threading.get_ident()

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **options: Any) -> Any:
            frame = inspect.currentframe() if threading.get_ident() == ours else None
            while frame is not None and not frame.f_globals["__name__"].startswith("uploader_server."):
                frame = frame.f_back
            if frame is not None:
                found.add((os.path.basename(frame.f_code.co_filename), frame.f_code.co_name, name))
            return call(*arguments, **options)

        return note

    async def sent(application: Application, names: str) -> None:
        session = await application.session(9)
        for request in REQUESTS:
            name = f"{request}.{names}"
            assert await getattr(application, request)(session, name) < 300
            for method in ("GET", "HEAD"):
                assert (await application.call(method, f"/uploads/personal/{name}"))[0] == 200

    async def run() -> None:
        application = Application(tmp_path, durability)
        await sent(application, "early")  # imports what is imported late
        with monkeypatch.context() as patches:
            for name in CALLS:
                patches.setattr(os, name, noted(name, getattr(os, name)))
            patches.setattr(disk, "flush_data", noted("fdatasync", disk.flush_data))
            await sent(application, "late")
        application.app.close()

    asyncio.run(run())
    assert found <= ALWAYS | more
    assert ("categories.py", "look", "lstat") in found
    assert (("store.py", "link", "link") in found) is bool(more)

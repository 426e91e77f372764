"""A run whose walk is slow: it starts, and sends, before the walk has ended."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from time_limits import PATIENCE

from uploader_cli import Settings, upload
from uploader_cli.selection import selecting, selection
from uploader_cli.selection.walk import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from uploader_cli.selection.walk import Step
    from uploader_server.serving import EmbeddedServer


def test_first_file_is_stored_during_the_walk(
    server: EmbeddedServer, make_files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = threading.Event()

    def slow(*arguments: object, **options: object) -> Iterator[Step]:
        until = time.monotonic() + PATIENCE
        for step in walk(*arguments, **options):  # type: ignore[arg-type]
            yield step
            while not stored.is_set():
                assert time.monotonic() < until, "nothing is sent before the walk ends"
                time.sleep(0.01)
                yield None

    monkeypatch.setattr(selection, "AHEAD_SECONDS", 0.1)
    monkeypatch.setattr(selection, "STEPS_AHEAD", 1 << 30)
    monkeypatch.setattr(selecting, "walk", slow)
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    result = upload(files, Settings(server=server.url), on_completed=lambda _event: stored.set())
    assert result.ok
    assert len(result.receipts) == 2

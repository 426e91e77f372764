"""Fakes: a clock that the test sets, files from a short string, and captured messages."""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from uploader_cli.core.plan import LocalFile

WIRE = Path(__file__).parent / "wire"
STREAMS = ("events-two-files", "events-one-failed", "events-cancelled")


class Clock:
    """A clock in seconds that only the test advances."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def local_file(word: str, number: int = 0, *, size: int = 10, named: bool = False) -> LocalFile:
    """Return a file described as `dir/a.mp4` or `dir/a.mp4=300` (bytes)."""
    path, _, given = word.partition("=")
    return LocalFile(number, path, path, int(given) if given else size, 0, named)


def local_files(words: str, **options: Any) -> list[LocalFile]:
    """Return a file for each word, numbered from 0."""
    return [local_file(word, number, **options) for number, word in enumerate(words.split())]


def golden(name: str) -> dict[str, Any]:
    """Return a captured request and its answer: `request`, `status`, `headers`, `body`."""
    return json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))


class Captured(NamedTuple):
    """A captured message: `at` in seconds since the request began."""

    at: float
    data: dict[str, Any]

    @property
    def stamp(self) -> float:
        """The server's time in unix seconds, parsed without the client's code."""
        return datetime.strptime(self.data["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def captured(name: str) -> list[Captured]:
    """Return a captured event stream in the order of arrival."""
    lines = (WIRE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Captured(item["at_ms"] / 1000, item["data"]) for item in map(json.loads, lines)]


class Supplied:
    """A finished selection of files."""

    def __init__(self, files: list[LocalFile]) -> None:
        self.ahead, self.ended = list(files), False
        self._left = deque(files)

    def take(self, wait: float = 0.0) -> LocalFile | None:
        del wait
        self.ended = not self._left
        return self._left.popleft() if self._left else None

    def close(self) -> list[LocalFile]:
        return list(self._left)

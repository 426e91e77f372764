"""What the server prints of unexpected errors."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest
from fakes import Clock

from uploader_server.logs import Formatter, Seldom

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """What the handler of the command line prints."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter())
    handler.addFilter(Seldom(verbose=False))
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def fail(kind: type[Exception]) -> None:
    try:
        raise kind("no\nway")
    except Exception:
        logging.getLogger("asyncio").error("It failed\nfuture: <secret>", exc_info=sys.exc_info())


def test_unexpected_errors_of_a_kind_are_one_line_a_second(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("uploader_server.logs.time.monotonic", clock)
    for _ in range(3):
        fail(KeyError)
    fail(ValueError)
    clock.now += 1
    fail(ValueError)
    fail(KeyError)
    lines = printed.getvalue().splitlines()
    assert [line.partition(" (")[0].split(": ")[2] for line in lines] == ["KeyError", "ValueError"] * 1 + [
        "ValueError",
        "KeyError",
    ]
    assert lines[-1].endswith(", and 2 more")
    assert "secret" not in printed.getvalue()

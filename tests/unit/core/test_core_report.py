"""The head of a report, and names that no JSON can carry."""

from __future__ import annotations

import base64
import json

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.names import as_base64, escaped
from uploader_cli.core.reducer import reduce
from uploader_cli.core.report import report_head
from uploader_cli.core.state import ProgressState

WHEN = {"started": "2026-01-01T00:00:00.000Z", "finished": "2026-01-01T00:00:09.000Z"}


def state() -> ProgressState:
    made = ProgressState()
    reduce(made, ev.RunStarted("http://x", 2, 30, 1, "batch"), 0.0)
    for number, size in enumerate((10, 20)):
        reduce(made, ev.FileSelected(number, f"{number}.mp4", size), 0.0)
    done = ev.FileCompleted(0, "0.mp4", 10, None, None, verified=False, attempts=1, seconds=0.5)
    reduce(made, done, 1.0)
    reduce(made, ev.FileFailed(1, "1.mp4", ev.FailureCode.NETWORK, "gone", retryable=True), 2.0)
    return made


def test_the_head_has_the_numbers_of_the_last_event() -> None:
    outcome = ev.RunFinished(False, 1, 1, 0, 0, 10, 2.0, 5.0, 3, ev.ChannelStats(polls=4), 99)
    head = report_head(state(), outcome, run="r", category="scenic", shard="1/2", **WHEN)
    assert json.loads(json.dumps(head)) == head
    assert head["counts"] == {"selected": 2, "completed": 1, "failed": 1, "skipped": 0, "cancelled": 0}
    assert (head["ok"], head["exit_code"], head["bytes"], head["seconds"], head["rate"]) == (False, 3, 10, 2.0, 5.0)
    assert (head["server"], head["category"], head["shard"]) == ("http://x", "scenic", "1/2")
    assert head["channel"]["polls"] == 4


def test_a_run_that_broke_is_no_success() -> None:
    head = report_head(state(), None, run="r", category=None, shard=None, **WHEN)
    assert (head["ok"], head["exit_code"], head["seconds"]) == (False, 1, None)
    assert head["counts"]["completed"] == 1


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(b"\xff.mp4", "\\xff.mp4"), ("空.mp4".encode(), "空.mp4"), (b"\xed\xa0\x80", "\\xed\\xa0\\x80")],
    ids=["a stray byte", "UTF-8", "a surrogate's bytes"],
)
def test_a_name_is_escaped_and_kept_in_base64_where_it_is_no_utf8(raw: bytes, shown: str) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    assert escaped(name) == shown
    assert as_base64(name) == (None if name == shown else base64.b64encode(raw).decode())

"""The head and the rows of a report, and names that are not UTF-8."""

from __future__ import annotations

import base64
import json

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase
from uploader_cli.core.names import as_base64, escaped
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.report.document import RunFacts, report_head, row_of

FACTS = RunFacts("r", "1.2.3", started=0.0, category="scenic", added={"place": [1, 2]})


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
    made = state()
    reduce(made, ev.RunFinished(False, 1, 1, 0, 0, 10, 2.0, 5.0, 3, ev.ChannelStats(polls=4), 99), 2.0)
    head = report_head(made, FACTS, finished=9.0)
    assert json.loads(json.dumps(head)) == head
    assert head["counts"] == {"selected": 2, "completed": 1, "failed": 1, "skipped": 0, "cancelled": 0}
    assert (head["ok"], head["exit_code"], head["exit"]) == (False, 3, "retry_may_help")
    assert (head["bytes"], head["seconds"], head["rate"]) == (10, 2.0, 5.0)
    assert (head["server"], head["category"], head["place"]) == ("http://x", "scenic", [1, 2])
    assert (head["started"], head["finished"]) == ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:09.000Z")
    assert head["channel"]["polls"] == 4


def test_report_of_an_aborted_run_is_not_a_success() -> None:
    head = report_head(state(), FACTS, finished=9.0)
    assert (head["ok"], head["exit_code"], head["exit"], head["seconds"]) == (False, 1, "bug", None)
    assert head["counts"]["completed"] == 1


def test_a_selection_is_complete_once_its_walk_has_ended() -> None:
    made = state()
    assert report_head(made, FACTS, finished=9.0)["selection_complete"] is False
    reduce(made, ev.SelectionEnded(), 3.0)
    assert report_head(made, FACTS, finished=9.0)["selection_complete"] is True


@pytest.mark.parametrize(("code", "word"), [(0, "ok"), (4, "failed_for_good"), (6, "no_server"), (143, "sigterm")])
def test_head_has_the_word_of_the_exit_code(code: int, word: str) -> None:
    made = state()
    reduce(made, ev.RunFinished(code == 0, 1, 1, 0, 0, 10, 2.0, 5.0, code, ev.ChannelStats(), 99), 2.0)
    assert report_head(made, FACTS, finished=9.0)["exit"] == word


def rows_of(*told: tuple[float, ev.Event]) -> list[dict[str, object]]:
    """The rows of the files that ended."""
    made = ProgressState()
    outs = [out for now, event in told for out in reduce(made, event, now)]
    return [row_of(out) for out in outs if isinstance(out, ev.FileEnded)]


def test_finished_file_has_one_row() -> None:
    rows = rows_of(
        (1.0, ev.FileStarted(0, "a.mp4", 10, "s", 0, 1)),
        (1.0, ev.FileStarted(1, "b.mp4", 20, "s", 4, 1)),
        (2.0, ev.BytesConfirmed(1, 1, 6)),
        (2.5, ev.FileRetry(1, 2, 0.5, ev.FailureCode.NETWORK, "gone")),
        (3.0, ev.FileStarted(1, "b.mp4", 20, "t", 6, 2)),
        (3.5, ev.BytesConfirmed(1, 2, 8)),
        (
            4.0,
            ev.FileCompleted(0, "a.mp4", 10, "id", "/a", verified=True, attempts=1, seconds=3.0, checksum="sha256:x"),
        ),
        (4.0, ev.FileCompleted(0, "a.mp4", 10, "id", "/a", verified=True, attempts=1, seconds=3.0)),
        (
            5.0,
            ev.FileFailed(
                1, "b.mp4", ev.FailureCode.NETWORK, "gone", retryable=True, local=LocalFile(1, "b.mp4", "b.mp4", 20, 0)
            ),
        ),
        (
            5.0,
            ev.FileSkipped(
                2,
                "c.mp4",
                ev.SkipReason.PRESENT,
                LocalFile(2, "c.mp4", "c.mp4", 20, 0),
                location="/c",
                url="http://x/c",
            ),
        ),
        (5.0, ev.FilesCancelled((3,), (LocalFile(3, "d.mp4", "d.mp4", 30, 0),))),
        (5.0, ev.FileSkipped(4, "e.mp4", ev.SkipReason.NOT_TRIED, LocalFile(4, "e.mp4", "e.mp4", 40, 0))),
    )
    assert rows == [
        {
            "file": 0, "path": "a.mp4", "size": 10, "outcome": "completed", "session": "s", "attempts": 1, "bytes": 10,
            "seconds": 3.0, "server_id": "id", "location": "/a", "checksum": "sha256:x", "verified": True,
        },
        {
            "file": 1, "path": "b.mp4", "size": 20, "outcome": "failed", "session": "t", "attempts": 2, "bytes": 8,
            "seconds": 4.0, "verified": False, "code": "network", "message": "gone", "retryable": True,
            "relative_path": "b.mp4",
        },
        {
            "file": 2, "path": "c.mp4", "size": 20, "outcome": "skipped", "attempts": 0, "bytes": 0, "seconds": 0.0,
            "location": "/c", "verified": False, "reason": "present", "relative_path": "c.mp4", "url": "http://x/c",
        },
        {
            "file": 3, "path": "d.mp4", "size": 30, "outcome": "cancelled", "attempts": 0, "bytes": 0, "seconds": 0.0,
            "verified": False, "relative_path": "d.mp4",
        },
        {
            "file": 4, "path": "e.mp4", "size": 40, "outcome": "cancelled", "attempts": 0, "bytes": 0, "seconds": 0.0,
            "verified": False, "reason": "not_tried", "relative_path": "e.mp4",
        },
    ]  # fmt: skip
    assert json.loads(json.dumps(rows)) == rows


def test_report_row_has_the_listed_name_category_and_digest() -> None:
    local = LocalFile(
        0, "a.mp4", "b/c.mp4", 10, 0, named=True, category="scenic", sha256="ab", destination="scenic/b/c.mp4"
    )
    (row,) = rows_of((1.0, ev.FileSkipped(0, "a.mp4", ev.SkipReason.PRESENT, local)))
    told = {name: row[name] for name in ("relative_path", "category", "sha256", "destination")}
    assert told == {"relative_path": "b/c.mp4", "category": "scenic", "sha256": "ab", "destination": "scenic/b/c.mp4"}


@pytest.mark.parametrize("waiting", [False, True], ids=["sending", "waiting to retry"])
def test_cancelled_file_has_its_attempts_and_confirmed_bytes(waiting: bool) -> None:
    retry = [(1.8, ev.FileRetry(0, 2, 9.0, ev.FailureCode.NETWORK, "gone"))] if waiting else []
    (row,) = rows_of(
        (1.0, ev.FileStarted(0, "a.mp4", 10, "", 0, 1)),
        (1.2, ev.BytesSent(0, 1, 9)),
        (1.5, ev.BytesConfirmed(0, 1, 6)),
        *retry,
        (2.0, ev.FilesCancelled((0,), (LocalFile(0, "a.mp4", "a.mp4", 10, 0),))),
    )
    assert "session" not in row
    assert (row["attempts"], row["bytes"], row["seconds"]) == (1, 6, 1.0)


def test_a_name_that_is_no_utf8_comes_with_its_bytes() -> None:
    row = row_of(ev.FileEnded(0, "\udcff.mp4", None, Phase.SKIPPED))
    assert row["path"] == "\\xff.mp4"
    assert row["path_b64"] == base64.b64encode(b"\xff.mp4").decode()
    assert row["size"] is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(b"\xff.mp4", "\\xff.mp4"), ("空.mp4".encode(), "空.mp4"), (b"\xed\xa0\x80", "\\xed\\xa0\\x80")],
    ids=["a stray byte", "UTF-8", "a surrogate's bytes"],
)
def test_a_name_is_escaped_and_kept_in_base64_where_it_is_no_utf8(raw: bytes, shown: str) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    assert escaped(name) == shown
    assert as_base64(name) == (None if name == shown else base64.b64encode(raw).decode())

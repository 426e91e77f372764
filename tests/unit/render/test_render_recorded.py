"""What a person reads while recorded runs are played, at three sizes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from recorded_runs import START, RecordedRun

from uploader_cli.core.state import ProgressState
from uploader_cli.render.frame import Frame
from uploader_cli.render.words import cells

SIZES = [(80, 24), (120, 40), (40, 20)]
_SPEED = re.compile(r"\d (?:[KMG]i)?B/s|files/s")
_LEFT = re.compile(r"\d left")


def frames(name: str, width: int, height: int) -> Iterator[tuple[float, ProgressState, list[str]]]:
    """Yield the seconds, the state and the rows of each frame of the live view."""
    run, frame = RecordedRun(name), Frame()
    for now in run.play():
        rows = frame.rows(run.state, now, width, height)
        yield now - START, run.state, ["".join(text for text, _ in row) for row in rows]


ALL = ["steady", "small-files", "outage", "pause", "frozen", "retries", "processing", "silent"]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ALL)
def test_nothing_of_a_recorded_run_has_a_rate_or_an_end_when_no_byte_has_left_for_long(
    name: str, width: int, height: int
) -> None:
    """The test looks at the bytes itself."""
    sent, moved, still = 0, 0.0, 0
    for seconds, state, rows in frames(name, width, height):
        if state.sent_total > sent:
            sent, moved = state.sent_total, seconds
        if seconds - moved < 5.2 or state.stopped is not None:
            continue
        still += 1
        text = "\n".join(rows)
        assert not _SPEED.search(text), text
        assert not _LEFT.search(text), text
        assert name != "frozen" or "● live" not in text, text
    assert (still > 15) is (name in ("outage", "frozen", "silent", "processing")), still


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_frozen_server_of_a_recorded_run_is_named_beside_rows_that_do_not_move(width: int, height: int) -> None:
    texts = [rows for _, _, rows in frames("frozen", width, height) if any("! no progress" in row for row in rows)]
    assert len(texts) > 40
    assert all(sum("no progress" in row for row in rows) == 5 for rows in texts), texts[0]
    if width >= 80:
        assert all(rows[3].endswith(": the server accepts no bytes") for rows in texts)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_silent_server_of_a_recorded_run_is_waited_for_by_name(width: int, height: int) -> None:
    """Within a second, until the run ends; no channel is live or polls."""
    for seconds, state, rows in frames("silent", width, height):
        text = "\n".join(rows)
        if 1 < seconds < 5 and width >= 80:
            assert "! connecting to 127.0.0.1:8005" in rows
        if seconds > 5.5 and state.stopped is None:
            assert re.search(r"^! no answer (from 127.0.0.1:8005 )?for \d+ s$", text, re.MULTILINE), text
        assert "live" not in text
        assert "polling" not in text


def test_live_never_stands_beside_an_unreachable_server() -> None:
    for _, state, rows in frames("outage", 80, 24):
        if "server unreachable" in "\n".join(rows) and state.halted(START + _):
            assert "● live" not in rows[0] or "trying now" in rows[3], rows


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["outage", "pause"])
def test_nothing_has_a_rate_or_an_end_while_a_recorded_run_is_paused(name: str, width: int, height: int) -> None:
    paused = 0
    for seconds, state, rows in frames(name, width, height):
        now = START + seconds
        if not state.halted(now):
            continue
        paused += 1
        text = "\n".join(rows)
        assert not _SPEED.search(text), text
        assert not _LEFT.search(text), text
        assert sum(row.endswith(" paused") for row in rows) == len(state.running), text
    assert paused > 15


def test_recorded_outage_counts_down_in_one_line_and_says_how_it_ended() -> None:
    texts = ["\n".join(rows) for _, _, rows in frames("outage", 80, 24)]
    waiting = [text for text in texts if "server unreachable" in text and "recovered" not in text]
    assert all(text.count("unreachable") == 1 for text in waiting)
    assert any("next try in 1 s" in text for text in waiting)
    assert not any("waiting up to" in text for text in texts)
    assert any("✓ server unreachable: recovered after" in text for text in texts)


@pytest.mark.parametrize("name", ALL[:-1])
def test_total_of_a_recorded_run_falls_only_by_a_retry(name: str) -> None:
    before, retries = 0, 0
    for _, state, _ in frames(name, 80, 24):
        assert state.bytes_through >= before or state.retries > retries
        before, retries = state.bytes_through, state.retries
    assert before == state.total_bytes


def test_total_of_a_recorded_outage_falls_when_the_server_goes_and_not_when_it_is_back() -> None:
    before, falls = 0, []
    for seconds, state, _ in frames("outage", 80, 24):
        if state.bytes_through < before:
            falls.append((seconds, state.paused(START + seconds)))
        before = state.bytes_through
    assert falls
    assert all(paused for _, paused in falls), falls


def test_small_files_of_a_recorded_run_on_a_slow_link_move_at_once() -> None:
    """Their bytes count as they leave, not when the answer to their pack arrives."""
    moved = [0.0]
    for seconds, state, _ in frames("small-files", 80, 24):
        if state.bytes_through > state.bytes_confirmed:
            moved.append(seconds)
    assert moved[1] < 1.5
    assert max(after - before for before, after in itertools.pairwise(moved)) < 1.5


@pytest.mark.parametrize(("width", "height"), [*SIZES, (60, 24)])
@pytest.mark.parametrize("name", ["steady", "outage", "frozen", "retries", "processing"])
def test_width_of_a_recorded_run_goes_to_names_first(name: str, width: int, height: int) -> None:
    """Names of 30 cells are whole, also beside a retry; no row is wider than the terminal."""
    for _, _, rows in frames(name, width, height):
        assert all(cells(row) <= width for row in rows)
        named = [row for row in rows if "mountains" in row or row.startswith(("↑ v", "↻ v", "⋯ v"))]
        assert not any("…" in row.partition(".mp4")[0] for row in named if width >= 60 or "retry" not in row), rows


def test_countdown_of_a_recorded_outage_keeps_its_number_at_40_columns() -> None:
    texts = ["\n".join(rows) for _, _, rows in frames("outage", 40, 20)]
    waiting = [text for text in texts if "no server" in text]
    assert any("next try 1 s" in text for text in waiting)
    assert all(re.search(r"^! no server 0:\d\d, (next try \d+ s|trying)$", text, re.MULTILINE) for text in waiting)
    assert len(waiting) > 20


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_processing_of_a_recorded_run_has_its_time(width: int, height: int) -> None:
    texts = ["\n".join(rows) for _, _, rows in frames("processing", width, height)]
    assert any("processing 0:04" in text for text in texts)
    assert not any(re.search(r"processing +\d+ %", text) for text in texts), "it is the part that was received"

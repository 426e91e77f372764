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


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["outage", "pause"])
def test_nothing_has_a_rate_or_an_end_while_a_recorded_run_is_paused(name: str, width: int, height: int) -> None:
    paused = 0
    for seconds, state, rows in frames(name, width, height):
        now = START + seconds
        if not state.still(now):
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


@pytest.mark.parametrize("name", ["steady", "small-files", "outage", "pause", "retries", "processing"])
def test_total_of_a_recorded_run_falls_only_by_a_retry(name: str) -> None:
    before, retries = 0, 0
    for _, state, _ in frames(name, 80, 24):
        assert state.bytes_through >= before or state.retries > retries
        before, retries = state.bytes_through, state.retries
    assert before == state.total_bytes


def test_small_files_of_a_recorded_run_on_a_slow_link_move_at_once() -> None:
    """Their bytes count as they leave, not when the answer to their pack arrives."""
    moved = [0.0]
    for seconds, state, _ in frames("small-files", 80, 24):
        if state.bytes_through > state.bytes_confirmed:
            moved.append(seconds)
    assert moved[1] < 1.5
    assert max(after - before for before, after in itertools.pairwise(moved)) < 1.5


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["steady", "outage", "retries", "processing"])
def test_width_of_a_recorded_run_goes_to_names_first(name: str, width: int, height: int) -> None:
    """At 80 columns and more names of 30 cells are whole, or nearly so; no row is wider than the terminal."""
    cut = 0
    for _, _, rows in frames(name, width, height):
        assert all(cells(row) <= width for row in rows)
        if width >= 120:
            assert not any("…" in row for row in rows if "mountains" in row and "retry" not in row), rows
        cut += any("…" in row for row in rows)
    assert cut == 0 or width < 120 or name == "retries"


def test_countdown_of_a_recorded_outage_keeps_its_number_at_40_columns() -> None:
    texts = ["\n".join(rows) for _, _, rows in frames("outage", 40, 20)]
    waiting = [text for text in texts if "no server" in text]
    assert any("next try 1 s" in text for text in waiting)
    assert all(re.search(r"^! no server 0:\d\d, (next try \d+ s|trying)$", text, re.MULTILINE) for text in waiting)
    assert len(waiting) > 20


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_processing_of_a_recorded_run_has_its_time(width: int, height: int) -> None:
    texts = ["\n".join(rows) for _, _, rows in frames("processing", width, height)]
    assert any(re.search(r"(processing +\d+ %|waiting for the server) 0:0[1-9]", text) for text in texts)

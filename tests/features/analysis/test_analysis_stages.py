"""The stages of an analysis, and the time that is left of it: tables, under a clock that a test moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core import events as ev
from uploader_cli.core.masking import MASK
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.features.analysis.analyst import assumed
from uploader_cli.features.analysis.events import AnalysisEnded, AnalysisMessage, AnalysisStarted, Stage
from uploader_cli.features.analysis.messages import (
    AnalysisStatus,
    analysis_data,
    parse_analysis,
    parse_analysis_status,
)
from uploader_cli.features.analysis.phase import in_a_sentence
from uploader_cli.features.analysis.stages import (
    LOG,
    STAGES,
    UNANSWERED,
    AnalysesState,
    Analysis,
    Kind,
    between,
    stage_at,
)
from uploader_cli.run.loop import without_secrets


def named(kind: Kind, percent: float) -> str:
    return STAGES[kind][stage_at(kind, percent)][0]


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (Kind.CONTENT, "upload 10, model analysis 40, structuring 70, report 90, saving 100"),
        (Kind.FUSION, "upload 10, video 1 25, video 2 40, plan 70, timeline 85, saving 100"),
        (Kind.MUSIC, "parse 20, emotion 40, instruments 60, prompt 85, saving 100"),
    ],
)
def test_the_stages_are_those_of_the_protocol(kind: Kind, table: str) -> None:
    """They are those of docs/protocol.md, section 4, word for word."""
    assert ", ".join(f"{name} {end}" for name, end in STAGES[kind]) == table


@pytest.mark.parametrize(
    ("percent", "name"),
    [(0, "upload"), (9.9, "upload"), (10, "model analysis"), (58, "structuring"), (99, "saving"), (100, "saving")],
)
def test_a_percentage_has_its_stage(percent: float, name: str) -> None:
    assert named(Kind.CONTENT, percent) == name


def test_skipped_stages_are_reported_in_order() -> None:
    """The stream has the end of each stage, in order, also where an event was lost."""
    assert between(Kind.CONTENT, 3, 72) == [
        ("upload", 10.0),
        ("model analysis", 40.0),
        ("structuring", 70.0),
        ("report", 72.0),
    ]
    assert between(Kind.CONTENT, 3, 40) == [("upload", 10.0), ("model analysis", 40.0)]
    assert between(Kind.CONTENT, 41.1, 41.9) == []


@pytest.mark.parametrize("limit", [180.0, 300.0])
def test_estimate_rises_and_stays_below_100(limit: float) -> None:
    guesses = [assumed(second, limit) for second in range(0, 1000, 5)]
    assert guesses == sorted(guesses)
    assert guesses[0] == 0
    assert guesses[-1] <= 95
    assert {named(Kind.CONTENT, guess) for guess in guesses} == {name for name, _ in STAGES[Kind.CONTENT]}


# --- the time that is left -------------------------------------------------------------------------------------------


def test_a_steady_analysis_counts_down() -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    for second in range(1, 20):
        analysis.advance(second, second * 5)
        left = analysis.remaining(second)
        assert left is not None
        assert left == pytest.approx(20 - second)
        assert analysis.remaining(second + 0.5) == pytest.approx(left - 0.5)


@pytest.mark.parametrize("percent", [0, 4.9, 95.1, 99, 100])
def test_no_time_left_near_0_and_100_percent(percent: float) -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    analysis.advance(10.0, percent)
    assert analysis.remaining(10.0) is None


def test_time_left_never_grows_by_a_small_delay() -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    analysis.advance(10.0, 50)
    analysis.advance(12.0, 51)  # measured: 11.5 s, shown: 8 s
    assert analysis.remaining(12.0) == pytest.approx(8.0)


def test_time_left_grows_where_the_server_slows_down() -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    analysis.advance(10.0, 50)
    analysis.advance(19.0, 52)
    assert analysis.remaining(19.0) == pytest.approx(19 * 48 / 52)


def test_elapsed_estimate_has_no_time_left() -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    analysis.advance(10.0, 50)
    assert analysis.remaining(20.1) is None


@given(st.lists(st.tuples(st.floats(0.01, 30), st.floats(0, 20)), max_size=40))
def test_time_left_grows_by_a_large_step_or_not_at_all(steps: list[tuple[float, float]]) -> None:
    """From one message to the next it grows by more than half and 3 s, or not at all."""
    analysis, now, percent = Analysis(Kind.CONTENT, "a.mp4", 0.0), 0.0, 0.0
    for seconds, more in steps:
        now, percent = now + seconds, min(100.0, percent + more)
        before = analysis.remaining(now)
        analysis.advance(now, percent)
        after = analysis.remaining(now)
        if before is not None and after is not None and after > before + 1e-6:
            assert after > before * 1.5 - 1e-6
            assert after > before + 3.0 - 1e-6


# --- an analysis in the state ----------------------------------------------------------------------------------------


def play(*events: ev.Event, state: ProgressState | None = None) -> tuple[ProgressState, list[tuple[str, float]]]:
    state = state or ProgressState()
    out = [public for now, event in enumerate(events) for public in reduce(state, event, float(now))]
    return state, [(event.name, event.percent) for event in out if isinstance(event, Stage)]


def begun(state: ProgressState) -> list[Analysis]:
    analyses: AnalysesState = state.added["analysis"]
    return analyses.begun


BEGIN = AnalysisStarted(Kind.CONTENT, "a.mp4")


def test_percentages_never_fall_and_100_waits_for_the_answer() -> None:
    state, told = play(BEGIN, *(AnalysisMessage(percent) for percent in (50, 20, None, 150)))
    (analysis,) = begun(state)
    assert analysis.percent == UNANSWERED
    assert [percent for _, percent in told] == [10, 40, 50, 70, 90, 99]
    _, end = play(AnalysisEnded(summary="well"), state=state)
    assert end == [("saving", 100.0)]
    assert (analysis.summary, analysis.percent) == ("well", 100.0)


def test_without_any_message_all_stages_come_with_the_answer() -> None:
    _, told = play(BEGIN, AnalysisEnded())
    assert told == [(name, float(end)) for name, end in STAGES[Kind.CONTENT]]


def test_a_failure_is_a_warning_and_ends_no_stage() -> None:
    state, told = play(BEGIN, AnalysisMessage(20), AnalysisEnded(error="overheated", retryable=True))
    assert told == [("upload", 10.0), ("model analysis", 20.0)]
    assert [warning.code for warning in state.warnings] == ["analysis_failed"]
    assert "overheated" in state.warnings[0].text


def test_secret_in_the_error_of_an_analysis_is_masked() -> None:
    clean = without_secrets(AnalysisEnded(error="Authorization: Bearer abcdefgh"))
    assert isinstance(clean, AnalysisEnded)
    assert "abcdefgh" not in clean.error
    assert MASK in clean.error


def test_a_late_message_changes_nothing() -> None:
    state, _ = play(AnalysisMessage(50))
    assert begun(state) == []
    state, told = play(BEGIN, AnalysisEnded(error="x"), AnalysisMessage(50, "late"))
    assert told == []
    assert not begun(state)[0].log


def test_the_log_is_bounded() -> None:
    analysis = Analysis(Kind.CONTENT, "a.mp4", 0.0)
    for number in range(1000):
        analysis.say(f"line {number}")
        analysis.say(f"line {number}")
    assert len(analysis.log) == LOG == 50
    assert list(analysis.log)[:2] == ["line 950", "line 951"]


def test_estimate_has_no_time_left_and_is_replaced_by_a_message() -> None:
    state, _ = play(BEGIN, AnalysisMessage(30, assumed=True))
    (analysis,) = begun(state)
    assert analysis.assumed
    assert analysis.remaining(1.0) is None
    reduce(state, AnalysisMessage(20), 2.0)
    assert (analysis.percent, analysis.assumed) == (30, False)


# --- what servers say ------------------------------------------------------------------------------------------------


HOSTILE: list[Any] = [
    None,
    [],
    "x",
    7,
    {},
    {"progress": "50"},
    {"progress": True},
    {"progress": float("nan")},
    {"message": 5},
]


@pytest.mark.parametrize("body", HOSTILE, ids=repr)
def test_invalid_analysis_messages_are_ignored(body: object) -> None:
    assert parse_analysis(body) is None
    assert parse_analysis_status(body) == AnalysisStatus(False, None)
    assert analysis_data(body) is None


def test_messages_are_read() -> None:
    told = {"stage": "model", "progress": 20, "message": "The model\nwatches " + "x" * 9000, "timestamp": "…"}
    event = parse_analysis(told)
    assert event is not None
    assert (event.percent, event.failed) == (20, False)
    assert event.message.startswith("The model watches x")
    assert len(event.message) <= 500
    assert parse_analysis({"message": "no"}, failed=True) == AnalysisMessage(None, "no", failed=True)
    assert parse_analysis({}, failed=True) == AnalysisMessage(failed=True)


def test_a_status_is_read_at_the_top_or_in_data() -> None:
    busy = {"status": "running", "progress": 45, "message": "busy"}
    expected = AnalysisStatus(True, AnalysisMessage(45, "busy"))
    assert parse_analysis_status(busy) == expected
    assert parse_analysis_status({"success": True, "data": busy}) == expected
    failed = parse_analysis_status({**busy, "status": "failed"})
    assert failed == AnalysisStatus(False, AnalysisMessage(45, "busy", failed=True))
    done = {"status": "completed", "progress": 100, "data": {"finalReport": "well"}}
    assert parse_analysis_status(done) == AnalysisStatus(False, AnalysisMessage(100), {"finalReport": "well"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ""),
        ({"finalReport": " \n# Title\n\n Well  done.\nMore."}, "Well done."),
        ({"finalReport": "# Title #\n## Part"}, "Title #"),
        ({"finalReport": {"overview": "It is fine."}, "summary": "no"}, "It is fine."),
        ({"finalReport": {"other": 1}, "summary": "Only this."}, "Only this."),
        ({"summary": "x" * 300}, "x" * 200),
    ],
)
def test_result_is_summarized_in_its_first_line_that_is_no_heading(data: dict[str, object], words: str) -> None:
    assert in_a_sentence(data) == words

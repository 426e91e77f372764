"""The analysis as people see it: the timeline in any width, lines in a log, the summary."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from unit.render.render_script import HOSTILE, MIB, Script

from uploader_cli.core import events as ev
from uploader_cli.features.analysis.events import AnalysisEnded, AnalysisMessage, AnalysisSaved, AnalysisStarted
from uploader_cli.features.analysis.stages import Kind
from uploader_cli.render.frame import Frame
from uploader_cli.render.plain import PlainView
from uploader_cli.render.summary import summary
from uploader_cli.render.words import width_of

if TYPE_CHECKING:
    from uploader_cli.core.state import Observer


class Run(Script):
    """A run whose one file is on the server."""

    def __init__(self, view: Observer | None = None, name: str = "holiday.mp4") -> None:
        super().__init__(view)
        self.begin(1, 10 * MIB, names=[name])
        self.start(0, names=[name])
        self.sent(0, 10 * MIB)
        self.put(ev.FileCompleted(0, name, 10 * MIB, None, None, verified=True, attempts=1, seconds=1.0))
        self.tick(2.0)
        self.put(ev.EngineStopped())
        self.put(AnalysisStarted(Kind.CONTENT, name))

    def say(self, percent: float, text: str = "", **how: bool) -> None:
        self.tick(1.0)
        self.put(AnalysisMessage(percent, text, **how))

    def picture(self, width: int = 80, height: int = 24) -> list[str]:
        rows = Frame().rows(self.state, self.now, width, height)
        assert len(rows) < height
        assert all(width_of(row) <= width for row in rows)
        return ["".join(text for text, _ in row) for row in rows]

    def end(self, code: int = 0) -> str:
        self.put(ev.RunFinished(code == 0, 1, 0, 0, 0, 10 * MIB, 60.0, 5.0, code, ev.ChannelStats(), 1000))
        assert self.state.outcome is not None
        hint = "uploader resume"
        return "\n".join(summary(self.state, self.state.outcome, width=100, resume_hint=hint))


def test_timeline_shows_the_stages_in_order() -> None:
    run = Run()
    for percent in (10, 20, 30, 40, 50, 58):
        run.say(percent, f"at {percent}")
    picture = run.picture()
    assert "  ✓ upload  ✓ model analysis  ▶ structuring  58 %  · report  · saving" in picture
    at = picture.index("  ✓ upload  ✓ model analysis  ▶ structuring  58 %  · report  · saving")
    assert picture[at - 1].startswith("content analysis of holiday.mp4  ")
    assert picture[at - 1].rstrip().endswith("0:06  0:04 left")
    assert picture[at + 1 : at + 5] == ["  » at 30", "  » at 40", "  » at 50", "  » at 58"]


def test_a_narrow_terminal_shows_the_stage_under_way() -> None:
    run = Run()
    run.say(58)
    assert "  ▶ structuring  58 %  2/5 done" in run.picture(width=40)


def test_a_guess_is_marked() -> None:
    run = Run()
    run.say(30, assumed=True)
    picture = "\n".join(run.picture())
    assert "▶ model analysis ~30 %" in picture
    assert "estimated" in picture
    assert " left" not in picture


def test_rows_keep_their_place_when_a_message_arrives() -> None:
    run = Run()
    before = [row.lstrip()[:1] for row in run.picture()]
    run.say(1, "hello")
    after = [row.lstrip()[:1] for row in run.picture()]
    assert len(before) == len(after)
    assert [mark for mark in before if mark == "✓"] == [mark for mark in after if mark == "✓"]
    assert before.index("▶") == after.index("▶")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(("width", "height"), [(10, 3), (20, 6), (40, 10), (80, 24), (200, 60)])
def test_stage_view_fits_any_terminal(text: str, width: int, height: int) -> None:
    run = Run(name=text)
    run.say(42, text)
    for row in run.picture(width, height):
        assert row.isprintable()


def test_the_rate_is_that_of_the_upload() -> None:
    """What the analysis takes does not make the upload slower."""
    run = Run()
    run.put(AnalysisEnded(summary="well"))
    before = run.state.rate(run.now)
    run.tick(58.0)
    assert run.state.rate(run.now) == before
    assert "10.0 MiB in 2.0 s" in run.end()


def test_lines_for_a_log() -> None:
    stream = io.StringIO()
    run = Run(PlainView(stream, interval=1e9))
    for percent in (5, 10, 72):
        run.say(percent)
    run.put(AnalysisEnded())
    told = stream.getvalue().splitlines()
    at = told.index("content analysis of holiday.mp4")
    assert told[at + 1 :] == [
        "✓ upload (10 %, 2.0 s)",
        "✓ model analysis (40 %, 3.0 s)",
        "✓ structuring (70 %, 3.0 s)",
        "✓ report (90 %, 3.0 s)",
        "✓ saving (100 %, 3.0 s)",
    ]


@pytest.mark.parametrize(("code", "retryable"), [(3, True), (4, False)])
def test_summary_separates_upload_and_analysis(code: int, retryable: bool) -> None:
    run = Run()
    run.put(AnalysisEnded(error="overheated", retryable=retryable))
    words = run.end(code)
    assert "\n✓ 1 file, 10.0 MiB" in words
    assert "✗ content analysis of holiday.mp4: overheated" in words
    assert words.count("overheated") == 1
    assert f"exit code {code}: an analysis failed" in words
    assert ("--skip-existing" in words) == retryable


def test_an_interrupted_analysis_leaves_nothing_to_resume() -> None:
    run = Run()
    run.put(AnalysisEnded(error="interrupted; the upload is complete"))
    words = run.end(130)
    assert "\n✓ 1 file" in words
    assert "exit code 130" in words
    assert "uploader resume" not in words


def test_a_result_is_summarised_with_its_file() -> None:
    run = Run()
    run.put(AnalysisEnded(summary="Four scenes."), AnalysisSaved("/tmp/x/uploader-analysis-1.json"))
    words = run.end()
    assert "✓ content analysis of holiday.mp4: Four scenes." in words
    assert "→ results saved in /tmp/x/uploader-analysis-1.json" in words

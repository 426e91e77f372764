"""The summary: what a person can act on, and below it the verdict."""

from __future__ import annotations

import re

import pytest
from unit.render.render_script import HOSTILE, MIB, Script, name_of

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.errors import UsageError
from uploader_cli.render.summary import FIXES, summary
from uploader_cli.render.words import cells


@pytest.fixture
def run() -> Script:
    return Script()


def test_summary_of_a_successful_run(run: Script) -> None:
    run.begin(2, size=155 * MIB)
    run.start(0, 1, size=155 * MIB)
    run.complete(0, size=155 * MIB)
    run.complete(1, size=155 * MIB)
    outcome = run.end()
    assert summary(run.state, outcome) == [
        "✓ 2 files, 310.0 MiB in 12.3 s (25.2 MiB/s), all confirmed by the server",
        "  to 127.0.0.1:8765/personal, session 2ba25c4c-a0ea-4983-89fc-cf63711e7de2",
    ]


def test_time_in_the_summary_is_that_of_its_rate(run: Script) -> None:
    """Neither counts the start of the command, which takes longer than a small file."""
    run.begin(1)
    run.now += 1.3
    run.start(0)
    run.now += 0.05
    run.complete(0)
    run.put(ev.EngineStopped())
    assert summary(run.state, run.end(seconds=1.35))[0].startswith("✓ 1 file, 10.0 MiB in 50 ms (")


@pytest.mark.parametrize("verified", [True, False])
def test_summary_says_that_all_files_were_verified(run: Script, verified: bool) -> None:
    run.begin(2)
    for number, is_verified in enumerate((True, verified)):
        run.start(number)
        run.sent(number, 10 * MIB)
        run.put(ev.FileCompleted(number, name_of(number), 10 * MIB, "id", None, is_verified, 1, 1.5))
    line = summary(run.state, run.end(), width=80)[0]
    assert line.endswith(", all confirmed and verified" if verified else ", all confirmed by the server")


def test_summary_does_not_call_a_file_confirmed_that_no_answer_confirmed(run: Script) -> None:
    run.begin(1)
    run.complete(0)
    run.put(ev.RunWarning(WarningCode.UNCONFIRMED, "a.mp4: no answer confirmed its end"))
    assert any("stored, but not all confirmed" in line for line in summary(run.state, run.end(), width=120))


def test_summary_ends_with_the_hint_of_the_error_that_ended_the_run(run: Script) -> None:
    run.begin(1)
    run.put(ev.EngineStopped(UsageError("no such server", hint="check --server")))
    assert summary(run.state, run.end(6))[-1] == "→ check --server"


def test_failures_have_reason_and_fix_once_per_cause(run: Script) -> None:
    run.begin(4)
    run.start(*range(4))
    run.complete(0)
    run.fail(1, message="no space left")
    run.fail(2, message="no space left on /data")
    run.put(ev.FileFailed(3, name_of(3), FailureCode.NETWORK, "connection reset", retryable=True))
    run.put(ev.FileSkipped(4, name_of(4), SkipReason.PRESENT))
    outcome = run.end(4)
    assert summary(run.state, outcome, width=120, resume_hint="uploader resume") == [
        "- 1 skipped: 1 already on the server",
        "✗ 2 failed: server failed – not retryable",
        "  ✗ film-0001.mp4: no space left",
        "  ✗ film-0002.mp4: no space left on /data",
        "  → The server received the file but could not store it: contact its operator.",
        "✗ 1 failed: network – retryable",
        "  ✗ film-0003.mp4: connection reset",
        "  → Check the network and the server, then run the command again.",
        "✗ 2 of 5 files confirmed by the server (1 before), 3 failed, 10.0 MiB in 12.3 s (832.5 KiB/s)",
        "  to 127.0.0.1:8765/personal, session 2ba25c4c-a0ea-4983-89fc-cf63711e7de2",
        "  exit code 4: some files failed permanently",
        "→ to retry: uploader resume",
    ]


def test_permanent_failures_are_retried_only_once_corrected(run: Script) -> None:
    run.begin(1)
    run.start(0)
    run.fail(0, message="no space left")
    lines = summary(run.state, run.end(4), width=120, resume_hint="uploader resume")
    assert lines[-1] == "→ to retry once that is corrected: uploader resume"


@pytest.mark.parametrize(
    ("failure", "code", "retryable", "hint"),
    [
        (FailureCode.SERVER_REFUSED, 4, False, "→ to retry once that is corrected: run the same command again"),
        (FailureCode.REFUSED_TYPE, 4, False, "→ to retry once that is corrected: run the same command again"),
        (FailureCode.SERVER_REFUSED, 3, True, "→ to retry: uploader resume"),
        (FailureCode.UNAUTHORIZED, 5, False, "→ to retry: uploader resume"),
        (FailureCode.INTEGRITY, 7, False, "→ to retry once that is corrected: uploader resume"),
        (FailureCode.OUTCOME_UNKNOWN, 4, False, "→ to retry: uploader resume"),
    ],
)
def test_resume_is_named_only_where_it_helps(
    run: Script, failure: FailureCode, code: int, retryable: bool, hint: str
) -> None:
    run.begin(1)
    run.start(0)
    run.put(ev.FileFailed(0, name_of(0), failure, "no", retryable=retryable))
    assert summary(run.state, run.end(code), width=120, resume_hint="uploader resume")[-1] == hint


def test_interrupt_that_leaves_nothing_names_no_way_to_resume(run: Script) -> None:
    """It has ended the wait for the reader of a report."""
    run.begin(1)
    run.start(0)
    run.complete(0)
    lines = summary(run.state, run.end(130), width=120, resume_hint="uploader resume")
    assert lines[-1] == "  exit code 130: interrupted (Ctrl-C)"


def test_files_that_were_not_tried_are_not_cancelled(run: Script) -> None:
    run.begin(2)
    for number in range(2):
        run.put(ev.FileSkipped(number, name_of(number), SkipReason.NOT_TRIED))
    lines = summary(run.state, run.end(6), width=120, resume_hint="uploader resume")
    assert "✗ 0 of 2 files confirmed by the server, 2 not tried, 0 B in 12.3 s" in lines
    assert lines[-1] == "→ to retry once that is corrected: run the same command again"


def test_files_of_several_sessions_have_their_number(run: Script) -> None:
    run.begin(2)
    run.put(ev.SessionCreated("s-2", "personal", 1))
    run.complete(0)
    assert summary(run.state, run.end())[-1] == "  to 127.0.0.1:8765/personal, 2 sessions"
    run.put(ev.SessionCreated("s-3", "teaching", 1))
    assert summary(run.state, run.end())[-1] == "  to 127.0.0.1:8765, 2 categories, 3 sessions"


def test_every_failure_code_has_a_fix() -> None:
    assert set(FIXES) == set(FailureCode)


def test_every_skip_reason_has_words(run: Script) -> None:
    for number, reason in enumerate(SkipReason):
        run.put(ev.FileSkipped(number, "x", reason))
    run.put(ev.FileSkipped(90, "y", SkipReason.TYPE))
    skipped, untried = summary(run.state, run.end(), width=500)[:2]
    assert skipped.startswith("- 10 skipped: 2 type not accepted by the server, 1 ")
    assert untried == "- 1 not tried: the run ended before"


def test_of_many_failures_ten_are_named_and_the_list_of_all(run: Script) -> None:
    """Every cause is named, with a file."""
    run.begin(300)
    for number in range(300):
        run.fail(number, FailureCode.NETWORK if number % 3 else FailureCode.CHANGED)
    outcome = run.end(4)
    lines = summary(run.state, outcome, failed_to="failures.jsonl")
    causes = re.split(r"^✗ ", "\n".join(lines), flags=re.MULTILINE)[1:]
    assert [cause.count("  ✗ ") for cause in causes] == [9, 1, 0]
    assert "… 290 more: failures.jsonl" in lines
    assert len(lines) < 25
    assert "… 290 more: --failed-to FILE lists all" in summary(run.state, outcome)


def test_shared_reason_is_printed_once(run: Script) -> None:
    run.begin(3)
    run.fail(0, message="disk full")
    run.fail(1, message="disk on fire")
    run.fail(2, message="disk full")
    lines = summary(run.state, run.end(4))
    assert [line.strip() for line in lines[1:5]] == [
        "disk full",
        "✗ film-0000.mp4",
        "✗ film-0002.mp4",
        "✗ film-0001.mp4: disk on fire",
    ]


@pytest.mark.parametrize("width", range(50, 100))
def test_a_number_keeps_its_unit_in_its_line(run: Script, width: int) -> None:
    run.begin(5)
    run.complete(0)
    run.fail(1)
    text = "\n".join(summary(run.state, run.end(4), width=width))
    assert "10.0 MiB" in text
    assert "12.3 s" in text
    assert re.search(r"\(\d+\.\d KiB/s\)", text)


def test_warnings_are_printed_once_with_unknown_outcomes_first(run: Script) -> None:
    run.begin(1)
    for _ in range(3):
        run.put(ev.RunWarning(ev.WarningCode.INSECURE, "certificates are not verified"))
    for number in range(30):
        run.put(ev.RunWarning(ev.WarningCode.JOURNAL, f"odd answer {number}"))
    run.put(ev.RunWarning(ev.WarningCode.MAY_BE_STORED, "a.mp4 may be stored already"))
    lines = summary(run.state, run.end(3), width=120)
    assert lines[0] == "! a.mp4 may be stored already"
    assert lines[1] == "! certificates are not verified (3 times)"
    assert "! and 21 more warnings" in lines


@pytest.mark.parametrize("listed", [True, False])
def test_insecure_is_said_once(run: Script, listed: bool) -> None:
    """Plain output says it at the start, which the live view has erased."""
    run.begin(1)
    run.put(ev.RunWarning(ev.WarningCode.INSECURE, "certificates are not verified"))
    lines = summary(run.state, run.end(), listed=listed)
    assert ("! certificates are not verified" in lines) is not listed


def test_interrupt_summary_has_open_files_and_resume_command(run: Script) -> None:
    run.begin(6)
    run.put(ev.FileSkipped(5, name_of(5), SkipReason.PRESENT))
    run.start(0, 1, 2)
    run.sent(0, 10 * MIB)
    run.complete(0)
    run.sent(1, 5 * MIB)
    run.put(ev.BytesConfirmed(1, 1, 4 * MIB), ev.FilesCancelled((1,)))
    outcome = run.end(130)
    assert summary(run.state, outcome, width=120, resume_hint="uploader resume r-1")[1:] == [
        "■ in progress when interrupted:",
        "  ■ film-0002.mp4",
        "  ■ film-0001.mp4",
        "■ stopped: 2 of 6 files stored, 10.0 MiB in 12.3 s (832.5 KiB/s); 4.0 MiB of 1 more is on the server",
        "  to 127.0.0.1:8765/personal, session 2ba25c4c-a0ea-4983-89fc-cf63711e7de2",
        "  exit code 130: interrupted (Ctrl-C)",
        "→ to resume: uploader resume r-1",
    ]


@pytest.mark.parametrize("exit_code", [1, 2, 3, 5, 6, 7, 143])
def test_an_exit_code_is_explained(run: Script, exit_code: int) -> None:
    assert re.fullmatch(rf"  exit code {exit_code}: .{{10,}}", summary(run.state, run.end(exit_code))[-1])


def test_fix_of_an_unreadable_file_depends_on_the_cause(run: Script) -> None:
    """Too many open files say nothing about the file."""
    run.begin(2)
    for number, retryable in enumerate((True, False)):
        run.put(ev.FileFailed(number, name_of(number), FailureCode.UNREADABLE, "it can't be read", retryable=retryable))
    assert [line for line in summary(run.state, run.end(3), width=120) if "→" in line][:2] == [
        "  → It could not be read now: run the command again, with fewer --jobs if too many files were open.",
        "  → Check that it is a file and that you may read it.",
    ]


def test_nothing_to_do(run: Script) -> None:
    assert summary(run.state, run.end()) == ["✓ nothing to send"]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_every_line_fits_whatever_the_names(run: Script, width: int) -> None:
    run.begin(names=HOSTILE)
    run.start(*range(len(HOSTILE)), names=HOSTILE)
    for number, name in enumerate(HOSTILE):
        if number % 2:
            run.put(ev.FileFailed(number, name, FailureCode.SERVER_REFUSED, f"no {name}", retryable=False))
    run.put(ev.RunWarning(ev.WarningCode.MAY_BE_STORED, f"perhaps {HOSTILE[0]}"))
    for line in summary(run.state, run.end(143), width=width, resume_hint="uploader resume"):
        assert cells(line) <= width
        assert line.isprintable()


def test_colour_marks_the_glyphs_and_changes_no_word(run: Script) -> None:
    run.begin(2)
    run.complete(0)
    run.fail(1)
    outcome = run.end(4)
    plain, colored = summary(run.state, outcome), summary(run.state, outcome, color=True)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in colored] == plain
    assert colored[0].startswith("\x1b[1;31m✗\x1b[0m ")
    assert not any("\x1b" in line for line in plain)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (ev.Paused(0.0, ev.PauseReason.UNREACHABLE), "! server unreachable: recovered after 8.0 s"),
        (ev.EngineStopped(), "! server unreachable: for 8.0 s, until the end of the run"),
    ],
)
def test_summary_says_how_an_outage_ended(run: Script, end: ev.Event, line: str) -> None:
    """It does not say for what the run would wait: that is over."""
    run.begin(1)
    run.put(ev.Paused(4.0, ev.PauseReason.UNREACHABLE))
    run.put(ev.RunWarning(ev.WarningCode.UNREACHABLE, "server unreachable: waiting up to 600 s for it"))
    run.now += 8
    run.put(end)
    run.complete(0)
    assert summary(run.state, run.end())[0] == line


def test_full_disk_ends_with_the_first_progress_after_a_try(run: Script) -> None:
    run.begin(1)
    run.start(0)
    run.put(ev.Paused(4.0, ev.PauseReason.DISK_FULL))
    run.put(ev.RunWarning(ev.WarningCode.DISK_FULL, "the server's disk is full: waiting up to 600 s"))
    for _ in range(3):
        run.now += 3
        run.put(ev.Ticked())
        assert run.state.paused(run.now)
    run.sent(0, MIB)
    run.put(ev.Ticked())
    assert not run.state.paused(run.now)
    run.complete(0)
    assert summary(run.state, run.end())[0] == "! the server's disk is full: recovered after 9.0 s"

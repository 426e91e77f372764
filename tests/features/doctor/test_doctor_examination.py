"""The run of the steps: time limits, dependencies, errors, secrets; and the report."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from time_limits import PATIENCE

from uploader_cli import Settings, errors
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import (
    Check,
    Checked,
    CheckReport,
    Finding,
    Verdict,
    failed,
    passed,
    skipped,
    warning,
)
from uploader_cli.features.doctor import examination
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.doctor_report import DoctorPage, as_json, summary_of
from uploader_cli.features.doctor.examination import STEPS, examine
from uploader_cli.outputs import ascii_signs
from uploader_cli.render.words import cells

if TYPE_CHECKING:
    from collections.abc import Callable


def context() -> DoctorContext:
    return DoctorContext(Settings(server="http://files.invalid"))


def step(name: str, look: Callable[[DoctorContext], Finding], rests_on: str = "", *, required: bool = False) -> Check:
    return Check(name, name.upper(), look, rests_on=rests_on, required=required)


def run(*steps: Check) -> CheckReport:
    return examine(context(), steps)


def test_hanging_step_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next ones are taken."""
    over = threading.Event()
    monkeypatch.setattr(examination, "STEP_LIMIT", 1.0)
    hanging = step("load", lambda _: passed("late") if over.wait(PATIENCE) else passed("later"))
    report = run(hanging, step("next", lambda _: passed("seen")))
    over.set()
    assert [result.verdict for result in report.results] == [Verdict.WARNING, Verdict.PASS]
    assert report.ok


@pytest.mark.parametrize(
    ("name", "cause", "code"),
    [("dns", "the lookup of files.invalid took", Exit.NO_SERVER), ("settings", "the token command took", Exit.USAGE)],
)
def test_hanging_step_is_named(name: str, cause: str, code: Exit, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(examination, "STEP_LIMIT", 0.05)
    report = run(step(name, lambda _: passed("late") if over.wait(PATIENCE) else passed(""), required=True))
    over.set()
    assert cause in report.summary
    assert report.exit_code is code


def test_the_whole_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipped steps are not reported as passed."""
    monkeypatch.setattr(examination, "RUN_LIMIT", 0.0)
    report = run(step("disk", lambda _: passed("never asked")))
    assert report.results[0].verdict is Verdict.WARNING
    assert "have passed" in report.summary


def test_steps_that_depend_on_a_failed_one_are_skipped() -> None:
    """Also not indirectly; independent steps run."""
    taken: list[str] = []

    def look(name: str, finding: Finding) -> Check:
        rests = {"b": "a", "c": "b"}.get(name, "")
        return step(name, lambda _: taken.append(name) or finding, rests)  # type: ignore[func-returns-value]

    report = run(look("a", failed("broken", "Fix it.")), look("b", passed()), look("c", passed()), look("d", passed()))
    assert taken == ["a", "d"]
    assert [result.blocked_by for result in report.results] == ["", "a", "a", ""]
    assert report.results[2].finding.message == "because A failed"
    assert report.exit_code is Exit.NO_SERVER


def test_a_skipped_step_blocks_nothing() -> None:
    report = run(step("a", lambda _: skipped("by choice")), step("b", lambda _: passed("well"), "a"))
    assert [result.verdict for result in report.results] == [Verdict.SKIPPED, Verdict.PASS]


@pytest.mark.parametrize(("required", "verdict"), [(True, Verdict.FAIL), (False, Verdict.WARNING)])
def test_error_of_a_step_is_a_finding(required: bool, verdict: Verdict) -> None:
    def look(_: DoctorContext) -> Finding:
        raise errors.ConnectFailed("no connection to x", hint="is it running?")

    report = run(step("a", look, required=required))
    found = report.results[0].finding
    assert (found.verdict, found.message, found.hint) == (verdict, "no connection to x", "Is it running?")
    assert report.exit_code is (Exit.NO_SERVER if required else Exit.OK)


def test_bug_in_a_step_is_raised() -> None:
    def look(_: DoctorContext) -> Finding:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(step("a", look))


def test_secrets_are_masked_everywhere() -> None:
    said = "Authorization: Bearer abcdef123"
    report = run(step("a", lambda _: warning(said, said, echo=said)))
    assert "abcdef123" not in str(as_json(report))


def test_each_step_depends_on_earlier_steps() -> None:
    seen: set[str] = set()
    for each in STEPS:
        assert not each.rests_on or each.rests_on in seen
        seen.add(each.id)
    assert len(seen) == len(STEPS)


def test_docs_list_the_steps() -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands/doctor.md").read_text(encoding="utf-8")
    table = page.partition("\n| step | what is tested |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" |")[0])]
    assert named == [each.id for each in STEPS]


def result(step_id: str, finding: Finding, seconds: float = 0.001, blocked_by: str = "") -> Checked:
    title = TITLES.get(step_id, step_id)
    return Checked(Check(step_id, title, lambda _: finding), finding, seconds, blocked_by=blocked_by)


TITLES = {each.id: each.description for each in STEPS}

# --- the verdict ------------------------------------------------------------------------------------------------------

BLOCKED = "something on the network path blocks websockets (proxy?)"
NEITHER = "neither websocket nor long polling reaches Socket.IO (proxy?)"
WELL = result("tcp", passed("open"))
NO_WEBSOCKET = result("websocket", warning("answered with 403", "Let it through."))
NO_LONG_POLLING = result("long_polling", warning("answered with 403", "Let it through."))
SKEW = result("clock", warning("clock skew of 1:00:00: it is behind", "Set it."))


@pytest.mark.parametrize(
    ("live", "results", "expected"),
    [
        ({"websocket": 12.4, "polling": 9.0}, [WELL], "Everything works: uploads will be live over websocket, 12 ms"),
        (
            {"websocket": 12.4},
            [NO_LONG_POLLING],
            "Uploads will be live over websocket, 12 ms, but long polling does not work (answered with 403)",
        ),
        (
            {"polling": 9.0},
            [NO_WEBSOCKET, SKEW],
            "Uploads will work, live over long polling, 9 ms instead of websocket: "
            + BLOCKED
            + "; clock skew of 1:00:00",
        ),
        (
            {},
            [NO_WEBSOCKET, NO_LONG_POLLING],
            "Uploads will work, but progress is polled: " + NEITHER,
        ),
        (
            {"websocket": 1.0},
            [SKEW, SKEW, SKEW, SKEW],
            "Uploads will be live over websocket, 1 ms, but clock skew of 1:00:00; clock skew of 1:00:00; 2 more above",
        ),
        ({}, [SKEW, result("dns", failed("no name", "Fix."))], "No upload possible: no name"),
    ],
)
def test_verdict_follows_from_the_steps(live: dict[str, float], results: list[Checked], expected: str) -> None:
    seen = context()
    seen.live = live
    assert summary_of(seen, results) == expected


# --- the page ---------------------------------------------------------------------------------------------------------

LONG = "a cause with a very long word: " + "x" * 90 + " and 中文字符 of double width, at some length"
RESULTS = [
    WELL,
    result("clock", warning(LONG, LONG, names=["a.example", "b.example"], none=None), 12.3456),
    result("tls", skipped("because it is http")),
    result("long_polling", failed("x\x1b[2Jy", "Fix it.")),
]


@pytest.mark.parametrize("width", [80, 60, 40, 20])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, verbose: bool) -> None:
    page = DoctorPage(width=width, verbose=verbose)
    report = CheckReport("http://files.invalid", tuple(RESULTS), Verdict.WARNING, LONG, Exit.OK, 2, 0.012)
    lines = page.heading("http://files.invalid")
    for shown in (*RESULTS, result("tcp", skipped(LONG), blocked_by="dns")):
        lines += page.row(shown)
    lines += page.end(report)
    if width >= 40:  # title and time stand side by side
        assert max(map(cells, lines)) <= width
    assert not any("\x1b" in line for line in lines)


PAGE = """\
uploader doctor: http://files.invalid

✓ TCP               1 ms  open
! clock        12,300 ms  clock skew of 1:00:00: it is behind
                          → Set this machine's clock by NTP, or contact the
                            server's operator.
                          names: a.example, b.example
– TLS                     because it is http
– long polling            polling failed
✗ server            1 ms  /health answers 500
                          → Fix it.

  1 API call used, 2.2 s
✗ No upload possible: 500"""
NARROW_PAGE = """\
uploader doctor: http://files.invalid

✓ TCP               1 ms
  open
! clock        12,300 ms
  clock skew of 1:00:00: it is behind
  → Set this machine's clock by NTP, or
    contact the server's operator.
  names: a.example, b.example
– TLS
  because it is http
– long polling
  polling failed
✗ server            1 ms
  /health answers 500
  → Fix it.

  1 API call used, 2.2 s
✗ No upload possible: 500"""


@pytest.mark.parametrize(("width", "expected"), [(80, PAGE), (40, NARROW_PAGE)])
def test_page_has_each_step_its_fix_and_the_verdict(width: int, expected: str) -> None:
    """What a failure blocks is one line; with -v each step has its details."""
    page = DoctorPage(width=width, verbose=True)
    hint = "Set this machine's clock by NTP, or contact the server's operator."
    steps = (
        WELL,
        result("clock", warning("clock skew of 1:00:00: it is behind", hint, names=["a.example", "b.example"]), 12.3),
        result("tls", skipped("because it is http")),
        result("long_polling", skipped("polling failed"), blocked_by="polling"),
        result("health", failed("/health answers 500", "Fix it.")),
    )
    report = CheckReport("http://files.invalid", steps, Verdict.FAIL, "No upload possible: 500", Exit.OK, 1, 2.25)
    lines = [*page.heading(report.server), *(line for shown in steps for line in page.row(shown)), *page.end(report)]
    assert "\n".join(lines) == expected


@pytest.mark.parametrize("width", [80, 40])
def test_colours_are_never_the_only_sign(width: int) -> None:
    for shown in RESULTS:
        plain, coloured = (DoctorPage(width=width, color=color).row(shown) for color in (False, True))
        assert plain[0][0] in "✓!✗–"
        assert coloured[0].startswith("\x1b[")
        assert plain != coloured
        assert ascii_signs(plain[0][:2]).isascii()


def test_what_one_failure_blocks_is_one_line() -> None:
    page = DoctorPage()
    blocked = [result(name, skipped("because TCP failed"), blocked_by="tcp") for name in ("tls", "health")]
    assert [page.row(each) for each in blocked] == [[], []]
    assert page.row(WELL)[0] == "– 2 steps                 because TCP failed: TLS, server"

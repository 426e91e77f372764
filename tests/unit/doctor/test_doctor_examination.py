"""The run of the steps: time limits, dependencies, errors, secrets; and the report."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from patience import PATIENCE

from uploader_cli import Settings, errors
from uploader_cli.checks.doctor import Context, Report, Result, Status, examination, examine
from uploader_cli.checks.doctor.examination import STEPS, Step
from uploader_cli.checks.doctor.findings import Finding, failed, fine, skipped, warning
from uploader_cli.checks.doctor.text_report import Page
from uploader_cli.checks.doctor.verdict import sentence
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import cells


def context() -> Context:
    return Context(Settings(server="http://files.invalid"))


def run(monkeypatch: pytest.MonkeyPatch, *steps: Step) -> Report:
    monkeypatch.setattr(examination, "STEPS", steps)
    return examine(context())


def test_hanging_step_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next ones are taken."""
    over = threading.Event()
    monkeypatch.setattr(examination, "STEP_LIMIT", 1.0)
    hanging = Step("load", "server load", lambda _: fine("late") if over.wait(PATIENCE) else fine("later"))
    report = run(monkeypatch, hanging, Step("next", "next", lambda _: fine("seen")))
    over.set()
    assert [result.status for result in report.steps] == [Status.WARNING, Status.OK]
    assert report.ok


@pytest.mark.parametrize(
    ("name", "cause", "code"),
    [("dns", "the lookup of files.invalid took", Exit.NO_SERVER), ("settings", "the token command took", Exit.USAGE)],
)
def test_hanging_step_is_named(name: str, cause: str, code: Exit, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(examination, "STEP_LIMIT", 0.05)
    report = run(monkeypatch, Step(name, name, lambda _: fine("late") if over.wait(PATIENCE) else fine(""), vital=True))
    over.set()
    assert cause in report.verdict
    assert report.exit_code is code


def test_the_whole_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that were not made are not reported as passed."""
    monkeypatch.setattr(examination, "RUN_LIMIT", 0.0)
    report = run(monkeypatch, Step("disk", "state dir", lambda _: fine("never asked")))
    assert report.steps[0].status is Status.WARNING
    assert "have passed" in report.verdict


def test_steps_that_depend_on_a_failed_one_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not indirectly; what rests on nothing is looked at."""
    taken: list[str] = []

    def look(name: str, finding: Finding) -> Step:
        rests = {"b": "a", "c": "b", "d": None}.get(name)
        return Step(name, name.upper(), lambda _: taken.append(name) or finding, rests)  # type: ignore[func-returns-value]

    steps = [look("a", failed("broken", "Mend it.")), look("b", fine("")), look("c", fine("")), look("d", fine("well"))]
    report = run(monkeypatch, *steps)
    assert taken == ["a", "d"]
    assert [result.blocked_by for result in report.steps] == ["", "A", "A", ""]
    assert report.steps[2].finding.cause == "because A failed"
    assert report.exit_code is Exit.NO_SERVER


def test_a_skipped_step_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(
        monkeypatch, Step("a", "A", lambda _: skipped("by choice")), Step("b", "B", lambda _: fine("well"), "a")
    )
    assert [result.status for result in report.steps] == [Status.SKIPPED, Status.OK]


@pytest.mark.parametrize(("vital", "status"), [(True, Status.FAILED), (False, Status.WARNING)])
def test_error_of_a_step_is_a_finding(vital: bool, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_: Context) -> Finding:
        raise errors.ConnectFailed("no connection to x", hint="is it running?")

    report = run(monkeypatch, Step("a", "A", look, vital=vital))
    found = report.steps[0].finding
    assert (found.status, found.cause, found.remedy) == (status, "no connection to x", "Is it running?")
    assert report.exit_code is (Exit.NO_SERVER if vital else Exit.OK)


def test_bug_in_a_step_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_: Context) -> Finding:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, Step("a", "A", look))


def test_secrets_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Authorization: Bearer abcdef123"
    report = run(monkeypatch, Step("a", "A", lambda _: warning(said, said, echo=said)))
    assert "abcdef123" not in str(report.as_json())


def test_each_step_depends_on_earlier_steps() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert step.rests_on is None or step.rests_on in seen
        seen.add(step.id)
    assert len(seen) == len(STEPS)


def test_docs_list_the_steps() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("\n| step | what is checked |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" |")[0])]
    assert named == [step.id for step in STEPS]


# --- the verdict ------------------------------------------------------------------------------------------------------

BLOCKED = "something on the network path blocks websockets (proxy?)"
NEITHER = "neither websocket nor long polling reaches Socket.IO (proxy?)"
WELL = Result("tcp", "TCP", 1.0, fine("open"))
NO_WEBSOCKET = Result("websocket", "websocket", 1.0, warning("answered with 403", "Let it through."))
NO_LONG_POLLING = Result("long_polling", "long polling", 1.0, warning("answered with 403", "Let it through."))
SKEW = Result("clock", "clock", 1.0, warning("clock skew of 1:00:00: it is behind", "Set it."))


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
        ({}, [SKEW, Result("dns", "DNS", 1.0, failed("no name", "Fix."))], "No upload possible: no name"),
    ],
)
def test_the_verdict(live: dict[str, float], results: list[Result], expected: str) -> None:
    seen = context()
    seen.live = live
    assert sentence(seen, results) == expected


# --- the page ---------------------------------------------------------------------------------------------------------

LONG = "a cause with a very long word: " + "x" * 90 + " and 中文字符 of double width, told at some length"
RESULTS = [
    WELL,
    Result("clock", "clock", 12_345.6, warning(LONG, LONG, names=["a.example", "b.example"], none=None)),
    Result("tls", "TLS", 0.0, skipped("because it is http")),
    Result("dns", "long polling", 1.0, failed("x\x1b[2Jy", "Mend it.")),
]


@pytest.mark.parametrize("width", [80, 60, 40, 20])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, verbose: bool) -> None:
    page = Page(width=width, verbose=verbose)
    report = Report("http://files.invalid", tuple(RESULTS), LONG, Exit.OK, 2, 12.0)
    lines = [*page.heading("http://files.invalid"), *page.verdict(report), *page.blocked(RESULTS)]
    lines += [line for result in RESULTS for line in page.step(result)]
    if width >= 40:  # title and time stand side by side
        assert max(map(cells, lines)) <= width
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("width", [80, 40])
def test_colours_are_never_the_only_sign(width: int) -> None:
    for result in RESULTS:
        plain, coloured = (Page(width=width, color=color).step(result) for color in (False, True))
        assert plain[0][0] in "✓!✗–"
        assert coloured[0].startswith("\x1b[")
        assert plain != coloured
    assert Page(glyphs=False).step(RESULTS[3])[0].startswith("x long polling")
    assert all(line.isascii() for line in Page(glyphs=False).step(RESULTS[3]))


def test_what_one_failure_blocks_is_one_line() -> None:
    blocked = [Result(name, name, 0.0, skipped("because TCP failed"), blocked_by="TCP") for name in ("a", "b")]
    assert Page().blocked(blocked) == ["– 2 steps                 because TCP failed: a, b"]

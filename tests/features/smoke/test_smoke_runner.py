"""The run of the checks without a server: dependencies, and what an interrupt skips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from uploader_cli import Settings
from uploader_cli.errors import ConnectFailed
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import (
    Check,
    CheckReport,
    Finding,
    NotOffered,
    OutOfCalls,
    Prevented,
    Stopped,
    Verdict,
    Violation,
    skipped,
    warning,
)
from uploader_cli.features.smoke.runner import run_checks
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.smoke_report import check_json

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN = Violation("it", expected="this", got="that")


def check(check_id: str, ends: BaseException | Finding | str = "a note", **more: Any) -> Check:
    def look(site: Site) -> Finding | str:
        site.answered = site.speaks = True
        if isinstance(ends, BaseException):
            raise ends
        return ends

    return Check(check_id, "it holds", look, "it matters", **more)


def made(*checks: Check, prepare: Callable[[Site], object] = lambda _site: None) -> CheckReport:
    site = Site(Settings(server="http://127.0.0.1:9"))
    prepare(site)
    return run_checks(site, checks)


def verdicts(*checks: Check) -> dict[str, str]:
    return {found.id: str(found.verdict) for found in made(*checks).results}


@pytest.mark.parametrize(
    ("ends", "verdict", "message"),
    [
        ("a note", Verdict.PASS, "a note"),
        (BROKEN, Verdict.FAIL, "it"),
        (warning("odd", ""), Verdict.WARNING, "odd"),
        (NotOffered("none"), Verdict.NOT_OFFERED, "none"),
        (skipped("no use"), Verdict.SKIPPED, "no use"),
        (Prevented("no way", "another"), Verdict.ERROR, "no way"),
        (ConnectFailed("gone", hint="look"), Verdict.ERROR, "gone"),
    ],
)
def test_each_end_of_a_check_is_a_verdict(ends: Exception | Finding | str, verdict: Verdict, message: str) -> None:
    (found,) = made(check("one", ends)).results
    assert (found.verdict, found.finding.message) == (verdict, message)
    assert found.finding.hint == getattr(ends, "hint", "")
    assert bool(check_json(found)["means"]) == (verdict in (Verdict.FAIL, Verdict.ERROR))


def test_failed_check_skips_only_its_dependents() -> None:
    assert verdicts(
        check("one", BROKEN),
        check("two", BROKEN, rests_on="one"),
        check("three", Prevented("no two", "two")),
        check("four", rests_on="one"),
        check("five", BROKEN),
    ) == {"one": "fail", "two": "skipped", "three": "skipped", "four": "pass", "five": "fail"}


def test_optional_check_skips_no_required_one() -> None:
    """Otherwise a run could end well although a required check does not hold."""
    report = made(check("one", BROKEN, required=False), check("two", Prevented("no one", "one")))
    assert [found.verdict for found in report.results] == [Verdict.FAIL, Verdict.ERROR]
    assert not report.ok


def test_skipped_check_explains_skipped_dependents() -> None:
    assert verdicts(check("one", OutOfCalls("no calls")), check("two", Prevented("no one", "one"))) == {
        "one": "not_run",
        "two": "not_run",
    }


def test_an_interruption_ends_the_checks_but_not_the_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Site] = []
    monkeypatch.setattr(Site, "sweep", lambda site: swept.append(site))
    report = made(check("one"), check("two", Stopped(Exit.SIGTERM)), check("three"))
    assert [found.verdict for found in report.results] == [Verdict.PASS, Verdict.NOT_RUN, Verdict.NOT_RUN]
    assert (report.exit_code, len(swept)) == (Exit.SIGTERM, 1)


def test_a_second_interruption_ends_the_cleaning_and_names_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(_: Site) -> None:
        raise Stopped(Exit.SIGINT)

    def prepare(site: Site) -> None:
        site.sessions.add("a-session")
        site.files["an-id"] = "/uploads/a.mp4"

    monkeypatch.setattr(Site, "sweep", sweep)
    report = made(check("one", Stopped(Exit.SIGINT)), prepare=prepare)
    assert report.exit_code is Exit.SIGINT
    assert report.left == ("/uploads/a.mp4 (file an-id): interrupted", "a-session: interrupted")


def test_a_bug_is_not_hidden_and_what_was_made_is_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Site] = []
    monkeypatch.setattr(Site, "sweep", lambda site: swept.append(site))
    with pytest.raises(ZeroDivisionError):
        made(check("one", ZeroDivisionError()))
    assert len(swept) == 1

"""Run the checks in order, time each, and delete what they created at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.cleanup import sweep
from uploader_cli.checks.smoke.verdicts import (
    Doubtful,
    Needless,
    NotOffered,
    OutOfCalls,
    Prevented,
    Report,
    Result,
    Verdict,
    Violation,
    exit_of,
)
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.checks.smoke.checks import Check
    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.exit_status import Exit

BROKEN = (Verdict.FAIL, Verdict.ERROR)


class Stopped(BaseException):
    """A signal asked to stop; `code` is the exit code. Raised in the main thread."""

    def __init__(self, code: Exit) -> None:
        super().__init__()
        self.code = code


def run_checks(
    site: Site,
    checks: Sequence[Check],
    *,
    strict: bool = False,
    begin: Callable[[Check], None] = lambda _check: None,
    tell: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Run all checks; `begin` gets each before, `tell` its result after. Closes the site.

    `Stopped` ends the checks, but not the clean-up; a second one ends that, too.
    """
    began = time.perf_counter()
    results: list[Result] = []
    stopped: Exit | None = None
    try:
        for check in checks:
            begin(check)
            results.append(_shown(_made(site, check, results)))
            tell(results[-1])
    except Stopped as stop:
        stopped = stop.code
    finally:
        stopped = _end(site) or stopped
    for check in checks[len(results) :]:
        results.append(_result(check, Verdict.NOT_RUN, "interrupted"))
        tell(results[-1])
    code = exit_of(results, strict=strict, speaks=not site.silent, refused=site.shut_out)
    return Report(
        server=site.settings.server,
        results=tuple(results),
        exit_code=code if stopped is None else stopped,
        strict=strict,
        calls=site.calls,
        budget=site.budget,
        seconds=time.perf_counter() - began,
        left=tuple(map(mask, site.made.remains)),
    )


def _end(site: Site) -> Exit | None:
    """Clean up; return the exit code if that was stopped."""
    try:
        sweep(site)
    except Stopped as stop:
        made = site.made
        made.left += [f"{thing}: interrupted" for thing in (*map(str, made.files), *made.sessions, *made.uploads)]
        return stop.code
    finally:
        site.close()
    return None


def _made(site: Site, check: Check, before: Sequence[Result]) -> Result:
    """Run one check, unless earlier results make it pointless."""
    culprit = _hopeless(site, before)
    if culprit:
        return _blocked(check, culprit)
    calls, began = site.calls, time.perf_counter()
    result = _verdict(site, check, before)
    site.gone = result.verdict is Verdict.ERROR and site.answered and not site.answers()
    culprit = _culprit(check, (check.rests_on,), before) if result.verdict in BROKEN else ""
    if culprit:
        result = _blocked(check, culprit)
    return replace(result, seconds=time.perf_counter() - began, calls=site.calls - calls)


def _hopeless(site: Site, before: Sequence[Result]) -> str:
    """Return the check whose failure makes all others pointless: no response, no longer one, or no access."""
    if site.gone:
        return next(result.id for result in reversed(before) if result.verdict is Verdict.ERROR)
    broken = next((result.id for result in before if result.verdict in BROKEN), "")
    return broken if site.shut_out or not site.answered else ""


def _verdict(site: Site, check: Check, before: Sequence[Result]) -> Result:
    try:
        return _result(check, Verdict.PASS, check.look(site))
    except NotOffered as words:
        return _result(check, Verdict.NOT_OFFERED, str(words))
    except Needless as words:
        return _result(check, Verdict.SKIPPED, str(words))
    except Doubtful as words:
        return _result(check, Verdict.WARNING, str(words))
    except Violation as violation:
        return _failed(check, violation)
    except Prevented as prevented:
        return _prevented(check, prevented, before)
    except (OutOfCalls, errors.RateLimited):
        return _result(check, Verdict.NOT_RUN, _no_calls(site))
    except errors.UploaderError as error:
        return replace(_result(check, Verdict.ERROR, str(error), means=check.means), hint=error.hint)


def _failed(check: Check, violation: Violation) -> Result:
    return replace(
        _result(check, Verdict.FAIL, str(violation), means=check.means),
        expected=violation.expected,
        got=violation.got,
        corrupt=violation.corrupt,
    )


def _prevented(check: Check, prevented: Prevented, before: Sequence[Result]) -> Result:
    culprit = _culprit(check, prevented.by, before)
    if culprit:
        return _blocked(check, culprit)
    if isinstance(prevented.__cause__, Violation):
        return _failed(check, prevented.__cause__)
    if any(result.verdict is Verdict.NOT_RUN and result.id in prevented.by for result in before):
        return _result(check, Verdict.NOT_RUN, str(prevented))
    return _result(check, Verdict.ERROR, str(prevented), means=check.means)


def _culprit(check: Check, ids: Sequence[str], before: Sequence[Result]) -> str:
    """Return the first of these checks that failed, or that blocked one of them; else an empty string.

    A check that is not required does not excuse one that is.
    """
    failed = (found for found in before if found.verdict in BROKEN or found.blocked_by)
    known = {found.id: found.blocked_by or found.id for found in failed if found.required or not check.required}
    return next((known[name] for name in ids if name in known), "")


def _blocked(check: Check, culprit: str) -> Result:
    return _result(check, Verdict.SKIPPED, f"{culprit} failed", blocked_by=culprit)


def _no_calls(site: Site) -> str:
    if site.limited:
        wait = "" if site.retry_after is None else f"; again in {site.retry_after:,.0f} s"
        return f"the server's rate limit is used up (429){wait}"
    if site.left < site.budget - site.calls:
        return "the server's rate limit leaves calls only for the clean-up"
    return f"the budget of {site.budget} calls is used up, except for the clean-up"


def _result(check: Check, verdict: Verdict, message: str, *, means: str = "", blocked_by: str = "") -> Result:
    return Result(check.id, check.description, check.required, verdict, message, means=means, blocked_by=blocked_by)


def _shown(result: Result) -> Result:
    """Mask secrets, since responses and URLs are quoted."""
    return replace(result, message=mask(result.message), expected=mask(result.expected), got=mask(result.got))

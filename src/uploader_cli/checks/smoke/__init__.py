"""Black-box checks of an upload server against docs/protocol.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial

from uploader_cli import errors
from uploader_cli.checks.check import (
    BROKEN,
    Check,
    Checked,
    CheckReport,
    Ended,
    Finding,
    Prevented,
    Stopped,
    Verdict,
    checks_of,
    run,
)
from uploader_cli.checks.smoke import basics, bulk, refusals, resumable, watching
from uploader_cli.checks.smoke.site import Site
from uploader_cli.checks.smoke.smoke_report import exit_of, sentence
from uploader_cli.exit_status import Exit
from uploader_cli.settings import mask

CHECKS = checks_of(basics, watching, resumable, bulk, refusals)  # ordered so that a failure explains the following ones
OF_ENDPOINTS = (*checks_of(resumable), refusals.body_limit, refusals.clean_up)
"""The checks of a tus endpoint, which has no sessions."""


def chosen(only: Sequence[str] = (), skip: Sequence[str] = (), among: Sequence[Check] = CHECKS) -> tuple[Check, ...]:
    """Return the checks of `among` that match one of `only` (empty: all) and none of `skip`; both are IDs or globs.

    Raises `UsageError` for a pattern without a match, and if no check is left.
    """
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not _matching([pattern], among):
                ids = ", ".join(check.id for check in among)
                raise errors.UsageError(f"{option}: no check matches {pattern!r}", hint=f"the checks are {ids}")
    unwanted = _matching(skip, among)
    found = tuple(check for check in _matching(only or ["*"], among) if check not in unwanted)
    if not found:
        raise errors.UsageError("--skip excludes all checks of --only", hint="omit one of them")
    return found


def _matching(patterns: Sequence[str], among: Sequence[Check]) -> list[Check]:
    return [check for check in among if any(fnmatchcase(check.id, pattern) for pattern in patterns)]


def run_checks(
    site: Site,
    checks: Sequence[Check],
    *,
    strict: bool = False,
    begin: Callable[[Check], None] = lambda _check: None,
    tell: Callable[[Checked], None] = lambda _result: None,
) -> CheckReport:
    """Run all checks, as `check.run` does; `begin` gets each before, `tell` its result after. Closes the site."""
    began = time.perf_counter()
    make = partial(_result, site)
    results, stopped = run(site, checks, make, clean_up=partial(_clean_up, site), begin=begin, tell=tell)
    for check in checks[len(results) :]:
        results.append(Checked(check, Finding(Verdict.NOT_RUN, "interrupted", exit=Exit.RETRY_MAY_HELP)))
        tell(results[-1])
    speaks = site.answered and (site.speaks or not site.calls)
    code = stopped or exit_of(results, strict=strict, speaks=speaks, refused=site.shut_out)
    verdict, summary = Verdict.FAIL if code else Verdict.PASS, sentence(results, code, strict=strict)
    left = tuple(map(mask, (*site.undeleted, *site.unowned)))
    server, took = site.settings.target_url, time.perf_counter() - began
    return CheckReport(server, tuple(results), verdict, summary, code, site.calls, took, strict, site.budget, left)


def _clean_up(site: Site) -> None:
    try:
        site.sweep()
    except Stopped:
        site.note_interrupted()
        raise


def _result(site: Site, check: Check, before: Sequence[Checked]) -> Checked:
    """Run one check, unless earlier results make it pointless."""
    if site.gone:
        return _blocked(check, next(result.id for result in reversed(before) if result.verdict is Verdict.ERROR))
    broken = next((result.id for result in before if result.verdict in BROKEN), "")
    if broken and (site.shut_out or not site.answered):
        return _blocked(check, broken)
    result = _look(site, check, before)
    site.gone = result.verdict is Verdict.ERROR and site.answered and not site.answers()
    culprit = _culprit(check, (check.rests_on,), before) if result.verdict in BROKEN else ""
    return _blocked(check, culprit) if culprit else result


def _look(site: Site, check: Check, before: Sequence[Checked]) -> Checked:
    try:
        found = check.look(site)
    except Prevented as prevented:
        found = prevented.finding
        culprit = _culprit(check, prevented.by, before)
        if culprit:
            return _blocked(check, culprit)
        not_run = any(result.verdict is Verdict.NOT_RUN and result.id in prevented.by for result in before)
        if not_run and found.verdict is Verdict.ERROR:
            found = Finding(Verdict.NOT_RUN, found.message, exit=found.exit)
    except Ended as ended:
        found = ended.finding
    except errors.RateLimited:
        found = Finding(Verdict.NOT_RUN, site.no_calls(), exit=Exit.RETRY_MAY_HELP)
    except errors.UploaderError as error:
        found = Finding(Verdict.ERROR, str(error), error.hint, Exit.RETRY_MAY_HELP)
    return Checked(check, found if isinstance(found, Finding) else Finding(Verdict.PASS, found or ""))


def _culprit(check: Check, ids: Sequence[str], before: Sequence[Checked]) -> str:
    """Return the first of these checks that failed, or that blocked one of them; else an empty string.

    A check that is not required does not excuse one that is.
    """
    failed = (found for found in before if found.verdict in BROKEN or found.blocked_by)
    known = {found.id: found.blocked_by or found.id for found in failed if found.check.required or not check.required}
    return next((known[name] for name in ids if name in known), "")


def _blocked(check: Check, culprit: str) -> Checked:
    return Checked(check, Finding(Verdict.SKIPPED, f"{culprit} failed"), blocked_by=culprit)

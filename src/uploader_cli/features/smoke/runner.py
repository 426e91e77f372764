"""Black-box checks of an upload server against docs/protocol.md."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from uploader_cli import errors
from uploader_cli.core.masking import mask
from uploader_cli.core.names import json_line
from uploader_cli.exit_status import Exit
from uploader_cli.feature import JobPage, brought, job_page
from uploader_cli.features.checks.check import (
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
    counts,
    run,
)
from uploader_cli.features.checks.junit import junit
from uploader_cli.features.smoke import basics, bulk, limits, resumable, watching
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.smoke_report import (
    SmokePage,
    annotation,
    check_json,
    exit_of,
    markdown,
    report_json,
    sentence,
)
from uploader_cli.named_files import check_output
from uploader_cli.report import output_file
from uploader_cli.report.recorder import Notices
from uploader_cli.report.run_files import settled
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.settings import Settings

CHECKS = checks_of(basics, watching, resumable, bulk, limits)  # ordered so that a failure explains the following ones
ON_REQUEST = checks_of(*brought("smoke"))
"""The checks of modules that other features bring. They run only if `--only` names them."""
OF_ENDPOINTS = (*checks_of(resumable), limits.body_limit, limits.clean_up)
"""The checks of a tus endpoint, which has no sessions."""


def list_checks() -> int:
    """Print the IDs and descriptions of all checks, for `--only` and `--skip`."""
    every = (*CHECKS, *ON_REQUEST)
    longest = max(len(check.id) for check in every)
    for check in every:
        optional = "" if check.required else " (not required)"
        optional += " (only with --only)" if check in ON_REQUEST else ""
        sys.stdout.write(f"{check.id:<{longest}}  {check.description}{optional}\n")
    return Exit.OK


def smoke(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    file: Path | None = None,
    strict: bool = False,
    budget: int,
) -> int:
    """Run the checks; the exit code says whether the server passed. Raises `UsageError` before the first request."""
    checks = chosen(only, skip, OF_ENDPOINTS if settings.tus_endpoint else CHECKS)
    if file is not None:
        check_output(file, "--junit")
    site = Site(settings, budget=budget)
    leaves = "" if site.may_delete or settings.tus_endpoint else f"{site.names}*"
    page = None if settings.json else SmokePage.begun(settings, strict=strict, leaves=leaves)
    job = job_page(os.environ)
    annotations = job.most if job is not None else 0

    def tell(result: Checked) -> None:
        """Print a result once: a failure as an annotation, if there is one; `--json` prints all on stdout."""
        nonlocal annotations
        if page is None:
            _write(check_json(result))
        if job is not None and annotations and counts(result, strict=strict):
            annotations -= 1
            sys.stderr.write(annotation(job, result))
            sys.stderr.flush()
        elif page is not None:
            page.tell(result)

    try:
        interrupts = Interrupts(error=Stopped)
        with interruptible(interrupts), interrupts.raising():
            begin = page.begin if page is not None else lambda _check: None
            report = run_checks(site, checks, strict=strict, begin=begin, tell=tell)
            if page is None:
                _write(report_json(report))
            else:
                page.print(page.end(report))
            return settled(report.exit_code, [_save(file, job, report)])
    except Stopped as stop:  # a signal after the last check
        return stop.code


def _save(file: Path | None, job: JobPage | None, report: CheckReport) -> Notices:
    """Write the JUnit file and the summary of the job; record failures in the result."""
    notices = Notices()
    if file is not None:
        known = {name: getattr(report, name) for name in ("server", "calls", "budget")}
        try:
            output_file.write(file, junit(report, "smoke", datetime.now(UTC), known), secrets.token_hex(4))
        except OSError as error:
            notices.problems.append(f"--junit: {file} can't be written: {error.strerror}")
    if job is not None and (note := job.summarize(markdown(report))):
        notices.notes.append(note)
    return notices


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json_line(line))
    sys.stdout.flush()


def chosen(only: Sequence[str] = (), skip: Sequence[str] = (), among: Sequence[Check] = CHECKS) -> tuple[Check, ...]:
    """Return the checks of `among` that match one of `only` (empty: all) and none of `skip`; both are IDs or globs.

    Those of `ON_REQUEST` run only if an ID or glob of `only` that is not `*` matches them, before the clean-up.
    Raises `UsageError` for a pattern without a match, and if no check is left.
    """
    requested = _matching([pattern for pattern in only if pattern != "*"], ON_REQUEST)
    among = sorted((*among, *requested), key=lambda check: check is limits.clean_up)
    known = (*among, *(check for check in ON_REQUEST if check not in requested))
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not _matching([pattern], known):
                ids = ", ".join(check.id for check in known)
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
    left, notes = tuple(map(mask, (*site.undeleted, *site.unowned))), tuple(map(mask, site.notes))
    server, took, found = site.settings.target_url, time.perf_counter() - began, tuple(results)
    return CheckReport(server, found, verdict, summary, code, site.calls, took, strict, site.budget, left, notes)


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

"""Diagnose the connection to a server step by step: what works, what fails, why, and how to fix it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from uploader_cli import errors
from uploader_cli.core.masking import mask
from uploader_cli.core.names import json_line
from uploader_cli.exit_status import Exit, of_error, worst
from uploader_cli.features.checks.check import (
    Check,
    Checked,
    CheckReport,
    Ended,
    Finding,
    Verdict,
    checks_of,
    failed,
    run,
    sentence,
    skipped,
    warning,
)
from uploader_cli.features.doctor import disk, network, server, transports, tus_headers, uploads
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.doctor_report import DoctorPage, as_json, summary_of
from uploader_cli.settings import Settings

STEPS = checks_of(
    network, server, uploads, tus_headers, transports, disk
)  # ordered so that a failure explains the following ones
ENDPOINT_STEPS = (
    *checks_of(network),
    replace(uploads.tus, rests_on="tls"),
    uploads.body_limit,
    *checks_of(tus_headers, disk),
)
"""The steps for a tus endpoint: it has no sessions."""
STEP_LIMIT = 5.0  # maximum seconds for a step
RUN_LIMIT = 25.0  # seconds after which no further step is started; the clean-up may take `STEP_LIMIT` more


def doctor(
    settings: Settings, *, session: str | None = None, new_session: bool = False, new_upload: bool = False
) -> int:
    """Diagnose the connection to the server; the exit code says whether uploads will work."""
    context = DoctorContext(settings, session=session, new_session=new_session, new_upload=new_upload)
    if settings.json:
        report = examine(context)
        sys.stdout.write(json_line(as_json(report)))
        return report.exit_code
    page = DoctorPage.begun(settings)
    report = examine(context, begin=page.begin, tell=page.tell)
    page.print(page.end(report))
    return report.exit_code


def examine(
    context: DoctorContext,
    steps: Sequence[Check] = (),
    *,
    begin: Callable[[Check], None] = lambda _step: None,
    tell: Callable[[Checked], None] = lambda _result: None,
) -> CheckReport:
    """Run `steps` (default: all); `begin` gets each before, `tell` its result after. Closes the context."""
    steps = steps or (ENDPOINT_STEPS if context.settings.tus_endpoint else STEPS)
    began = time.perf_counter()
    make = partial(_result, context, began + RUN_LIMIT)
    results, _ = run(context, steps, make, clean_up=partial(_clean_up, context), begin=begin, tell=tell)
    code = worst(result.finding.exit for result in results)
    warned = any(result.verdict is Verdict.WARNING for result in results)
    verdict = Verdict.FAIL if code is not Exit.OK else Verdict.WARNING if warned else Verdict.PASS
    summary, took = mask(summary_of(context, results)), time.perf_counter() - began
    return CheckReport(context.settings.target_url, tuple(results), verdict, summary, code, context.calls, took)


def _result(context: DoctorContext, until: float, step: Check, before: Sequence[Checked]) -> Checked:
    """Run one step, unless one that it depends on failed."""
    for found in before:
        if found.id == step.rests_on and found.blocked_by:
            return Checked(step, found.finding, blocked_by=found.blocked_by)
        if found.id == step.rests_on and found.verdict is Verdict.FAIL:
            return Checked(step, skipped(f"because {found.check.description} failed"), blocked_by=found.id)
    context.used_up = context.limited is not None
    return Checked(step, _found(context, step, min(STEP_LIMIT, until - time.perf_counter())))


def _found(context: DoctorContext, step: Check, limit: float) -> Finding:
    """Run one step in a thread: a name lookup, for example, has no time limit."""
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(step.look(context))
        except Ended as ended:
            found.append(ended.finding)
        except errors.UploaderError as error:
            found.append(_of_error(step, error))
        except BaseException as bug:  # noqa: BLE001 - raised again below
            found.append(bug)

    if limit > 0:
        _in_thread(look, limit)
    if not found:
        context.shut()
        return _late(context, step, limit)
    if isinstance(found[0], BaseException):
        raise found[0]
    return cast("Finding", found[0])


def _late(context: DoctorContext, step: Check, limit: float) -> Finding:
    if step.id == "dns":
        return failed(f"the lookup of {context.next_hop.host} took longer than {limit:.0f} s", network.ASK_DNS)
    if step.id == "settings":
        hint = "Run it yourself to see what it waits for."
        return failed(f"the token command took longer than {limit:.0f} s", hint, exit=Exit.USAGE)
    cause = f"no result within {limit:.0f} s" if limit > 0 else f"the {RUN_LIMIT:.0f} s for all steps have passed"
    if step.required:
        return failed(cause, "Try again; if it persists, contact the operator of the server or the proxy.")
    return warning(cause, "Try again; if it persists, contact the server's operator.")


def _of_error(step: Check, error: errors.UploaderError) -> Finding:
    """Return the finding for an error that the step did not handle."""
    if step.required:
        return failed(str(error), sentence(error.hint), exit=of_error(error))
    return warning(str(error), sentence(error.hint))


def _clean_up(context: DoctorContext) -> None:
    """Cancel the session that was created here."""

    def cancel() -> None:
        with contextlib.suppress(errors.UploaderError):
            context.call("POST", f"/api/upload/cancel/{context.opened}")

    if context.opened is not None and context.limited is None:
        _in_thread(cancel, STEP_LIMIT)


def _in_thread(work: Callable[[], None], limit: float) -> None:
    thread = threading.Thread(target=work, name="doctor-step", daemon=True)
    thread.start()
    thread.join(limit)

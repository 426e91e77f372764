"""The table of steps, and how they run: in order, timed and bounded, none after a failed one that it depends on."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.doctor import configuration, disk, live, network, server, sessions, tls
from uploader_cli.checks.doctor.context import STEP_LIMIT
from uploader_cli.checks.doctor.findings import Finding, Report, Result, Status, failed, skipped, warning
from uploader_cli.checks.doctor.verdict import sentence
from uploader_cli.exit_status import Exit, of_error, worst
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.checks.doctor.context import Context

RUN_LIMIT = 25.0
"""Seconds after which no further step is started; the clean-up may take `STEP_LIMIT` more."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `rests_on` is a step that it depends on; `vital` steps are required for uploads."""

    id: str
    title: str
    look: Callable[[Context], Finding]
    rests_on: str | None = None
    vital: bool = False


STEPS = (
    Step("settings", "settings", configuration.settings, vital=True),
    Step("proxy", "proxy", configuration.proxy),
    Step("dns", "DNS", network.dns, vital=True),
    Step("tcp", "TCP", network.tcp, "dns", vital=True),
    Step("tls", "TLS", tls.tls, "tcp", vital=True),
    Step("health", "server", server.health, "tls", vital=True),
    Step("load", "server load", server.load, "health"),
    Step("clock", "clock", server.clock, "health"),
    Step("session", "session", sessions.session, "health"),
    Step("polling", "HTTP polling", sessions.polling, "session", vital=True),
    Step("token", "token", sessions.token, "polling"),
    Step("rate_limit", "rate limit", sessions.rate_limit, "health"),
    Step("websocket", "websocket", live.websocket, "polling"),
    Step("long_polling", "long polling", live.long_polling, "polling"),
    Step("disk", "state dir", disk.disk),
)
"""Ordered so that a failure explains the following ones."""


def examine(
    context: Context,
    *,
    begin: Callable[[str], None] = lambda _title: None,
    tell: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Run all steps; `begin` gets the title of each before, `tell` its result after. Closes the context."""
    began = time.perf_counter()
    results: list[Result] = []
    broken: dict[str, str] = {}  # ID of a failed or skipped step → title of the failed one
    try:
        for step in STEPS:
            begin(step.title)
            left = RUN_LIMIT - (time.perf_counter() - began)
            if step.rests_on in broken:
                title = broken[step.id] = broken[step.rests_on]
                result = Result(step.id, step.title, 0.0, skipped(f"because {title} failed"), blocked_by=title)
            else:
                result = _take(step, context, max(0.0, min(STEP_LIMIT, left)))
            if result.status is Status.FAILED:
                broken[step.id] = step.title
            results.append(result)
            tell(result)
    finally:
        _clean_up(context)
    code = worst(result.finding.exit for result in results)
    took = (time.perf_counter() - began) * 1000
    verdict = mask(sentence(context, results))
    return Report(context.settings.server, tuple(results), verdict, code, context.calls, took)


def _clean_up(context: Context) -> None:
    thread = threading.Thread(target=sessions.clean_up, args=(context,), name="doctor-end", daemon=True)
    thread.start()
    thread.join(STEP_LIMIT)
    context.close()


def _take(step: Step, context: Context, limit: float) -> Result:
    """Run one step in a thread: a name lookup, for example, has no time limit."""
    found: list[Finding | BaseException] = []

    def look() -> None:
        try:
            found.append(step.look(context))
        except BaseException as error:  # noqa: BLE001 - raised again below, where it is a bug
            found.append(error)

    thread = threading.Thread(target=look, name=f"doctor-{step.id}", daemon=True)
    began = time.perf_counter()
    if limit > 0:
        thread.start()
        thread.join(limit)
    took = (time.perf_counter() - began) * 1000
    outcome = found[0] if found else _late(step, context, limit)
    if isinstance(outcome, errors.UploaderError):
        outcome = _of_error(step, outcome)
    if isinstance(outcome, BaseException):
        raise outcome
    return Result(step.id, step.title, took, _shown(outcome))


def _late(step: Step, context: Context, limit: float) -> Finding:
    context.http.shut()
    cause = f"no result within {limit:.0f} s" if limit else f"the {RUN_LIMIT:.0f} s for all steps have passed"
    if step.id == "dns":
        return failed(f"the lookup of {context.next_hop.host} took longer than {limit:.0f} s", network.ASK_DNS)
    if step.id == "settings":
        return failed(
            f"the token command took longer than {limit:.0f} s", "Run it yourself to see what it waits for.", Exit.USAGE
        )
    if step.vital:
        return failed(cause, "Try again; if it persists, contact the operator of the server or the proxy.")
    return warning(cause, "Try again; if it persists, contact the server's operator.")


def _of_error(step: Step, error: errors.UploaderError) -> Finding:
    """Return the finding for an error that the step did not handle."""
    hint = error.hint or "try again"
    remedy = hint[0].upper() + hint[1:] + ("" if hint.endswith(("?", ".")) else ".")
    return failed(str(error), remedy, of_error(error)) if step.vital else warning(str(error), remedy)


def _shown(finding: Finding) -> Finding:
    """Mask secrets, since causes quote responses and URLs."""
    details = {key: mask(value) if isinstance(value, str) else value for key, value in finding.details.items()}
    return replace(finding, cause=mask(finding.cause), remedy=mask(finding.remedy), details=details)

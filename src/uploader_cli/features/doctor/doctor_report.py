"""The report of a diagnosis: one sentence, text, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uploader_cli.features.checks.check import Check, Checked, CheckReport, Finding, Verdict
from uploader_cli.features.checks.page import Page
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.transports import FULL, NO_SOCKET_IO
from uploader_cli.render.words import plural, safe, wrap

STATUS = {Verdict.PASS: "ok", Verdict.WARNING: "warning", Verdict.FAIL: "failed", Verdict.SKIPPED: "skipped"}
MOST_CAUSES = 2  # maximum causes listed
_LIVE = ("websocket", "long_polling")
_TITLE, _TIME = 13, 9  # cells of the longest title and a space, and of a time


def as_json(report: CheckReport) -> dict[str, object]:
    return {
        "server": report.server,
        "ok": report.ok,
        "verdict": report.summary,
        "exit_code": int(report.exit_code),
        "api_calls": report.calls,
        "ms": round(report.seconds * 1000, 1),
        "steps": [
            {
                "id": result.id,
                "title": result.check.description,
                "status": STATUS[result.verdict],
                "ms": round(result.seconds * 1000, 1),
                "cause": result.finding.message,
                "remedy": result.finding.hint,
                "details": dict(result.finding.details),
            }
            for result in report.results
        ],
    }


class DoctorPage(Page):
    """Each step with its time, cause and fix; one line for all steps that a failure blocks."""

    command, narrow = "doctor", 60

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._blocked: list[Checked] = []

    def running(self, step: Check) -> str:
        return f"  {step.description} …"

    def row(self, result: Checked) -> list[str]:
        """Return the lines of one step, after those of blocked steps before it."""
        if result.blocked_by:
            self._blocked.append(result)
            return []
        hidden = self._quiet and result.verdict is not Verdict.FAIL
        time = "" if result.verdict is Verdict.SKIPPED else f"{result.seconds * 1000:,.0f} ms"
        return [*self._flush(), *([] if hidden else self._step(result.check.description, time, result.finding))]

    def end(self, report: CheckReport) -> list[str]:
        """Return the lines of blocked steps, the requests and time used, and the summary."""
        if self._quiet and report.ok:
            return []
        spent = f"{plural(report.calls, 'API call')} used, {report.seconds:.1f} s"
        return [*self._flush(), *self._summary(report, spent)]

    def _flush(self) -> list[str]:
        blocked, self._blocked = self._blocked, []
        if not blocked or self._quiet:
            return []
        titles, cause = [result.check.description for result in blocked], blocked[0].finding.message
        if len(blocked) == 1:
            return self._step(titles[0], "", blocked[0].finding)
        found = Finding(Verdict.SKIPPED, f"{cause}: {', '.join(titles)}")
        return self._step(plural(len(blocked), "step"), "", found)

    def _step(self, title: str, time: str, found: Finding) -> list[str]:
        head = f"{self._sign(found.verdict)} {title:<{_TITLE}}{time:>{_TIME}}"
        if self._width < self.narrow:
            indent, lines = "  ", self._below(head, found.message)
        else:
            indent = " " * (2 + _TITLE + _TIME + 2)
            lines = self._beside(f"{head}  ", found.message)
        if found.hint:
            lines += wrap(safe(found.hint), self._width, first=f"{indent}→ ", rest=f"{indent}  ")
        for key, value in found.details.items() if self._verbose else ():
            shown = ", ".join(value) if isinstance(value, list) else value
            lines += wrap(safe(f"{key}: {shown}"), self._width, first=indent, rest=indent + "  ")
        return self._painted(lines, found.verdict)


def summary_of(context: DoctorContext, results: Sequence[Checked]) -> str:
    """Return what an upload can expect, and the causes of problems."""
    broken = next((result for result in results if result.verdict is Verdict.FAIL), None)
    if broken is not None:
        return f"No upload possible: {broken.finding.message}"
    warned = [result for result in results if result.verdict is Verdict.WARNING]
    if not warned:
        return f"Everything works: uploads will be {_way(context)}"
    reason = _why_not_live(context, warned)
    if reason is None:
        return f"Uploads will be {_way(context)}, but {_listed([_headline(result) for result in warned])}"
    causes = _listed([reason, *(_headline(result) for result in warned if result.id not in _LIVE)])
    if context.live:
        return f"Uploads will work, {_way(context)} instead of websocket: {causes}"
    return f"Uploads will work, but progress is polled: {causes}"


def _headline(result: Checked) -> str:
    """Return the cause up to its colon; that of a transport starts with its name."""
    cause = result.finding.message.partition(": ")[0]
    return f"{result.check.description} does not work ({cause})" if result.id in _LIVE else cause


def _listed(causes: Sequence[str]) -> str:
    more = f"; {len(causes) - MOST_CAUSES} more above" if len(causes) > MOST_CAUSES else ""
    return "; ".join(causes[:MOST_CAUSES]) + more


def _way(context: DoctorContext) -> str:
    if context.settings.tus_endpoint:
        return f"resumable ({'ietf' if context.tus is not None and context.tus.ietf else 'tus'})"
    if "websocket" in context.live:
        return f"live over websocket, {context.live['websocket']:,.0f} ms"
    if "polling" in context.live:
        return f"live over long polling, {context.live['polling']:,.0f} ms"
    return "followed by polling" + ("" if context.poll_ms is None else f", {context.poll_ms:,.0f} ms")


def _why_not_live(context: DoctorContext, warned: Sequence[Checked]) -> str | None:
    """Return why the websocket, or both transports, failed; None if the websocket works."""
    found = {result.id: result.finding for result in warned}
    if "websocket" in context.live or "websocket" not in found:
        return None
    if found["websocket"].details.get("http_status") == FULL:
        return found["websocket"].message
    if "polling" in context.live:
        if NO_SOCKET_IO in found["websocket"].details:
            return found["websocket"].message
        return "something on the network path blocks websockets (proxy?)"
    if all(NO_SOCKET_IO in found[name].details for name in _LIVE if name in found):
        return "the server has no Socket.IO at /socket.io/"
    return "neither websocket nor long polling reaches Socket.IO (proxy?)"

"""Summarize all steps in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.doctor.findings import Status
from uploader_cli.checks.doctor.live import FULL, NO_SOCKET_IO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.doctor.context import Context
    from uploader_cli.checks.doctor.findings import Result

MOST = 2
"""Maximum causes listed."""
_LIVE = ("websocket", "long_polling")


def sentence(context: Context, results: Sequence[Result]) -> str:
    """Return what an upload can expect, and the causes of problems."""
    broken = next((result for result in results if result.status is Status.FAILED), None)
    if broken is not None:
        return f"No upload possible: {broken.finding.cause}"
    warned = [result for result in results if result.status is Status.WARNING]
    if not warned:
        return f"Everything works: uploads will be {_way(context)}"
    reason = _why_not_live(context, warned)
    if reason is None:
        return f"Uploads will be {_way(context)}, but {_listed([_headline(result) for result in warned])}"
    causes = _listed([reason, *(_headline(result) for result in warned if result.id not in _LIVE)])
    if context.live:
        return f"Uploads will work, {_way(context)} instead of websocket: {causes}"
    return f"Uploads will work, but progress is polled: {causes}"


def _headline(result: Result) -> str:
    """Return the cause up to its colon; that of a transport starts with its name."""
    cause = result.finding.cause.partition(": ")[0]
    return f"{result.title} does not work ({cause})" if result.id in _LIVE else cause


def _listed(causes: Sequence[str]) -> str:
    more = f"; {len(causes) - MOST} more above" if len(causes) > MOST else ""
    return "; ".join(causes[:MOST]) + more


def _way(context: Context) -> str:
    if "websocket" in context.live:
        return f"live over websocket, {context.live['websocket']:,.0f} ms"
    if "polling" in context.live:
        return f"live over long polling, {context.live['polling']:,.0f} ms"
    return "followed by polling" + ("" if context.poll_ms is None else f", {context.poll_ms:,.0f} ms")


def _why_not_live(context: Context, warned: Sequence[Result]) -> str | None:
    """Return why the websocket, or both transports, failed; None if the websocket works."""
    found = {result.id: result.finding for result in warned}
    if "websocket" in context.live or "websocket" not in found:
        return None
    if found["websocket"].details.get("http_status") == FULL:
        return found["websocket"].cause
    if "polling" in context.live:
        if NO_SOCKET_IO in found["websocket"].details:
            return found["websocket"].cause
        return "something on the network path blocks websockets (proxy?)"
    if all(NO_SOCKET_IO in found[name].details for name in _LIVE if name in found):
        return "the server has no Socket.IO at /socket.io/"
    return "neither websocket nor long polling reaches Socket.IO (proxy?)"

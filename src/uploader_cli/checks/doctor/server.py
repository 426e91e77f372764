"""Check the server by `/health`, which is not counted: its kind, its load and its clock."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.doctor.context import ANSWER_LIMIT, NOBODY, Timed
from uploader_cli.checks.doctor.findings import Detail, Finding, Status, failed, fine, skipped, warning
from uploader_cli.core.protocol import as_object, error_code, parse_http_date, parse_limits, parse_time, text
from uploader_cli.exit_status import Exit, of_error
from uploader_cli.render.words import clock as hours
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.http import redirect_target

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context
    from uploader_cli.core.plan import Limits

TRIES = 3
"""Maximum requests after a 5xx: one may be accidental."""
PAUSE = 0.3
SAMPLES = 5
"""Responses of `/health` that are timed, including the first."""
SAMPLING = 3.0
"""Seconds into which another response as slow as the slowest must fit, to bound the step."""
SLOW_MS = 500.0
"""Maximum milliseconds of a response beyond the round trip."""
UNEVEN_MS = 400.0
SKEW = 30.0
"""Seconds of clock skew that matter for tokens and certificates."""
OPERATOR = "Ask the server's operator to look at its load"


def health(context: Context) -> Finding:
    """Check whether an upload server answers `/health` (docs/protocol.md section 1), its kind and its limits."""
    try:
        timed = _asked(context)
    except errors.NetworkError as error:
        return _silent(context, error)
    answer = timed.answer
    context.health, context.health_received = timed, context.wall()
    if answer.status in (401, 403, 407):
        whose = "the proxy" if answer.status == 407 else "the server, or a proxy before it,"
        option = "Add the proxy's user and password to --proxy" if answer.status == 407 else "Set a token or --header"
        return failed(f"{whose} requires authentication ({answer.status})", f"{option}.", Exit.NOT_AUTHORISED)
    if answer.status >= 500:
        return _unavailable(answer.status)
    body = as_object(answer.body)
    if answer.ok and text(body.get("status")) == "OK":
        context.speaks = True
        return _described(body, parse_limits(body.get("limits")))
    return _doubtful(context, timed)


def _asked(context: Context) -> Timed:
    for _ in range(TRIES - 1):
        timed = context.call("GET", "/health")
        if timed.answer.status < 500 or timed.ms > 1000:
            return timed
        context.closing.wait(PAUSE)
    return context.call("GET", "/health")


def _silent(context: Context, error: errors.NetworkError) -> Finding:
    if isinstance(error, errors.TimedOut):
        return failed(
            f"the server accepts connections, but does not answer in {ANSWER_LIMIT:.0f} s: it is overloaded or hangs",
            f"{OPERATOR}, or to restart it.",
        )
    if isinstance(error, errors.ConnectFailed):
        remedy = "Check --proxy: it does not reach the server." if context.proxy else "Check the port in --server."
        return failed(str(error), remedy)
    other = "http" if context.secure else "https"
    return failed(
        f"the server cut the connection instead of answering ({error})",
        f"Check the port, and whether --server needs {other}://.",
    )


def _unavailable(status: int) -> Finding:
    why = "it is overloaded or under maintenance" if status in (503, 504) else "it has an internal error"
    if status == 502:
        why = "the server behind its proxy is down"
    fault = errors.ServerFault("", status=status)
    return failed(
        f"the server answers {status}: {why}",
        "Try again later; if it persists, contact the server's operator.",
        of_error(fault),
        http_status=status,
    )


def _described(body: dict[str, object], limits: Limits | None) -> Finding:
    if limits is not None:
        kind = "bundled server"
    else:
        kind = "reference backend" if "heapTotal" in as_object(body.get("memory")) else "upload server"
    tus = isinstance(body.get("tus"), dict)
    details: dict[str, Detail] = {"kind": kind, "tus": tus}
    if limits is None:
        return Finding(Status.OK, f"{kind}; its limits are reported when an upload begins", details=details)
    types = "any type" if "*" in limits.allowed_types else ", ".join(sorted(limits.allowed_types))
    details |= {"max_files": limits.max_files, "max_file_size": limits.max_file_size, "types": types}
    most = f"{plural(limits.max_files, 'file')} a session, {size(limits.max_file_size)} a file, {types}"
    resumable = "resumable (tus)" if tus else "not resumable"
    return Finding(Status.OK, f"{kind}: {most}, {resumable}", details=details)


def _doubtful(context: Context, timed: Timed) -> Finding:
    """Check with one more request whether it is an upload server with an unusual `/health`."""
    answer = timed.answer
    target = redirect_target(answer)
    if target is not None:
        where = target.removesuffix("/health")
        return failed(f"the server redirects to {target}", f"Use --server {where}.")
    probe = context.call("GET", f"/api/upload/progress/{NOBODY}").answer
    if error_code(probe.body):
        context.speaks = True
        return fine(f"upload server, though its /health answers {answer.status}", kind="upload server", tus=False)
    kind = (answer.headers.get("Content-Type") or "nothing").partition(";")[0]
    return failed(
        f"this is not an upload server: /health answers {answer.status} with {kind}",
        "Check host, port and path of --server; a proxy or another web site may answer instead.",
        http_status=answer.status,
        content_type=kind,
    )


def load(context: Context) -> Finding:
    """Compare the response times of `/health` with the round trip."""
    if context.health is None:
        return skipped("because there is no response to compare with")
    times, refused = [context.health.ms], 0
    until = time.monotonic() + SAMPLING
    while len(times) + refused < SAMPLES and time.monotonic() + max(times) / 1000 < until:
        try:
            timed = context.call("GET", "/health")
        except errors.NetworkError:
            refused += 1
            continue
        if timed.answer.status >= 500 or timed.answer.status == 429:
            refused += 1
        else:
            times.append(timed.ms)
    median, least, most = statistics.median(times), min(times), max(times)
    details: dict[str, Detail] = {
        "median_ms": round(median, 1),
        "min_ms": round(least, 1),
        "max_ms": round(most, 1),
        "answers": len(times),
        "refused": refused,
    }
    way = context.connect_ms or 0.0
    if refused:
        whole = len(times) + refused
        return warning(
            f"the server is overloaded: {refused} of {whole} requests failed",
            f"{OPERATOR}; use fewer --jobs until then.",
            **details,
        )
    if median > way + SLOW_MS:
        return warning(
            f"responses are slow ({median:,.0f} ms): a connection takes {way:,.0f} ms, so the server is overloaded, "
            "or a proxy delays them",
            f"{OPERATOR}; progress will be late until then.",
            **details,
        )
    if most - median > UNEVEN_MS and most > 5 * median:
        return warning(
            f"responses take from {least:,.0f} to {most:,.0f} ms: the server is overloaded, or the network is unstable",
            f"{OPERATOR}; try again to see whether it persists.",
            **details,
        )
    return fine(f"{median:,.0f} ms per response ({least:,.0f} to {most:,.0f} ms)", **details)


def clock(context: Context) -> Finding:
    """Compare the server's clock, by its timestamp or the Date header, with the local one."""
    if context.health is None:
        return skipped("because there is no response with a time")
    answer, ms = context.health
    stamp = parse_time(as_object(answer.body).get("timestamp"))
    date = parse_http_date(answer.headers.get("Date"))
    reported = stamp if stamp is not None else date
    if reported is None:
        return skipped("because the server does not report its time")
    if answer.headers.get("Age", "0").strip() not in ("", "0"):
        return skipped("because a cache answered instead of the server")
    skew = context.health_received - ms / 2000 - reported
    details: dict[str, Detail] = {
        "skew_seconds": round(skew, 3),
        "by": "timestamp" if stamp is not None else "Date header",
        "margin_seconds": round(ms / 2000 + (0.0 if stamp is not None else 1.0), 3),
    }
    if abs(skew) > SKEW:
        side = "ahead of" if skew > 0 else "behind"
        return warning(
            f"clock skew of {hours(abs(skew) + 0.5)}: the local clock is {side} the server's",
            "Set this machine's clock by NTP (timedatectl set-ntp true), or contact the server's operator: otherwise "
            "tokens and certificates seem expired.",
            **details,
        )
    return fine(f"within {max(1, round(abs(skew)))} s of the server's", **details)

"""Check the server by `/health`, which is not counted: its kind, its load and its clock."""

from __future__ import annotations

import statistics
import time

from uploader_cli import errors
from uploader_cli.core.protocol import NOBODY, as_object, error_code, parse_http_date, parse_limits, parse_time, text
from uploader_cli.exit_status import Exit, of_error
from uploader_cli.features.checks.check import Finding, check, failed, passed, sentence, skipped, warning
from uploader_cli.features.doctor.context import RESPONSE_LIMIT, DoctorContext, Timed
from uploader_cli.features.doctor.uploads import GIVE_TOKEN, OTHER_TOKEN
from uploader_cli.render.words import clock as hours
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.answers import NO_ROUTE, Answer, is_tus, redirect_target

TRIES = 3  # maximum requests after a 5xx: one may be accidental
RETRY_PAUSE = 0.3
SAMPLES = 5  # responses of `/health` that are timed, including the first
SAMPLING = 3.0  # seconds into which another response as slow as the slowest must fit, to bound the step
SLOW_MS = 500.0  # maximum milliseconds of a response beyond the round trip
UNEVEN_MS = 400.0
SKEW = 30.0  # seconds of clock skew that matter for tokens and certificates
_DOWN = {
    502: "the server behind its proxy is down",
    503: "it is overloaded or under maintenance",
    504: "it is overloaded or under maintenance",
}
OPERATOR = "Ask the server's operator to look at its load"


@check("health", "server", rests_on="tls")
def health(context: DoctorContext) -> Finding:
    """Check whether an upload server answers `/health` (docs/protocol.md section 1), its kind and its limits."""
    try:
        context.health = _asked(context)
    except errors.NetworkError as error:
        return failed(*_silent(context, error))
    answer = context.health.answer
    if answer.status in (401, 403):
        what = "refuses the token" if answer.authorized else "requires authentication"
        cause = f"the server, or a proxy before it, {what} ({answer.status})"
        return failed(cause, OTHER_TOKEN if answer.authorized else GIVE_TOKEN, exit=Exit.NOT_AUTHORISED)
    if answer.status >= 500:
        cause = f"the server answers {answer.status}: {_DOWN.get(answer.status, 'it has an internal error')}"
        hint = "Try again later; if it persists, contact the server's operator."
        code = of_error(errors.ServerFault("", status=answer.status))
        return failed(cause, hint, exit=code, http_status=answer.status)
    body = as_object(answer.body)
    return _described(body) if answer.ok and text(body.get("status")) == "OK" else _doubtful(context, answer)


def _asked(context: DoctorContext) -> Timed:
    for _ in range(TRIES - 1):
        timed = context.timed("/health")
        if timed.answer.status < 500 or timed.ms > 1000:
            return timed
        time.sleep(RETRY_PAUSE)
    return context.timed("/health")


def _silent(context: DoctorContext, error: errors.NetworkError) -> tuple[str, str]:
    if isinstance(error, errors.TimedOut):
        silence = f"the server accepts connections, but does not answer in {RESPONSE_LIMIT:.0f} s"
        return f"{silence}: it is overloaded or hangs", f"{OPERATOR}, or to restart it."
    if isinstance(error, errors.ConnectFailed):
        return str(error), sentence(error.hint)
    cause = f"the server cut the connection instead of answering ({error})"
    other = "http" if context.secure else "https"
    return cause, f"Check the port, and whether {context.option} needs {other}://."


def _described(body: dict[str, object]) -> Finding:
    limits, tus = parse_limits(body.get("limits")), isinstance(body.get("tus"), dict)
    if limits is None:
        kind = "reference backend" if "heapTotal" in as_object(body.get("memory")) else "upload server"
        return passed(f"{kind}; its limits are reported when an upload begins", kind=kind, tus=tus)
    types = "any type" if "*" in limits.allowed_types else ", ".join(sorted(limits.allowed_types))
    most = f"{plural(limits.max_files, 'file')} a session, {size(limits.max_file_size)} a file, {types}"
    found = f"bundled server: {most}, {'resumable (tus)' if tus else 'not resumable'}"
    details = {"max_files": limits.max_files, "max_file_size": limits.max_file_size, "types": types}
    return passed(found, kind="bundled server", tus=tus, **details)


def _doubtful(context: DoctorContext, answer: Answer) -> Finding:
    """Check with one more request whether it is an upload server with an unusual `/health`."""
    target = redirect_target(answer)
    if target is not None:
        return failed(f"the server redirects to {target}", f"Use {target} in {context.option}.")
    if is_tus(answer):
        return failed("this is a tus server, which has no sessions", f"Use --tus-endpoint instead of {context.option}.")
    probe = context.call("GET", f"/api/upload/progress/{NOBODY}")
    if error_code(probe.body) not in ("", NO_ROUTE):
        return passed(f"upload server, though its /health answers {answer.status}", kind="upload server", tus=False)
    kind = (answer.headers.get("Content-Type") or "nothing").partition(";")[0]
    cause = f"this is not an upload server: /health answers {answer.status} with {kind}"
    hint = f"Check the host, port and path in {context.option}; a proxy or another web site may answer instead."
    return failed(cause, hint, http_status=answer.status, content_type=kind)


@check("load", "server load", rests_on="health", required=False)
def load(context: DoctorContext) -> Finding:
    """Compare the response times of `/health` with the round trip."""
    if context.health is None:
        return skipped("because there is no response to compare with")
    times, refused = [context.health.ms], 0
    until = time.monotonic() + SAMPLING
    while len(times) + refused < SAMPLES and time.monotonic() + max(times) / 1000 < until:
        try:
            timed = context.timed("/health")
        except errors.NetworkError:
            refused += 1
            continue
        if timed.answer.status >= 500 or timed.answer.status == 429:
            refused += 1
        else:
            times.append(timed.ms)
    median, least, most = statistics.median(times), min(times), max(times)
    details: dict[str, float] = {"median_ms": round(median, 1), "min_ms": round(least, 1), "max_ms": round(most, 1)}
    details |= {"answers": len(times), "refused": refused}
    if refused:
        cause = f"the server is overloaded: {refused} of {len(times) + refused} requests failed"
        return warning(cause, f"{OPERATOR}; use fewer --jobs until then.", **details)
    if median > context.connect_ms + SLOW_MS:
        cause = f"responses are slow ({median:,.0f} ms): a connection takes {context.connect_ms:,.0f} ms"
        cause += ", so the server is overloaded, or a proxy delays them"
        return warning(cause, f"{OPERATOR}; progress will be late until then.", **details)
    if most - median > UNEVEN_MS and most > 5 * median:
        cause = f"responses take from {least:,.0f} to {most:,.0f} ms"
        cause += ": the server is overloaded, or the network is unstable"
        return warning(cause, f"{OPERATOR}; try again to see whether it persists.", **details)
    return passed(f"{median:,.0f} ms per response ({least:,.0f} to {most:,.0f} ms)", **details)


@check("clock", "clock", rests_on="health", required=False)
def clock(context: DoctorContext) -> Finding:
    """Compare the server's clock, by its timestamp or the Date header, with the local one."""
    if context.health is None:
        return skipped("because there is no response with a time")
    answer, ms, received = context.health
    stamp = parse_time(as_object(answer.body).get("timestamp"))
    reported = stamp if stamp is not None else parse_http_date(answer.headers.get("Date"))
    if reported is None:
        return skipped("because the server does not report its time")
    if answer.headers.get("Age", "0").strip() not in ("", "0"):
        return skipped("because a cache answered instead of the server")
    skew = received - ms / 2000 - reported
    by, margin = ("timestamp", 0.0) if stamp is not None else ("Date header", 1.0)
    details = {"skew_seconds": round(skew, 3), "by": by, "margin_seconds": round(ms / 2000 + margin, 3)}
    if abs(skew) > SKEW:
        side = "ahead of" if skew > 0 else "behind"
        cause = f"clock skew of {hours(abs(skew) + 0.5)}: the local clock is {side} the server's"
        hint = "Set this machine's clock by NTP (timedatectl set-ntp true), or contact the server's operator"
        return warning(cause, f"{hint}: otherwise tokens and certificates seem expired.", **details)
    return passed(f"within {max(1, round(abs(skew)))} s of the server's", **details)

"""Steps with counted requests: a session, its progress, the token, and the rate limit."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.doctor.context import ANSWER_LIMIT, NOBODY
from uploader_cli.checks.doctor.findings import Finding, failed, fine, skipped, warning
from uploader_cli.core.protocol import as_object, error_code, parse_session, text, whole
from uploader_cli.exit_status import Exit, of_error
from uploader_cli.render.words import clock, plural
from uploader_cli.transfer.api import answer_error
from uploader_cli.transfer.http import redirect_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.checks.doctor.context import Context
    from uploader_cli.transfer.http import Answer

SLOW_POLL_MS = 500.0
"""Maximum milliseconds of a poll; polls are sent every second (docs/protocol.md section 2)."""
HOPELESS_MS = 2000.0
"""Milliseconds above which a request is not repeated, to bound the step."""
FEW = 20
"""Remaining requests that may be too few: an upload of 3 files needs 5 (docs/protocol.md section 3.11)."""
UNAVAILABLE = (502, 503, 504)
LATER = "Try again; if it persists, contact the server's operator."
USED_UP = "because the rate limit is used up"
GIVE_TOKEN = "Set a valid one with UPLOADER_TOKEN, --token-file or --token-command."  # noqa: S105 - a sentence


def session(context: Context) -> Finding:
    """Check the session of `--session`, or create one for `--new-session`, which is cancelled at the end."""
    if context.session:
        return _known(context, context.session)
    if not context.new_session:
        return skipped("because neither --session nor --new-session was given")
    answer = context.call(
        "POST", "/api/upload/session", json={"category": context.settings.category, "expectedFiles": 1}
    ).answer
    opened = parse_session(answer.body) if answer.ok else None
    if opened is not None:
        context.opened = opened.session_id
        return fine(f"a new one in {opened.category or 'no category'}; cancelled at the end", session=opened.session_id)
    if (refused := refusal(context, answer)) is not None:
        return refused
    error = answer_error(answer)
    return failed(f"no session was created: {error}", "Contact the server's operator.", of_error(error))


def _known(context: Context, asked: str) -> Finding:
    answer = context.call("GET", f"/api/upload/progress/{asked}").answer
    if answer.ok:
        state = text(as_object(answer.body).get("overallStatus")) or "unknown"
        return fine(f"{asked} is {state}", session=asked, state=state)
    if answer.status in (404, 410) and error_code(answer.body):
        return warning(
            f"the session has expired or never existed: the server does not know {asked}",
            "Upload again, in a new session. Some servers know a session only while its files are processed.",
            session=asked,
            state=None,
        )
    return refusal(context, answer) or _odd(answer)


def polling(context: Context) -> Finding:
    """Time a request for a session's progress, which uploads use without a live connection.

    Without a session an unknown ID is used: "not found" is the expected response.
    """
    if context.limited is not None:
        return skipped(USED_UP)
    asked = context.opened or context.session or NOBODY
    path = f"/api/upload/progress/{asked}"
    try:
        answer, ms = context.call("GET", path)
    except errors.TimedOut:
        return failed(
            f"requests to /api get no response within {ANSWER_LIMIT:.0f} s, though /health does",
            "Contact the server's operator; a proxy may pass only /health.",
        )
    if SLOW_POLL_MS < ms < HOPELESS_MS or answer.status in UNAVAILABLE:  # once more: it may have been accidental
        answer, again = context.call("GET", path)
        ms = min(ms, again)
    if (refused := refusal(context, answer)) is not None:
        return refused
    if not answer.ok and not error_code(answer.body):
        return _odd(answer)
    context.poll_ms = ms
    if ms > SLOW_POLL_MS:
        return warning(
            f"slow polling ({ms:,.0f} ms): progress without a live connection is late",
            "Make sure that the websocket works, or use a nearer or less busy server.",
            latency_ms=round(ms, 1),
        )
    return fine(f"{ms:,.0f} ms per response", latency_ms=round(ms, 1))


def token(context: Context) -> Finding:
    """Check the token by a request to delete an unknown file, which changes nothing (docs/protocol.md section 1)."""
    if context.settings.token_withheld:
        return skipped("because it is withheld from this server")
    if not context.token:
        return skipped("because there is none; uploads work without one here, `uploader delete` needs one")
    if context.limited is not None:
        return skipped(USED_UP)
    answer = context.call("DELETE", f"/api/upload/file/{NOBODY}").answer
    code = error_code(answer.body)
    if answer.status in (401, 403):
        return warning(
            f"the server refuses the token ({answer.status}{f' {code}' if code else ''}): it has expired, or is for "
            "another server; uploads need none here, `uploader delete` does",
            GIVE_TOKEN,
            http_status=answer.status,
            code=code,
        )
    if answer.status == 429:
        return skipped(USED_UP)
    if answer.ok or code == "FILE_NOT_FOUND":
        return fine("accepted")
    return skipped(f"because the response ({answer.status}) does not show whether it is valid")


def rate_limit(context: Context) -> Finding:
    """Report how many requests are left (`X-RateLimit-*`, docs/protocol.md section 3.11)."""
    headers: Mapping[str, str] = context.meter or {}
    most, left = whole(headers.get("X-RateLimit-Limit")), whole(headers.get("X-RateLimit-Remaining"))
    if context.limited is not None:
        return _used_up(context, context.limited, most)
    if context.meter is None:
        return skipped("because no counted request was sent")
    if left is None:
        return fine(f"none: the server has no rate limit ({context.calls} calls used)", limit=None, remaining=None)
    reset = whole(headers.get("X-RateLimit-Reset"))
    seconds = None if reset is None else max(0.0, reset - time.time() if reset > 1e9 else float(reset))
    reset_in = "" if seconds is None else f", reset in {clock(seconds)}"
    of = f" of {most}" if most is not None else ""
    if left < FEW:
        return warning(
            f"the rate limit is nearly used up: {plural(left, 'call')}{of} left{reset_in}",
            "Wait until then, or upload fewer sessions in parallel; uploads wait automatically.",
            limit=most,
            remaining=left,
            reset_seconds=seconds,
        )
    return fine(
        f"{left}{of} calls left{reset_in} ({context.calls} used)", limit=most, remaining=left, reset_seconds=seconds
    )


def _used_up(context: Context, seconds: float, most: int | None) -> Finding:
    cause = f"the rate limit is used up (429): the server accepts requests again in {clock(seconds)}"
    patience = context.settings.max_wait
    if seconds > patience:
        return failed(
            f"{cause}, longer than uploads wait ({clock(patience)})",
            f"Try again in {clock(seconds)}, or let uploads wait with --max-wait {seconds:.0f}.",
            Exit.RETRY_MAY_HELP,
            limit=most,
            remaining=0,
            reset_seconds=seconds,
        )
    return warning(
        cause,
        f"Wait {clock(seconds)}; uploads wait automatically. Fewer watchers at this address leave more requests.",
        limit=most,
        remaining=0,
        reset_seconds=seconds,
    )


def refusal(context: Context, answer: Answer) -> Finding | None:
    """Return the finding for a refused request to `/api` (permission, rate limit, server error), else None."""
    if answer.status in (401, 403):
        what = "refuses the token" if context.token else "requires a token"
        code = error_code(answer.body)
        return failed(
            f"the server {what} ({answer.status}{f' {code}' if code else ''})",
            GIVE_TOKEN if context.token else GIVE_TOKEN.replace("a valid one", "one"),
            Exit.NOT_AUTHORISED,
            http_status=answer.status,
            code=code,
        )
    if answer.status == 429:
        return skipped(USED_UP)
    if answer.status >= 500:
        error = answer_error(answer)
        if answer.status in UNAVAILABLE:
            overloaded = f"the server is overloaded or down: requests are answered with {answer.status}"
            return failed(overloaded, LATER, of_error(error), http_status=answer.status)
        return warning(str(error), LATER, http_status=answer.status)
    return None


def _odd(answer: Answer) -> Finding:
    target = redirect_target(answer)
    if target is not None:
        return failed(f"requests to /api are redirected to {target}", "Use that host and path as --server.")
    return failed(
        f"this is not an upload server: /api/upload answers {answer.status} without an error code",
        "Check host, port and path of --server.",
        http_status=answer.status,
    )


def clean_up(context: Context) -> None:
    """Cancel the session that was created here."""
    if context.opened is not None and context.limited is None:
        with contextlib.suppress(errors.UploaderError):
            context.call("POST", f"/api/upload/cancel/{context.opened}")
    context.opened = None

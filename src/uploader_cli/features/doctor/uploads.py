"""Steps about uploads: a session, its progress, the token, the rate limit, the tus endpoint and large requests."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from uploader_cli import errors
from uploader_cli.core import packs
from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, capabilities_of, root_of, unknown_upload
from uploader_cli.core.events import Transport
from uploader_cli.core.origins import resolved
from uploader_cli.core.protocol import NOBODY, as_object, error_code, parse_progress, parse_session, text, whole
from uploader_cli.exit_status import Exit, of_error
from uploader_cli.features.checks import body_limit as limit
from uploader_cli.features.checks.check import Finding, check, failed, passed, skipped, warning
from uploader_cli.features.checks.target import DOWN_OR_BUSY
from uploader_cli.features.doctor.context import RESPONSE_LIMIT, USED_UP, DoctorContext
from uploader_cli.render.words import clock, plural, size
from uploader_cli.transfer.answers import NO_ROUTE, Answer, answer_error, is_blocked, is_page, is_tus, redirect_target
from uploader_cli.transfer.bodies import Body, pack_form
from uploader_cli.transfer.http_client import REDIRECTS

SLOW_POLL_MS = 500.0  # maximum milliseconds of a poll; one is sent every second (docs/protocol.md section 2)
HOPELESS_MS = 2000.0  # milliseconds above which a request is not repeated, to bound the step
FEW_CALLS = 20  # remaining requests that may be too few: 3 files need 5 (docs/protocol.md section 3.11)
LATER = "Try again; if it persists, contact the server's operator."
GIVE_TOKEN = "Set one with UPLOADER_TOKEN, --token-file or --token-command."  # noqa: S105 - a sentence
OTHER_TOKEN = "It may have expired or be for another server: get a new one."  # noqa: S105 - a sentence


@check("session", "session", rests_on="health", required=False)
def session(context: DoctorContext) -> Finding:
    """Check the session of `--session`, or create one for `--new-session`, which is cancelled at the end."""
    if context.session:
        return _known(context, context.session)
    if not context.new_session:
        return skipped("because neither --session nor --new-session was given")
    body = {"category": context.settings.category, "expectedFiles": 1}
    answer = context.call("POST", "/api/upload/session", json=body)
    opened = parse_session(answer.body) if answer.ok else None
    if opened is not None:
        context.opened = opened.session_id
        where = opened.category or "no category"
        return passed(f"a new one in {where}; cancelled at the end", session=opened.session_id)
    if (refused := refusal(answer)) is not None:
        return refused
    error = answer_error(answer)
    return failed(f"no session was created: {error}", "Contact the server's operator.", exit=of_error(error))


def _known(context: DoctorContext, asked: str) -> Finding:
    answer = context.call("GET", f"/api/upload/progress/{asked}")
    state = text(as_object(answer.body).get("overallStatus")) if answer.ok else None
    if state:
        return passed(f"{asked} is {state}", session=asked, state=state)
    if answer.status in (404, 410) and error_code(answer.body) not in ("", NO_ROUTE):
        cause = f"the session has expired or never existed: the server does not know {asked}"
        hint = "Upload again, in a new session. Some servers know a session only while its files are processed."
        return warning(cause, hint, session=asked, state=None)
    return refusal(answer) or _odd(context, answer)


@check("polling", "HTTP polling", rests_on="session")
def polling(context: DoctorContext) -> Finding:
    """Time a request for a session's progress, which uploads use without a live connection.

    Without a session an unknown ID is used: "not found" is the expected response.
    """
    path = f"/api/upload/progress/{context.opened or context.session or NOBODY}"
    try:
        answer, ms, _ = context.timed(path)
    except errors.TimedOut:
        cause = f"requests to /api get no response within {RESPONSE_LIMIT:.0f} s, though /health does"
        return failed(cause, "Contact the server's operator; a proxy may pass only /health.")
    if SLOW_POLL_MS < ms < HOPELESS_MS or answer.status in DOWN_OR_BUSY:  # once more: it may have been accidental
        answer, again, _ = context.timed(path)
        ms = min(ms, again)
    if (refused := refusal(answer)) is not None:
        return refused
    is_progress = answer.ok and parse_progress(answer.body, Transport.HTTP) is not None
    if not is_progress and error_code(answer.body) in ("", NO_ROUTE):
        return _odd(context, answer)
    context.poll_ms = ms
    if ms > SLOW_POLL_MS:
        cause = f"slow polling ({ms:,.0f} ms): progress without a live connection is late"
        hint = "Make sure that the websocket works, or use a nearer or less busy server."
        return warning(cause, hint, latency_ms=round(ms, 1))
    return passed(f"{ms:,.0f} ms per response", latency_ms=round(ms, 1))


@check("token", "token", rests_on="polling", required=False)
def token(context: DoctorContext) -> Finding:
    """Check the token by a request to delete an unknown file, which changes nothing (docs/protocol.md section 1)."""
    if context.settings.token_withheld:
        return skipped("because it is withheld from this server")
    if not context.token:
        return skipped("because there is none; uploads work without one here, `uploader delete` needs one")
    answer = context.call("DELETE", f"/api/upload/file/{NOBODY}")
    code = error_code(answer.body)
    if answer.status in (401, 403):
        cause = f"the server refuses the token ({_named(answer)}): uploads need none here, `uploader delete` does"
        return warning(cause, OTHER_TOKEN, http_status=answer.status, code=code)
    if answer.status == 429:
        return skipped(USED_UP)
    if answer.ok or code == "FILE_NOT_FOUND":
        return passed("accepted")
    return skipped(f"because the response ({answer.status}) does not show whether it is valid")


@check("rate_limit", "rate limit", rests_on="health", required=False)
def rate_limit(context: DoctorContext) -> Finding:
    """Report how many requests are left (`X-RateLimit-*`, docs/protocol.md section 3.11)."""
    headers = context.meter or {}
    most, left = whole(headers.get("X-RateLimit-Limit")), whole(headers.get("X-RateLimit-Remaining"))
    if context.limited is not None:
        return _used_up(context, context.limited, most)
    if context.meter is None:
        return skipped("because no counted request was sent")
    if left is None:
        return passed(f"none: the server has no rate limit ({context.calls} calls used)", limit=None, remaining=None)
    reset = whole(headers.get("X-RateLimit-Reset"))
    seconds = None if reset is None else max(0.0, reset - time.time() if reset > 1e9 else float(reset))
    reset_in = "" if seconds is None else f", reset in {clock(seconds)}"
    of = f" of {most}" if most is not None else ""
    details = {"limit": most, "remaining": left, "reset_seconds": seconds}
    if left < FEW_CALLS:
        cause = f"the rate limit is nearly used up: {plural(left, 'call')}{of} left{reset_in}"
        hint = "Wait until then, or upload fewer sessions in parallel; uploads wait automatically."
        return warning(cause, hint, **details)
    return passed(f"{left}{of} calls left{reset_in} ({context.calls} used)", **details)


def _used_up(context: DoctorContext, seconds: float, most: int | None) -> Finding:
    cause = f"the rate limit is used up (429): the server accepts requests again in {clock(seconds)}"
    details = {"limit": most, "remaining": 0, "reset_seconds": seconds}
    patience = context.settings.max_wait
    if seconds > patience:
        cause = f"{cause}, longer than uploads wait ({clock(patience)})"
        hint = f"Try again in {clock(seconds)}, or let uploads wait with --max-wait {seconds:.0f}."
        return failed(cause, hint, exit=Exit.RETRY_MAY_HELP, **details)
    hint = f"Wait {clock(seconds)}; uploads wait automatically. Fewer watchers at this address leave more requests."
    return warning(cause, hint, **details)


@check("tus", "tus endpoint", rests_on="polling")
def tus(context: DoctorContext) -> Finding:
    """Ask the endpoint of the server's `/health`, or of `--tus-endpoint`, for its capabilities."""
    where = context.endpoint
    if where is None:
        return skipped("because the server offers no resumable uploads")
    options = answer = probe = followed(context, "OPTIONS", root_of(where))
    if answer.ok and not is_tus(answer) and (offered := capabilities_of(answer.headers, where)).ietf:
        context.tus, said = offered, answer.headers["Upload-Limit"]
        return passed(f"{where} offers the IETF's resumable uploads ({said})", endpoint=where, extensions=[])
    if context.settings.tus_endpoint or not is_tus(options):
        probe = followed(context, "HEAD", unknown_upload(where), headers={"Tus-Resumable": TUS_VERSION})
        answer = options if is_tus(options) else probe  # a gateway may answer OPTIONS
    target = redirect_target(answer)
    if target is not None:
        return failed(f"the tus endpoint redirects to {target}", f"Use that URL in {context.option}.")
    other = answer.ok or answer.status >= 500 or (is_page(options) and is_page(answer))
    if context.settings.tus_endpoint and not (is_tus(answer) or other):
        context.tus = capabilities_of({}, where)
        cause = f"{where} does not say that it is a tus server: OPTIONS is answered with {options.status}"
        hint = "Uploads assume the core of tus there; the first one shows whether that is right."
        return refusal(answer) or warning(cause, hint, endpoint=where, http_status=options.status)
    if not is_tus(answer):
        cause = f"{where} does not answer as a tus server ({answer.status})"
        return refusal(answer) or failed(cause, _reach(context), http_status=answer.status)
    if options.status in (404, 410) and is_tus(options):
        return failed(f"{where} is not the endpoint of the tus server ({options.status})", _reach(context))
    try:
        context.tus = capabilities_of(options.headers, where)
    except ValueError as error:
        return failed(f"{where} is of another version: {error}", "Use a server with tus 1.0.")
    if probe.status == 412:
        hint = "Let the proxy before the server pass Tus-Resumable and the headers that begin with Upload-."
        return failed(f"requests to {where} arrive without Tus-Resumable (412)", hint, http_status=412)
    names, hint = sorted(context.tus.extensions), _of_checksums(context, context.tus)
    return passed(f"{where} offers {', '.join(names) or 'no extensions'}", hint, endpoint=where, extensions=names)


def _of_checksums(context: DoctorContext, tus: Capabilities) -> str:
    """Return how to find out whether a tus endpoint compares checksums, which only a chunk shows."""
    settings = context.settings
    known = not settings.tus_endpoint or settings.checksum_compared or tus.compares_checksums
    if "checksum" not in tus.extensions or known:
        return ""
    return "Its checksums verify no file unless a preset says that it compares them; `uploader smoke` tries that."


def followed(context: DoctorContext, method: str, url: str, **how: Any) -> Answer:
    """Send a request and follow 307 and 308, as uploads do."""
    answer = context.call(method, url, **how)
    for _ in range(REDIRECTS):
        if answer.status not in (307, 308) or "Location" not in answer.headers:
            break
        try:
            answer = context.call(method, resolved(answer.url, answer.headers["Location"]), **how)
        except ValueError:
            break
    return answer


def _reach(context: DoctorContext) -> str:
    if context.settings.tus_endpoint:
        return f"Check the host, port and path in {context.option}; a proxy or another web site may answer instead."
    return "Let the proxy before the server pass this path with all methods."


@check("packs", "packs", rests_on="polling", required=False)
def packed(context: DoctorContext) -> Finding:
    """Send a pack for an unknown session; nothing is stored (docs/extensions.md)."""
    offer = packs.parse_offer(context.offered("packs"), context.settings.server)
    if offer is None:
        return skipped("because the server offers none: small files are sent one by one")
    content = b"uploader-doctor"
    manifest = packs.manifest(NOBODY, [("uploader-doctor", len(content), hashlib.sha256(content).hexdigest(), 0)])
    body = Body(*pack_form(manifest, [content]), checkpoint=lambda: None)
    answer = context.call("POST", offer.endpoint, body=body, headers={"Idempotency-Key": secrets.token_hex(16)})
    if error_code(answer.body) == "SESSION_NOT_FOUND":  # it was read
        return passed(f"up to {offer.max_files:,} files in a request", files=offer.max_files)
    return _unusable(answer, "packs are answered with", "Until then small files are sent one by one.")


@check("lookup", "lookup", rests_on="polling", required=False)
def lookup(context: DoctorContext) -> Finding:
    """Look up a file that is not there (docs/extensions.md)."""
    offer = packs.parse_lookup_offer(context.offered("lookup"), context.settings.server)
    if offer is None:
        return skipped("because the server offers none: `uploader check` needs it")
    asked = {"category": context.settings.category, "files": [{"relativePath": "uploader-doctor", "size": 1}]}
    answer = context.call("POST", offer.endpoint, json=asked)
    if answer.ok and packs.parse_found(answer.body, 1) is not None:
        return passed(f"up to {offer.max_files:,} files in a request", files=offer.max_files)
    hint = "Until then files are looked up one by one, and `uploader check` fails."
    return _unusable(answer, "the lookup is answered with", hint)


def _unusable(answer: Answer, what: str, hint: str) -> Finding:
    """Return the finding for what uploads can do without: only a refused token is a failure."""
    if answer.status in (401, 403, 429) and (refused := refusal(answer)) is not None:
        return refused
    cause = f"{what} {_named(answer)}"
    return warning(cause, f"Contact the server's operator. {hint}", http_status=answer.status)


@check("body_limit", "body limit", rests_on="tus", required=False)
def body_limit(context: DoctorContext) -> Finding:
    """Announce a chunk for an unknown upload, or without tus a batch; nothing is stored."""
    found = limit.find(context.call, context.tus, most=context.max_size, round_trip=context.connect_ms / 1000)
    details = {"refused_bytes": found.refused, "passed_bytes": found.passes}
    if found.refused:
        fitting = f", {size(found.passes)} pass" if found.passes else ""
        hint = "until then larger files fail" if context.tus is None else "until then uploads use smaller requests"
        cause = f"a proxy refuses requests of {size(found.refused)} (413){fitting}"
        return warning(cause, f"{limit.FIX}; {hint}.", **details)
    answer = found.answer
    if answer is not None and answer.status in (401, 429) and (refused := refusal(answer)) is not None:
        return refused
    if answer is not None and context.tus is not None and is_blocked(answer):
        return _patch_blocked(context, context.tus, answer)
    buffered = answer is None and context.tus is not None and context.health is not None  # ours answers at once
    hint = "; a proxy collects them before it forwards them, so progress is late" if buffered else ""
    return passed(f"requests of {size(found.passes)} pass{hint}", **details)


def _patch_blocked(context: DoctorContext, tus: Capabilities, answer: Answer) -> Finding:
    """Return the finding where PATCH is blocked: uploads send POST then, which may be blocked, too."""
    cause = f"a proxy or firewall blocks PATCH ({answer.status})"
    headers = {"Tus-Resumable": TUS_VERSION, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    instead = context.call("POST", unknown_upload(tus.endpoint), headers=headers)
    if not is_blocked(instead):
        hint = "Let PATCH pass; until then uploads send POST with X-HTTP-Method-Override."
        return warning(cause, hint, http_status=answer.status)
    cause = f"{cause}, and POST with X-HTTP-Method-Override ({instead.status})"
    if context.settings.tus_endpoint:
        return failed(cause, "Let PATCH pass.", http_status=answer.status)
    return warning(cause, "Let PATCH pass; until then files are sent in batches, without resume.")


def refusal(answer: Answer) -> Finding | None:
    """Return the finding for a refused request to `/api` (permission, rate limit, server error), else None."""
    if answer.status in (401, 403):
        what = "refuses the token" if answer.authorized else "requires a token"
        hint, code = OTHER_TOKEN if answer.authorized else GIVE_TOKEN, error_code(answer.body)
        cause = f"the server {what} ({_named(answer)})"
        return failed(cause, hint, exit=Exit.NOT_AUTHORISED, http_status=answer.status, code=code)
    if answer.status == 429:
        return skipped(USED_UP)
    if answer.status in DOWN_OR_BUSY:
        cause = f"the server is overloaded or down: requests are answered with {answer.status}"
        return failed(cause, LATER, exit=of_error(answer_error(answer)), http_status=answer.status)
    if answer.status >= 500:
        return warning(str(answer_error(answer)), LATER, http_status=answer.status)
    return None


def _named(answer: Answer) -> str:
    return f"{answer.status} {error_code(answer.body)}".rstrip()


def _odd(context: DoctorContext, answer: Answer) -> Finding:
    target = redirect_target(answer)
    if target is not None:
        return failed(f"requests to /api are redirected to {target}", f"Use that host and path in {context.option}.")
    said = error_code(answer.body) or "without an error code"
    cause = f"this is not an upload server: /api/upload answers {answer.status} {said}"
    return failed(cause, f"Check the host, port and path in {context.option}.", http_status=answer.status)

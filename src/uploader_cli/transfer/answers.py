"""The answer to a request: what its headers say, and the errors that its refusals mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import protocol
from uploader_cli.core.confirmation import OUTAGES
from uploader_cli.core.masking import mask

if TYPE_CHECKING:
    from uploader_cli.transfer.protocols.machine import Ask, Kinds

NO_ANSWER = (401, 403, 408, 425, 429, 500, 502, 503, 504, 507)
"""Statuses that leave open whether the server gives out stored files."""
BLOCKED = (403, 405, 501)
"""Answers of a firewall to a method that it does not pass on."""
NO_ENDPOINT = (404, 405, 410, 501)
"""Statuses of a creation where no tus endpoint is."""
SHARE_USED = "SHARE_USED"
NO_ROUTE = "NOT_FOUND"
"""The code of an upload server for a path that it does not have, as below a wrong `--server`."""
TOKEN_MISSING = "give a token with UPLOADER_TOKEN, --token-file or --token-command"  # noqa: S105 - a sentence
SECRET_MISSING = "give its secret with UPLOADER_SESSION_SECRET; the journal of the run that created it has it, too"  # noqa: S105
OWNER_MISSING = "give the token of the client that uploaded it, or that of the server (its --auth-token-file)"
TOKEN_REFUSED = "the server refuses this token: it may have expired or be for another server"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: headers, JSON body (else None), and the `X-Request-ID` of the request, if any."""

    status: int
    headers: Mapping[str, str]
    body: object
    url: str
    request_id: str = ""
    sent: int = 0  # bytes of the request's body
    authorized: bool = False  # whether the request had an `Authorization`
    plain: str = ""  # a refusal in plain text, as tus servers give it, whatever type they declare
    base: str = ""  # the address that was given: `url` without the path of the call
    came: float = 0.0  # the time, in unix seconds

    @property
    def sentence(self) -> str:
        """The server's reason for a refusal, on one line, without secrets; empty without one."""
        return mask(protocol.error_sentence(self.body) or protocol.one_line(self.plain))

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> float | None:
        """`Retry-After` in seconds; None if missing or invalid."""
        value = self.headers.get("Retry-After") or ""
        seconds = protocol.whole(value)
        if seconds is not None:
            return float(seconds)
        date = protocol.parse_http_date(value)
        return None if date is None else max(0.0, date - self.came)


def redirect_target(answer: Answer) -> str | None:
    """Return where a 3xx answer redirects to, None if invalid: the address to use in place of the one that was given.

    It is without a query, and without the path of the call where the answer repeats it.
    """
    location = answer.headers.get("Location")
    try:
        target = urljoin(answer.url, location) if location and 300 <= answer.status < 400 else ""
    except ValueError:
        return None
    target = re.split("[?#]", target)[0]
    call = answer.url.removeprefix(answer.base).split("?")[0].strip("/") if answer.url.startswith(answer.base) else ""
    if answer.base and call and target.rstrip("/").endswith(f"/{call}"):
        target = target.rstrip("/").removesuffix(call)
        return target if answer.base.endswith("/") else target.rstrip("/")
    return target or None


def judged(answer: Answer, ask: Ask) -> Answer:
    """Return the answer to the request of a machine. Raise the error of a refusal."""
    code = protocol.error_code(answer.body)
    if {(answer.status, ""), (answer.status, code)}.isdisjoint(ask.answers):
        raise refused(answer, ask.kinds)
    return answer


def refused(answer: Answer, kinds: Kinds) -> errors.AnswerError:
    """Return the error of a refused batch or pack; `kinds` has those of its statuses and codes."""
    error = answer_error(answer)
    kind = kinds.get((error.status, error.error)) or kinds.get((error.status, ""))
    if error.status == 500 and protocol.session_unknown(answer.body):
        kind = errors.SessionLost
    if kind is not None:
        error = kind(str(error), status=error.status, error=error.error, retry_after=error.retry_after)
        error.retryable = kind in (errors.SessionLost, errors.ServerFault, errors.PackInProgress)
    elif isinstance(error, errors.TooSlow):
        error.retryable = False  # never repeated with the same files (3.10)
    return error


def answer_error(answer: Answer) -> errors.AnswerError:
    """Return the error for a refusal. A 5xx names the request id."""
    status, target = answer.status, redirect_target(answer)
    code, said = protocol.error_code(answer.body), answer.sentence
    named = f", request {answer.request_id}" if answer.request_id and status >= 500 else ""
    words = f"{status}" + (f" {code}" if code else "") + named + (f" ({said})" if said else "")
    kind, text, hint = errors.AnswerError, f"the server refused: {words}", ""
    match status:
        case 409 | 410 if code == "CANCELLED":
            kind, text = errors.SessionCancelled, "the session was cancelled by another client"
        case 403 if code == protocol.NOT_YOURS and protocol.STORED_FILE in answer.url:
            kind, hint = errors.NotYours, OWNER_MISSING
            text = f"another client uploaded this file, and only that one may delete it: {words}"
        case 403 if code == protocol.NOT_YOURS:
            kind, hint = errors.NotYours, SECRET_MISSING
            text = f"another client created this session, and only that one may write to it: {words}"
        case 401 | 403:
            kind, hint = errors.Unauthorized, TOKEN_REFUSED if answer.authorized else TOKEN_MISSING
        case 404 | 410:
            kind, text = errors.NotFound, f"{answer.url}: {words}"
        case 408:
            kind, text = errors.TooSlow, "the request did not arrive within the server's time limit (408)"
        case 413 if not code and "Tus-Resumable" not in answer.headers:
            kind, text = errors.TooLarge, f"a proxy refuses requests of {answer.sent:,} bytes (413)"
            text += ": raise its limit, in nginx with client_max_body_size"
        case 429 if code == SHARE_USED:
            kind, text = errors.ShareUsed, f"this client holds its share of the server: {words}"
            hint = "try again when your other uploads have ended, or allow a longer --max-wait"
        case 429:
            kind, text = errors.RateLimited, f"the server's rate limit is used up: {words}"
            hint = "try again later, or allow a longer --max-wait"
        case _ if target is not None:
            text, hint = f"the server redirects to {mask(target)}", f"use {mask(target)} instead"
        case _ if status >= 500:
            kind, text = errors.ServerFault, f"the server failed: {words}"
    error = kind(text, status=status, error=code, hint=hint, retry_after=answer.retry_after)
    error.outage = not code and (status in OUTAGES or (status == 500 and is_page(answer)))
    return error


def not_an_upload_server(answer: Answer, option: str, *, endpoint: bool = False) -> errors.NotAnUploadServer:
    """Return the error for an answer that no upload server gives; `option` names the server, or the tus `endpoint`."""
    target = redirect_target(answer)
    if target:
        hint = f"it points to {mask(target)}: is that the address for {option}?"
    elif not endpoint and is_tus(answer):
        hint = "it is a tus server: use --tus-endpoint"
    else:
        hint = f"check {option}: its path, its port, and whether a proxy answers in its place"
    return errors.NotAnUploadServer(
        f"{answer.url} answered {answer.status}, but not as an upload server does", hint=hint
    )


def says_no_upload_server(answer: Answer) -> bool:
    """Return whether no tus server answers a creation so: with a page, a redirect, or a status without a reason."""
    if answer.ok:
        return "Location" not in answer.headers and not is_tus(answer)
    named = protocol.error_code(answer.body) or protocol.error_sentence(answer.body)
    return redirect_target(answer) is not None or (answer.status in NO_ENDPOINT and not named)


def is_tus(answer: Answer) -> bool:
    return "Tus-Resumable" in answer.headers or "Tus-Version" in answer.headers


def is_blocked(answer: Answer) -> bool:
    """Return whether a proxy or firewall refused the method, and not the server."""
    return answer.status in BLOCKED and not is_tus(answer) and not protocol.error_code(answer.body)


def refuse_missing_page(answer: Answer, option: str) -> None:
    """Raise `NotAnUploadServer` for the 404 of a web server; that of an upload server is no page for browsers."""
    if answer.status == 404 and is_page(answer):
        raise not_an_upload_server(answer, option)


def is_page(answer: Answer) -> bool:
    """Return whether the answer is a page for browsers, which no tus server gives."""
    return answer.headers.get("Content-Type", "").startswith("text/html") and not is_tus(answer)

"""The answer to a request, and what its headers say, whatever the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from uploader_cli.core.protocol import error_sentence, one_line, parse_http_date, whole
from uploader_cli.settings import mask


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
        return mask(error_sentence(self.body) or one_line(self.plain))

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> float | None:
        """`Retry-After` in seconds; None if missing or invalid."""
        value = self.headers.get("Retry-After") or ""
        seconds = whole(value)
        if seconds is not None:
            return float(seconds)
        date = parse_http_date(value)
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

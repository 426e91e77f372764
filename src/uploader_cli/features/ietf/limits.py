"""Checks of limits (section 4.1.4)."""

from __future__ import annotations

import re
import time
from functools import partial

from uploader_cli.core.upload_limits import UploadLimits
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.requests import (
    INTEROP,
    MOST,
    announced_limits,
    append,
    ask,
    begun,
    check_complete,
    check_limits,
    check_refused,
    endpoint,
    fresh,
    patch,
    try_creation,
)
from uploader_cli.features.smoke.expect import said
from uploader_cli.features.smoke.sending import file_of
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer

ROUNDING = 2
"""Seconds by which lifetimes may differ, as they are whole numbers and the clock of the answer is not ours."""

LIMIT_NAMES = {"max-size": "max_size", "min-size": "min_size", "min-append-size": "least", "max-append-size": "most"}

after_creation = partial(check, rests_on="ietf-creation", required=False)


@check(
    "ietf-limits-announced", "ietf: OPTIONS announces what uploads get", "files are refused that should be accepted",
    rests_on="ietf-options", required=False,
)  # fmt: skip
def announced(site: Site) -> None:
    """See section 4.1.4 (SHOULD NOT)."""
    _not_worse(announced_limits(site), check_limits(site.once(fresh).answer, "an empty creation"), "a creation")


def _not_worse(before: UploadLimits, later: UploadLimits, what: str) -> None:
    """Maxima may not get smaller, minima not larger."""
    for name, of in LIMIT_NAMES.items():
        old, new = getattr(before, of), getattr(later, of)
        worse = (new or 0) > (old or 0) if name.startswith("min") else new is not None and (old is None or new < old)
        if worse:
            expected = f"{old} or {'less' if name.startswith('min') else 'more'}" if old is not None else "no limit"
            raise Violation(f"{name} in the answer to {what}", expected=expected, got=str(new))


@check(
    "ietf-limits-kept", "ietf: limits do not get worse", "uploads fail in their middle",
    rests_on="ietf-append", required=False,
)  # fmt: skip
def kept(site: Site) -> None:
    """See section 4.1.4 (SHOULD NOT)."""
    url, data = begun(site, "limits")
    before = check_limits(ask(site, "HEAD", url), "HEAD of a new upload")
    append(site, url, 0, data[: len(data) // 2], "PATCH of the first half", complete=False)
    _not_worse(before, check_limits(ask(site, "HEAD", url), "HEAD after the first half"), "HEAD after the first half")


@after_creation("ietf-max-size", "ietf: the refusal of a file that is too large has the limits", "clients guess them")
def max_size(site: Site) -> str | None:
    """See section 4.1.4 (SHOULD): a file above `max-size` may be refused."""
    most = announced_limits(site).max_size
    if most is None:
        raise NotOffered("there is no max-size")
    made = try_creation(site, "max-size", most + 1)
    if made.answer.ok:
        return "the server does not enforce max-size when an upload is created"
    _with_limits(made.answer, "a creation above max-size")
    return None


def _with_limits(answer: Answer, what: str) -> None:
    check_refused(answer, what)
    if answer.status == 413:
        check_limits(answer, what)


@after_creation("ietf-max-append-size", "ietf: the refusal of a large append has the limits", "clients guess them")
def max_append_size(site: Site) -> str | None:
    """See section 4.1.4 (SHOULD): a larger content than `max-append-size` may be refused."""
    most = announced_limits(site).most
    if most is None or most >= MOST:
        raise NotOffered("there is no max-append-size" if most is None else f"max-append-size={most} is too much")
    made = try_creation(site, "max-append-size", most + 2)
    if not made.url:
        raise NotOffered(f"a file of {most + 2} bytes gets {said(made.answer)}")
    answer = patch(site, made.url, 0, bytes(most + 1), complete=False)
    if answer.ok:
        return "the server does not enforce max-append-size"
    _with_limits(answer, "PATCH above max-append-size")
    return None


@check(
    "ietf-min-append-size", "ietf: a short last append is accepted", "files can't be completed",
    rests_on="ietf-append",
)  # fmt: skip
def min_append_size(site: Site) -> None:
    """See section 4.1.4: `min-append-size` is not for a request that completes an upload."""
    least = announced_limits(site).least
    if not least:
        raise NotOffered("there is no min-append-size")
    url, data = begun(site, "min-append-size")
    append(site, url, 0, data[:-1], "PATCH of all bytes but one", complete=False)
    append(site, url, len(data) - 1, data[-1:], "PATCH of the last byte", complete=True)


@after_creation("ietf-max-age", "ietf: the end of an upload does not come nearer", "uploads end before they should")
def max_age(site: Site) -> str:
    """See section 4.1.4 (SHOULD NOT)."""
    url = site.once(fresh).url
    began = time.monotonic()
    first = _age(ask(site, "HEAD", url), "max-age")
    if first is None:
        raise NotOffered("there is no max-age")
    second = _age(ask(site, "HEAD", url), "max-age")
    passed = time.monotonic() - began
    if second is None or second + passed + ROUNDING < first:
        raise Violation("max-age of the second HEAD", expected=f"about {first - passed:.0f}", got=str(second))
    return f"max-age={second}"


def _age(answer: Answer, name: str) -> int | None:
    found = re.search(rf"(?:^|,)\s*{name}=(\d+)", answer.headers.get("Upload-Limit", ""))
    return int(found[1]) if found else None


@after_creation("ietf-expires", "ietf: interop version 6 has expires in place of max-age", "clients ignore the end")
def expires(site: Site) -> None:
    """See the changes since draft -05: it has renamed the limit."""
    if _age(site.once(fresh).answer, "max-age") is None:
        raise NotOffered("there is no max-age")
    endpoint(site)
    made = try_creation(site, "expires", len(file_of(site, "")[1]), version={INTEROP: "6"})
    if not made.answer.ok:
        raise NotOffered(f"interop version 6 gets {said(made.answer)}")
    check_complete(made.answer, "a creation of interop version 6", complete=False)
    if _age(made.answer, "expires") is None:
        got = made.answer.headers.get("Upload-Limit", "no Upload-Limit")
        raise Violation("Upload-Limit of interop version 6", expected="expires", got=got)

"""Checks of offset retrieval (section 4.3), and of redirects."""

from __future__ import annotations

from functools import partial

from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.requests import WRONG_REDIRECTS, ask, begun, check_state, fresh
from uploader_cli.features.smoke.expect import header, said
from uploader_cli.features.smoke.site import Site

after_creation = partial(check, rests_on="ietf-creation")


@after_creation(
    "ietf-no-store", "ietf: offsets are not cached", "clients resume at the offset of a cache", required=False
)
def no_store(site: Site) -> None:
    """See section 4.3.2 (SHOULD)."""
    answer, what = ask(site, "HEAD", site.once(fresh).url), "HEAD of an upload"
    header(answer, "Cache-Control", what, "no-store", lambda value: "no-store" in value.lower())


@after_creation("ietf-get", "ietf: GET tells the offset as HEAD does", "clients without HEAD can't resume")
def get(site: Site) -> None:
    """See section 4.3.2."""
    answer = ask(site, "GET", site.once(fresh).url)
    if not answer.ok:
        raise NotOffered(f"GET of an upload gets {said(answer)}")
    check_state(answer, "GET of an upload", offset=0, complete=False)


@after_creation(
    "ietf-redirects", "ietf: HEAD and DELETE are not redirected with 301 or 302", "clients send GET there",
    required=False,
)  # fmt: skip
def redirects(site: Site) -> None:
    """See sections 4.3.2 and 4.5.2 (SHOULD NOT)."""
    url, _ = begun(site, "redirected")
    for method in ("HEAD", "DELETE"):
        answer = ask(site, method, url, follows=False)
        if answer.status in WRONG_REDIRECTS:
            raise Violation(f"{method} of an upload", expected="another redirect, or none", got=said(answer))

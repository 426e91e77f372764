"""Checks of concurrent requests (section 4.6) and of cancellation (section 4.5)."""

from __future__ import annotations

import time
from functools import partial

from uploader_cli.errors import NetworkError, TimedOut
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.requests import (
    Overlap,
    ask,
    begun,
    check_complete,
    check_refused,
    overlapped,
    patch,
)
from uploader_cli.features.smoke.expect import answered, header, said, succeeded
from uploader_cli.features.smoke.sending import CUT_WAITS, read_back
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer

after_append = partial(check, rests_on="ietf-append")


@after_append("ietf-concurrency", "ietf: concurrent requests do no harm", "files are corrupted after a lost connection")
def concurrency(site: Site) -> str:
    """See section 4.6: the offset that HEAD tells is accepted while an older append is open, which adds nothing."""
    url, data = begun(site, "concurrent")

    def newer() -> tuple[int, Answer]:
        for pause in (*CUT_WAITS, 0.0):
            found = answered(ask(site, "HEAD", url, limit=site.patience), "HEAD during an append", 200, 204)
            at = int(header(found, "Upload-Offset", "HEAD during an append", "what has arrived", str.isdecimal))
            last = patch(site, url, at, data[at:], complete=True)
            if last.status not in (409, 423):
                break
            time.sleep(pause)
        return at, last

    try:
        (at, last), _ = overlapped(site, url, data, newer)
    except TimedOut as error:
        raise NotOffered("the server answers when the older request has ended") from error
    what = "PATCH at the offset of HEAD, during an append"
    check_complete(succeeded(last, what), what, complete=True)
    read_back(site, url, last, data)
    return f"continued at byte {at} of {len(data)}"


def _ended(overlap: Overlap, what: str) -> None:
    if overlap.older is not None and overlap.older.ok:
        raise Violation(f"an append during which {what} came", expected="no success", got=said(overlap.older))


@after_append(
    "ietf-newer", "ietf: a newer request ends the older one", "clients wait until the server gives up a lost request",
    required=False,
)  # fmt: skip
def newer_request(site: Site) -> None:
    """See section 4.6 (RECOMMENDED)."""
    url, data = begun(site, "newer")
    try:
        overlap = overlapped(site, url, data, lambda: ask(site, "HEAD", url, limit=site.patience))
    except NetworkError as error:
        raise Violation("HEAD during an append", expected="an answer", got=str(error)) from error
    _ended(overlap, "HEAD")


@after_append(
    "ietf-cancel", "ietf: an upload can be deleted", "abandoned uploads stay until they expire", required=False
)
def cancel(site: Site) -> None:
    """See section 4.5.2 (SHOULD)."""
    url, _ = begun(site, "cancelled")
    succeeded(ask(site, "DELETE", url), "DELETE of an upload")
    check_refused(ask(site, "HEAD", url), "HEAD of a deleted upload")
    site.uploads.discard(url)


@check(
    "ietf-cancel-open", "ietf: DELETE ends an append that is open", "cancelled uploads use the server further",
    rests_on="ietf-cancel", required=False,
)  # fmt: skip
def cancel_open(site: Site) -> None:
    """See section 4.5.2 (SHOULD)."""
    url, data = begun(site, "cancelled-open")
    try:
        overlap = overlapped(site, url, data, lambda: ask(site, "DELETE", url, limit=site.patience))
    except NetworkError as error:
        raise Violation("DELETE during an append", expected="an answer", got=str(error)) from error
    succeeded(overlap.newer, "DELETE during an append")
    _ended(overlap, "DELETE")

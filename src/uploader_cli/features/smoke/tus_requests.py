"""The requests of tus that checks send, and what each of them must answer; recorded for the clean-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, encode_metadata, endpoint_for
from uploader_cli.core.origins import resolved
from uploader_cli.features.checks.check import NotOffered, Violation
from uploader_cli.features.smoke.expect import answered, header, said, same
from uploader_cli.features.smoke.sending import (
    body_of,
    data_of,
    file_of,
    note_stored,
    nothing,
    session_of,
    stored_id,
    terms,
)
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.http_client import REDIRECTS


def offered(site: Site, extension: str = "") -> Capabilities:
    """Return the tus capabilities. Raises `NotOffered` without tus, or without the extension."""
    tus = site.once(terms).tus
    if tus is None:
        raise NotOffered("the session response has no tus endpoint")
    if tus.ietf:
        raise NotOffered("the endpoint speaks the IETF's protocol, and not tus")
    if extension and extension not in tus.extensions:
        raise NotOffered(f"{extension} is not among the tus extensions")
    return tus


def ask(
    site: Site,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    midway: Callable[[], None] = nothing,
) -> Answer:
    """Send a tus request, and record what it created or completed."""
    for _ in range(REDIRECTS + 1):
        answer = site.call(
            method,
            url,
            headers={"Tus-Resumable": TUS_VERSION, **(headers or {})},
            body=None if body is None else body_of(body, "application/offset+octet-stream", midway),
            may_refuse=True,
            leaves=method == "POST",
        )
        if answer.status not in (307, 308) or "Location" not in answer.headers:
            break
        with suppress(ValueError):
            url = resolved(answer.url, answer.headers["Location"])
    note_stored(site, method, url, answer)
    return answer


def create(
    site: Site,
    label: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    removable: bool = False,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, Answer]:
    """Create an upload with further `metadata`, which must succeed; return its URL and the response.

    `removable`: without a token the upload is not in a session, if the server accepts that, because then some servers
    delete the stored file without a token.
    """
    alone = removable and not (site.may_delete or site.settings.tus_endpoint) and site.once(_accepts_without_session)
    url, answer = created(site, file_of(site, label)[0], headers, body=body, alone=alone, **metadata)
    if not url:
        raise Violation("creating an upload", expected="201 with a Location on this server", got=said(answer))
    return url, answer


def created(
    site: Site,
    name: str,
    headers: Mapping[str, str],
    *,
    body: bytes | None = None,
    alone: bool = False,
    **metadata: str,
) -> tuple[str, Answer]:
    """Try to create an upload; return its URL, empty on failure, and the response. `alone`: without a session."""
    endpoint = offered(site).endpoint
    session = {} if alone else session_of(site)
    named = {"filename": name, "filetype": content_type(name), **session, **metadata}
    head = {"Upload-Metadata": encode_metadata(named), **headers}
    answer = ask(site, "POST", endpoint_for(endpoint, name), head, body)
    location = answer.headers.get("Location")
    if answer.status != 201 or not location:
        return "", answer
    try:
        url = resolved(answer.url, location)
    except ValueError:
        return "", answer
    if session and headers.get("Upload-Concat") != "partial":  # refused uploads and parts of a file need no space
        site.slots.pop()
    if stored := stored_id(site, answer):
        site.tus_files[stored] = url
    else:
        site.uploads.add(url)
    return url, answer


def begun(site: Site, label: str, *, removable: bool = False) -> tuple[str, bytes]:
    """Create an empty upload for a file; return its URL and the content of the file."""
    content = data_of(site)
    return create(site, label, {"Upload-Length": str(len(content))}, removable=removable)[0], content


def _accepts_without_session(site: Site) -> bool:
    """Return whether an upload can be created without a session. Use with `once`."""
    url, _ = created(site, file_of(site, "tus-alone")[0], {"Upload-Length": "2"}, alone=True)
    return bool(url)


def head_of(site: Site, url: str, what: str) -> Answer:
    return answered(ask(site, "HEAD", url), what, 200, 204)


def check_offset(answer: Answer, expected: int, what: str) -> None:
    value = header(answer, "Upload-Offset", what, str(expected), str.isdecimal)
    same(int(value), expected, f"Upload-Offset after {what}")


def append(site: Site, url: str, at: int, body: bytes, what: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a `PATCH`, which must succeed."""
    answer = answered(ask(site, "PATCH", url, {"Upload-Offset": str(at), **(headers or {})}, body), what, 204)
    check_offset(answer, at + len(body), what)
    return answer


class Halfway(NamedTuple):
    """A half-finished upload: `answer` is the response to its `PATCH`, `rest` the remaining bytes."""

    url: str
    answer: Answer
    at: int
    rest: bytes


def halfway(site: Site) -> Halfway:
    """Create an upload that several checks share, to save requests. Use with `once`."""
    url, content = begun(site, "tus-halfway")
    half = len(content) // 2
    return Halfway(url, append(site, url, 0, content[:half], "PATCH of the first half"), half, content[half:])


def check_version(site: Site, answer: Answer, what: str) -> None:
    """Check the version, which every response except that to OPTIONS must have; uploads to endpoints need none."""
    if "Tus-Resumable" in answer.headers or not site.settings.tus_endpoint:
        header(answer, "Tus-Resumable", what, TUS_VERSION, lambda value: value == TUS_VERSION)

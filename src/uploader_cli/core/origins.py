"""Which URLs belong to the server, which may get its credentials, and how its answers name them."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urljoin, urlsplit, urlunsplit

from uploader_cli.core.protocol import text

_UNAMBIGUOUS = re.compile(r"https?://[^\x00-\x20\x7f-\x9f\\/?#@]+(?:[/?#][^\x00-\x1f\x7f\\]*)?", re.IGNORECASE)
"""URLs that every parser reads alike: no user, backslash or control character."""
_ODD = frozenset("#'\"<>")  # a fragment, and what ends a URL in a text
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # urllib drops some of them


def endpoint_of(value: object, server: str) -> str | None:
    """Return an endpoint of `server` as a URL; None for another host, which would get the token."""
    endpoint = text(value)
    try:
        url = resolved(server, below(server, endpoint)) if endpoint else ""
    except ValueError:
        return None
    return url if endpoint and trusts(server, url) else None


def below(server: str, where: str, root: str = "/api/upload/") -> str:
    """Return the absolute path `where` below the path of `server`; anything else, and a path that is there, unchanged.

    A proxy that removes the path from requests may leave it out of the server's answers. The server's own paths begin
    with `root`: one is not there already because the path of `server` is `/api`, too.
    """
    prefix = urlsplit(server).path.rstrip("/")
    if not prefix or not where.startswith("/") or where.startswith("//"):
        return where
    is_there = where.startswith(f"{prefix}/") and (not where.startswith(root) or where.startswith(prefix + root))
    return where if is_there else prefix + where


def resolved(base: str, location: str) -> str:
    """Resolve a `Location` to an absolute URL (docs/resumable-uploads.md). Raises `ValueError` if it is unsafe.

    It may be relative. A server behind a TLS proxy may use http for its own host: then scheme and port of the base
    apply. A change from https to http elsewhere is refused, and so are backslashes, users and control characters.
    """
    location = location.strip(" ")
    if base.endswith("/") and location.startswith(base) and "#" not in location and _UNAMBIGUOUS.fullmatch(location):
        return location  # the common case, without parsing
    url = urljoin(base, location)
    ours, theirs = urlsplit(base), urlsplit(url)
    if not _UNAMBIGUOUS.fullmatch(url) or _CONTROL.search(location) or not theirs.hostname or theirs.port == 0:
        raise ValueError(f"{location!r} is not a usable URL")
    if ours.scheme == "https" and theirs.scheme == "http":
        if ours.hostname != theirs.hostname:
            raise ValueError(f"{location} changes from https to http")
        theirs = theirs._replace(scheme=ours.scheme, netloc=ours.netloc)
    return urlunsplit(theirs._replace(fragment=""))


@lru_cache(64)
def trusts(base: str, url: str) -> bool:
    """Return True if `url` may get the credentials of `base`: the same origin, or https instead of http (80, 443)."""
    try:
        ours, theirs = _origin(base), _origin(url)
    except ValueError:  # not a URL, or an ambiguous one
        return False
    return ours == theirs or (ours == ("http", theirs[1], 80) and theirs[::2] == ("https", 443))


def usable(url: str) -> bool:
    """Return whether `url` is an http or https URL that every parser reads alike."""
    return _UNAMBIGUOUS.fullmatch(url) is not None and re.fullmatch(r"[!-~]+", url) is not None and not set(url) & _ODD


def concealed(url: str) -> str:
    """Return the origin of an upload URL, whose rest is a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***"


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, without a user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    if not _UNAMBIGUOUS.fullmatch(url):
        raise ValueError("not a usable URL")
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

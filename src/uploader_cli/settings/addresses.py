"""Parsers of URLs: of servers, uploads and proxies."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from uploader_cli.core.masking import hide, remember_user
from uploader_cli.settings.values import Invalid, text


def server_url(raw: object) -> str:
    """Parse the server's base URL: scheme, host, port and path prefix, without a trailing slash.

    The default scheme is http on loopback and https elsewhere.
    """
    return endpoint_url(raw).rstrip("/")


def tus_endpoint(raw: object) -> str:
    """Parse the URL where a tus server creates uploads; path and query are kept exactly as written.

    They may contain `{path}`, `{name}` and `{dir}` for a server with a URL for each file.
    """
    base, mark, query = text(raw).strip().partition("?")
    if "#" in query or re.search(r"[^!-~]", query):
        raise Invalid(f"{raw!r}: #fragment and characters other than printable ASCII are not allowed")
    where = endpoint_url(base)
    template = urlsplit(where).path + mark + query
    unknown = re.sub(r"\{(path|name|dir)\}", "", template)
    if "{" in unknown or "}" in unknown or "{" in urlsplit(where).netloc:
        raise Invalid(f"{raw!r}: unknown field", hint="path and query may contain {path}, {name} and {dir}")
    return where + mark + query


def endpoint_url(raw: object) -> str:
    """Parse the URL of a server; its path is kept exactly as written."""
    written = text(raw).strip()
    if "@" in written:
        # Don't echo the URL here or below: the part before the @ is a secret.
        raise Invalid("credentials don't belong in the URL", hint="use UPLOADER_TOKEN, --token-file or --header")
    if re.search(r"[\s\x00-\x1f\x7f-\x9f\\]", written):
        raise Invalid(f"{written!r} is not a URL: it contains a space, a control character or a backslash")
    guessed = written if "://" in written else f"http://{written}"
    try:
        parts = urlsplit(guessed)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(f"{written!r} is not a URL: {error}") from None
    if not host or parts.netloc.endswith(":") or port == 0:
        raise Invalid(
            f"{written!r} is not a URL: the host is missing or the port is empty", hint="for example localhost:8005"
        )
    if parts.scheme not in ("http", "https"):
        raise Invalid(f"{written!r}: the scheme must be http or https, not {parts.scheme}")
    if parts.query or parts.fragment:
        raise Invalid(f"{written!r}: ?query and #fragment are not allowed")
    scheme = parts.scheme if "://" in written or _is_loopback(host) else "https"
    return f"{scheme}://{parts.netloc.lower()}{parts.path}"


def upload_url(raw: object) -> str:
    """Parse the URL of an existing upload. No message shows it: who knows it may write there."""
    written = text(raw).strip()
    try:
        parts = urlsplit(written)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = re.fullmatch(r"[!-~]+", written) and not re.search(r"[\\@#'\"<>]", written)
    if not host or port == 0 or parts.scheme not in ("http", "https") or not plain:
        raise Invalid("is not the URL of an upload", hint="give the whole URL as the service returned it, in quotes")
    hide(written)
    return written


def origin(url: str) -> str:
    """Return scheme, host and port of an http or https URL."""
    parts = urlsplit(url)
    default = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default)}"


def proxy_url(raw: object) -> str:
    """Parse the proxy's URL. It may contain credentials, so no message shows it."""
    written = text(raw).strip()
    try:
        parts = urlsplit(written if "://" in written else f"http://{written}")
        host, _ = parts.hostname, parts.port
        remember_user(parts.geturl())
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        hint = "for example http://proxy.example:3128 or socks5h://127.0.0.1:1080"
        raise Invalid("must be the URL of an http, https, socks5 or socks5h proxy", hint=hint)
    return parts.geturl()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

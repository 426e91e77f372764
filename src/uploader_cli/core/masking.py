"""Mask secrets in text."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
SESSION_MARK = "session_"
"""The beginning of secrets of sessions: they are masked by their form, since a run may have thousands."""

_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|password|credential|session|api-?key|signature", re.IGNORECASE)
# Each asks for the grammar of a header, so that "Basic training.mp4" and the hint "Authorization: Bearer …" stay.
_PATTERNS = (
    (  # in Python or JSON: a quoted name, a colon or comma, a quoted value
        re.compile(
            r"(['\"](?:(?:proxy-)?authorization|(?:set-)?cookie)['\"]\s*[:,]\s*b?)(?:'[^'\r\n]*'|\"[^\"\r\n]*\")",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (  # RFC 9110, section 11.4: a scheme, and a token or parameters
        re.compile(
            r"\b((?:proxy-)?authorization:\s*(?:basic|bearer|digest|negotiate|ntlm|token)\s+)"
            r"[\w.~+/=\"-]+(?:[,;]\s*[\w-]+=[^\s,;]+)*",
            re.IGNORECASE | re.ASCII,
        ),
        rf"\1{MASK}",
    ),
    (  # RFC 6265, section 4: pairs
        re.compile(r"\b((?:set-)?cookie:\s*)[^\s=:;,]+=[^\s;,]*(?:;\s*[^\s=;,]+=[^\s;,]*)*", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?<=://)[^\s/@]+(?=@)"), MASK),
    # The id of an upload, or the key of a pack, is the right to write on the bundled server.
    (re.compile(r"(?<=/api/upload/(?:files|packs)/)[0-9a-f]{32}(?![0-9a-f])"), MASK),
    (re.compile(rf"(?<![\w-]){SESSION_MARK}[\w-]{{32}}(?![\w-])", re.ASCII), MASK),
)
_TOO_SHORT = 4  # masking every "a" would reveal the secret

_secrets: set[str] = set()
_places: dict[str, re.Pattern[str]] = {}  # by origin


def remember(secret: str) -> None:
    """Register a secret to be masked.

    The set is process-wide because a bug report, written without any settings, must not contain secrets either.
    """
    if len(secret) >= _TOO_SHORT:
        _secrets.update({secret, quote(secret, safe="", errors="surrogateescape")})  # as in a URL


def remember_user(url: str) -> None:
    """Register the password in a URL, and the header `Basic` that is made of it. Raises `ValueError` for a bad URL."""
    parts = urlsplit(url)
    if parts.password:
        user, password = unquote(parts.username or ""), unquote(parts.password)
        for secret in (parts.password, password, b64encode(f"{user}:{password}".encode()).decode()):
            remember(secret)


def hide(url: str) -> None:
    """Register an upload URL, which gives the right to write: all URLs of its origin are masked but for the origin."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if origin not in _places:
        _places[origin] = re.compile(re.escape(origin) + r"/[^\s'\"<>]*[^\s'\"<>:;,.)]", re.IGNORECASE)


def mask(text: str) -> str:
    """Replace known secrets in `text`, and the values of headers that carry one, by `MASK`."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for origin, pattern in tuple(_places.items()):
        text = pattern.sub(f"{origin}/{MASK}", text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_header(name: str) -> bool:
    """Return True for headers that usually carry a secret: Authorization, Cookie, X-Api-Key and similar ones."""
    return bool(_SECRET_HEADER.search(name))

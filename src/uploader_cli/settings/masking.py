"""Mask secrets in text."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

MASK = "***"

_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|password|credential|session|api-?key|signature", re.IGNORECASE)
_PATTERNS = (
    # The quoted value, or the scheme, the value and what follows a comma or semicolon; not the rest of a sentence.
    (
        re.compile(
            r"(?i)((?:authorization|cookie)['\"]?\s*[:=,]\s*)"
            r"(?:'[^'\r\n]*'|\"[^\"\r\n]*\"|(?:[\w-]+\s+)?[^\s,;]+(?:[,;]\s*[^\s,;]+)*)"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[^\s'\"]+"), rf"\1\2{MASK}"),
    (re.compile(r"(?<=://)[^\s/@]+(?=@)"), MASK),
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


def hide(url: str) -> None:
    """Register an upload URL, which gives the right to write: all URLs of its origin are masked but for the origin."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if origin not in _places:
        _places[origin] = re.compile(re.escape(origin) + r"/[^\s'\"<>]*[^\s'\"<>:;,.)]", re.IGNORECASE)


def mask(text: str) -> str:
    """Replace known secrets in `text`, and what looks like one, by `MASK`."""
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

"""What must never be shown, and how a text is freed of it."""

from __future__ import annotations

import re
from urllib.parse import quote

MASK = "***"

_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|password|credential|session|api-?key|signature", re.IGNORECASE)
_PATTERNS = (
    # What is quoted, or the scheme, the value and what a comma or semicolon joins to it: not the rest of a sentence.
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
_TOO_SHORT = 4  # masking every "a" would say more about the secret than it hides

_secrets: set[str] = set()


def remember(secret: str) -> None:
    """Take note of a secret that came into this process.

    The one piece of process-wide state here: a crash report is written where no settings are at hand, and must not
    show what any of them held.
    """
    if len(secret) >= _TOO_SHORT:
        _secrets.update(
            {secret, quote(secret, safe="", errors="surrogateescape")}
        )  # as a server may write it into an address


def mask(text: str) -> str:
    """`text` without the secrets this process has seen, and without what looks like one."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_header(name: str) -> bool:
    """True for headers that usually carry a secret: Authorization, Cookie, X-Api-Key and their like."""
    return bool(_SECRET_HEADER.search(name))

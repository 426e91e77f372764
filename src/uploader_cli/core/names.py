r"""Encode file names that are not valid UTF-8 for JSON, XML and CSV: escaped (`\xff`), and their bytes in base64."""

from __future__ import annotations

import base64
import json
import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_ACTIVE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON does not escape but terminals interpret: DEL, C1 controls, line separators, bidi marks."""


def escaped(text: str) -> str:
    r"""Escape what is not Unicode in `text`: `\xff` for a byte, `\ud800` for an unpaired surrogate."""
    return _SURROGATE.sub(_escape, text)


def inert(text: str) -> str:
    """Escape characters in JSON text that a terminal would interpret; its value is unchanged."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _ACTIVE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def json_line(value: object) -> str:
    """Format an untrusted value as one line of JSON, safe for a terminal."""
    text = inert(json.dumps(value, ensure_ascii=False))
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match.group()):04x}", text) + "\n"


def as_base64(name: str) -> str | None:
    """Return the bytes of a name that `escaped` would change, in base64, else None."""
    return base64.b64encode(raw_bytes(name)).decode("ascii") if _SURROGATE.search(name) else None


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def raw_bytes(name: str) -> bytes:
    """Return the name's bytes as in the file system, independent of the locale (unlike `os.fsencode`)."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an unpaired surrogate in a Windows name
        return name.encode("utf-8", "surrogatepass")

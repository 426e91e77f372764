r"""Encode names and times for JSON, XML and CSV. Bytes that are not UTF-8 are escaped (`\xff`), or given in base64."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_ACTIVE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON does not escape but terminals interpret: DEL, C1 controls, line separators, bidi marks."""


def escaped(text: str) -> str:
    r"""Escape what is not Unicode in `text`: `\xff` for a byte, `\ud800` for an unpaired surrogate."""
    return _SURROGATE.sub(_escape, decoded(text))


def decoded(name: str) -> str:
    """Return a name with the UTF-8 that a locale with another encoding did not decode."""
    if not _SURROGATE.search(name):
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an unpaired surrogate, as a name in JSON may have it
        return name


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


def portable(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a JSON object with valid text; an undecodable `path` is also given as `path_b64`."""
    out: dict[str, Any] = {}
    for name, value in fields.items():
        out[name] = value if type(value) is not str or value.isascii() else escaped(value)
        if name == "path" and out[name] is not value and (raw := as_base64(value)) is not None:
            out["path_b64"] = raw
    return out


def rfc3339(at: float) -> str:
    """Format unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def raw_bytes(name: str) -> bytes:
    """Return the name's bytes as in the file system, independent of the locale (unlike `os.fsencode`)."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an unpaired surrogate, as a name in JSON may have it
        return name.encode("utf-8", "surrogatepass")

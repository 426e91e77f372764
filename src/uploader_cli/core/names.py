r"""Names of files that no UTF-8 can carry, as JSON, XML and CSV may: the odd bytes escaped (`\xff`), and the bytes."""

from __future__ import annotations

import base64
import json
import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_ACTIVE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON leaves as it is and a terminal acts on: DEL, C1 controls, line separators, marks of writing direction."""


def escaped(text: str) -> str:
    r"""`text` with what is no Unicode as an escape: `\xff` for a byte, `\ud800` for an unpaired surrogate."""
    return _SURROGATE.sub(_escape, text)


def inert(text: str) -> str:
    """JSON text that a terminal shows as it is: what it would act on as an escape of JSON, which means the same."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _ACTIVE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def json_line(value: object) -> str:
    """A value that came from outside as one line of JSON, for a terminal or a pipe."""
    text = inert(json.dumps(value, ensure_ascii=False))
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match.group()):04x}", text) + "\n"


def as_base64(name: str) -> str | None:
    """The bytes of a name that `escaped` would change, in base64; None where it says everything."""
    return base64.b64encode(raw_bytes(name)).decode("ascii") if _SURROGATE.search(name) else None


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def raw_bytes(name: str) -> bytes:
    """The name's bytes as the file system has them, the same on every machine (`os.fsencode` follows the locale)."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an unpaired surrogate in a Windows name
        return name.encode("utf-8", "surrogatepass")

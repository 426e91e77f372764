"""What a tus server makes of a file after its upload: where its state is asked for, and what the answers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from uploader_cli.core.origins import resolved, usable
from uploader_cli.core.protocol import error_sentence, one_line, text

_FIELD = re.compile(r"\{([^{}]+)\}")
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0  # seconds between two questions about one file
PAUSE_SHARE = 0.2  # of the time since the upload that may pass until the next one
_REASON = re.compile("reason|message|error|detail", re.IGNORECASE)


def fields_of(template: str) -> list[str]:
    """Return the names of the fields: `url` of the upload, `id` of the file, `header:NAME` of the last answer."""
    return [found[1] for found in _FIELD.finditer(template)]


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return the URL of a template; `values` always has `url`.

    A field at the start is a URL, also one that is relative to the upload: the path that follows goes before its query,
    a query after it. All other values are quoted. Raise `ValueError` for a missing value, one that would be another
    path, and an unusable URL.
    """
    first = _FIELD.match(template)

    def value_of(name: str) -> str:
        if name not in values:
            raise ValueError(f"the server's last answer has no {name.replace(':', ' ')}")
        return values[name]

    def quoted(found: re.Match[str]) -> str:
        if (value := value_of(found[1])) in (".", ".."):
            raise ValueError(f"{found[1]} is {value}")
        return quote(value, safe="")

    rest = _FIELD.sub(quoted, template[first.end() if first else 0 :])
    if first is None:
        return rest
    start = value_of(first[1])
    where, _, query = resolved(values["url"], start).partition("?")
    path, _, own = rest.replace("&", "?", rest.startswith("&")).partition("?")
    url = where + path + ("?" if query or own else "") + "&".join(filter(None, (query, own)))
    if not usable(url):
        raise ValueError(f"{start!r} is not a usable URL")
    return url


def found_at(body: object, path: str) -> object:
    """Return the value at a dotted path, numbers for the items of a list; None without one."""
    for name in path.split("."):
        if isinstance(body, list) and name.isdecimal() and len(name) < 10:
            body = body[int(name)] if int(name) < len(body) else None
        else:
            body = body.get(name) if isinstance(body, dict) else None
    return body


def written(value: object) -> str | None:
    """Return a string, a number or a boolean as it is written in JSON, a string without its quotes; else None."""
    return (
        text(value) if isinstance(value, str) else json.dumps(value) if isinstance(value, bool | int | float) else None
    )


def link_at(body: object, path: str, base: str) -> str | None:
    """Return the URL at a dotted path, which may be relative to `base`; None without a usable one."""
    value = text(found_at(body, path))
    try:
        return resolved(base, value) if value else None
    except ValueError:
        return None


def reason_in(body: object, path: str) -> str:
    """Return the server's reason beside the value at `path`, or in what contains that; empty without one."""
    names = path.split(".")[:-1]
    for depth in range(len(names), -1, -1):
        inner = found_at(body, ".".join(names[:depth])) if depth else body
        if sentence := error_sentence(inner) or one_line(max(_reasons(inner), key=len, default="")):
            return sentence
    return ""


def _reasons(fields: object) -> Iterator[str]:
    """Yield the texts under names that say so, as `errorReasonText`; also those of lists and of inner objects."""
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if isinstance(name, str) and _REASON.search(name):
            if isinstance(value, list):
                value = "; ".join(filter(None, map(text, value)))
            yield from [text(value) or ""] if not isinstance(value, dict) else _reasons(value)


def pause_before(waited: float) -> float:
    """Return the seconds until the next question about a file that was stored `waited` seconds ago."""
    return min(LAST_PAUSE, max(FIRST_PAUSE, waited * PAUSE_SHARE))

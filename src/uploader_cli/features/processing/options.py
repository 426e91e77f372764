"""The values of `--result-url` and its companions."""

from __future__ import annotations

import re
from typing import NamedTuple

from uploader_cli.errors import UsageError
from uploader_cli.feature import options_of
from uploader_cli.features.processing.answers import fields_of
from uploader_cli.settings import Settings
from uploader_cli.settings.addresses import endpoint_url
from uploader_cli.settings.resolution import without
from uploader_cli.settings.values import Invalid, or_none, seconds, text

_COMPANIONS = ("result_done", "result_failed", "result_link", "result_timeout")
_FIELD = re.compile(r"\{(url|id|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)\}")


class Condition(NamedTuple):
    """One `--result-done` or `--result-failed`: the dotted path of a field, and its value as JSON writes it."""

    path: str
    value: str

    def __str__(self) -> str:
        return f"{self.path}={self.value}"


class Results(NamedTuple):
    """The settings of the feature; the time is in seconds."""

    result_url: str | None
    result_done: tuple[Condition, ...]
    result_failed: tuple[Condition, ...]
    result_link: str | None
    result_timeout: float


def _template(raw: object) -> str:
    """Parse the template of a URL with `{url}`, `{id}` and `{header:NAME}`.

    It begins with the URL of the upload or one in a header, or it names a host: no answer chooses a part of that.
    """
    written = text(raw).strip()
    hint = "for example 'https://api.example/videos/{id}', '{url}/status' or '{header:X-Status-URL}'"
    plain = _FIELD.sub("", written)
    if "{" in plain or "}" in plain:
        raise Invalid(f"{raw!r}: unknown field", hint="fields are {url}, {id} and {header:NAME}")
    if re.search(r"[^!-~]|[\\#'\"<>]", plain):
        raise Invalid(f"{raw!r}: #fragment, quotes and characters other than printable ASCII are not allowed")
    first = _FIELD.match(written)
    if first is not None and first[1] != "id":
        if written[first.end() : first.end() + 1] not in ("", "/", "?", "&"):
            raise Invalid(f"{raw!r}: after {first[0]} comes / or ?", hint=hint)
        return written
    found = re.fullmatch(r"(https?://[^/?{]+)([/?].*)", written)
    if found is None:
        raise Invalid(f"{raw!r} is not a URL that begins with http://, https:// or a field", hint=hint)
    return endpoint_url(found[1]) + found[2]


def _field_path(raw: object) -> str:
    """Parse the dotted path of a field in JSON, as `data.status.state` or `items.0.url`."""
    path = text(raw).strip()
    if not all(path.split(".")) or re.search(r"[\s=]", path):
        raise Invalid(f"must be names with dots between them, not {raw!r}", hint="for example data.status.state")
    return path


def condition(raw: object) -> Condition:
    """Parse `FIELD=VALUE`."""
    path, equals, value = text(raw).partition("=")
    if not equals or not value.strip():
        raise Invalid(f"must be written FIELD=VALUE, not {raw!r}", hint="for example data.status.state=ready")
    return Condition(_field_path(path), value.strip())


template, link, timeout = or_none(_template), or_none(_field_path), seconds(zero=False)


def resolved(settings: Settings) -> Settings:
    """Return the settings without companions that have no URL. Raise `UsageError` for those of the command line.

    Raise it also for a URL where nothing says when a file is processed.
    """
    results = options_of(settings, Results)
    if not results.result_url:
        hint = "name the URL to ask at, for example --result-url '{url}/status'"
        return without(settings, _COMPANIONS, "--result-url", hint)
    if not results.result_done:
        hint = "say when a file is processed, for example --result-done state=ready"
        raise UsageError(f"{settings.source('result_url')} needs --result-done", hint=hint)
    return settings


def awaited(settings: Settings) -> list[str]:
    """Return what the URL needs of the last answer for a file: that of the upload, and the fields of the template."""
    return ["url", *fields_of(options_of(settings, Results).result_url or "")]

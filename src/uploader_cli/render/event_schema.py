"""The JSON Schema of the event stream, derived from the events in `core.events`."""

from __future__ import annotations

import json
from types import NoneType
from typing import Annotated, Any, Union, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import schema_components
from msgspec.structs import fields

from uploader_cli.core import events as ev
from uploader_cli.exit_status import Exit
from uploader_cli.render.ndjson import STREAM_VERSION

_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
_HEAD = [
    ("v", Annotated[int, Meta(extra_json_schema={"const": STREAM_VERSION})]),
    ("seq", Annotated[int, Meta(ge=1, description="From 1, without gaps")]),
    ("run", Annotated[str, Meta(min_length=1, description="Run ID, the same in every line; for `uploader resume`")]),
    ("ts", Annotated[str, Meta(pattern=_TIME, description="RFC 3339, UTC, milliseconds")]),
]
"""The fields that begin each line."""
_PATH = Meta(description="As selected; undecodable bytes are escaped as \\xNN, and `path_b64` has the path in base64")
_RAW = Meta(description="The raw bytes of a path that is not UTF-8", extra_json_schema={"contentEncoding": "base64"})
_KNOWN: dict[str, list[Any]] = {
    "path": [("path", Annotated[str, _PATH]), ("path_b64", Annotated[str, _RAW] | UnsetType, UNSET)],
    "exit_code": [("exit_code", Annotated[int, Meta(extra_json_schema={"enum": [code.value for code in Exit]})])],
}
"""Fields whose type in an event is wider than in a line."""


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of one line."""
    references, parts = schema_components(map(_line, ev.public_events()), ref_template="#/$defs/{name}")
    lines = [parts.pop(line["$ref"].rpartition("/")[2]) for line in references]
    for part in parts.values():
        if fields_of := part.get("properties"):  # unlike a line, it has all of them
            part |= {"required": list(fields_of), "additionalProperties": False}
            for value in fields_of.values():
                value.pop("default", None)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:uploader-cli:schemas/events/v{STREAM_VERSION}",
        "title": "One line of `uploader … --json`",
        "description": "Sizes are in bytes, times in seconds, rates in bytes per second.",
        "oneOf": lines,
        "$defs": parts,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False)


def _line(event: type[ev.Event]) -> type[Struct]:
    """Return a struct with the fields of an event's line: those that are omitted if they are None are never null."""
    listed: list[Any] = [*_HEAD, ("type", Annotated[str, Meta(extra_json_schema={"const": event.type})])]
    for info in fields(event):
        if info.name in ev.internal_fields(event):
            continue
        if info.name in _KNOWN:
            listed += _KNOWN[info.name]
        elif info.default is None:
            kinds = [UnsetType if kind is NoneType else kind for kind in get_args(info.type)]
            listed.append((info.encode_name, Union[tuple(kinds)], UNSET))  # noqa: UP007 - of a variable number
        else:
            listed.append((info.encode_name, info.type))
    return defstruct(
        event.type,
        listed,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": (event.__doc__ or "").partition("\n")[0].replace("None", "null")},
    )

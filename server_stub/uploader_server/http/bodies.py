"""The JSON of requests, declared once: `/openapi.json` shows these schemas, and bodies are checked against them.

The messages are those of the reference backend's validator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from uploader_server.config import Limits
from uploader_server.wire import CATEGORIES, is_uuid

Schema = dict[str, Any]

LATEST = 1 << 53  # latest time in milliseconds: the largest integer that every JSON parser represents exactly
MOST_TO_FIND = 1000  # maximum files of a lookup


class PackLimits(NamedTuple):
    """Limits of a pack; shown as `packs` in `/health` and in the session response."""

    files: int = 1000
    bytes: int = 32 << 20  # data of one pack
    file_size: int = 4 << 20


# A record has a name and fields: `name:type` (default: text), `name?:type` if optional, `name=constant`. A type is one
# of `types`, a record, `[type]` for a list, or `[type|type]` for a list of either. `...` allows other fields.
_RECORDS = """
NewSession      category:category expectedFiles:expected-files
FilesToValidate files:files-to-validate
FileToValidate  name:name size:file-size type:name
Finish          failed?:failed-files
Manifest        sessionId files:pack-files ifExists?:if-exists
PackFile        relativePath size:pack-file-size sha256:sha256 lastModified:milliseconds
Lookup          category:category files:files-to-find digests?:digests
FileToFind      relativePath size:integer sha256?
ContentAnalysis videoPath:video category?:category? sessionId?:id? ...
FusionAnalysis  video1Path:video video2Path:video category?:category? sessionId?:id? ...
MusicPrompt     fusionPlan:plan category?:category? sessionId?:id? ...
"""


def whole(lowest: int, highest: int, **more: str) -> Schema:
    return {"type": "integer", "minimum": lowest, "maximum": highest, **more}


def one_of(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


def _list_of(name: str, **limits: int) -> Schema:
    return {"type": "array", "items": ref(name), **limits}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "name": {"type": "string", "minLength": 1},
    "id?": {"type": ["string", "null"], "format": "uuid"},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "video": {"type": "string", "minLength": 1, "description": "filePath of a batch response"},
    "plan": {"type": ["object", "string"], "minProperties": 1, "minLength": 1},
    "digests": one_of(["known", "compute", "read"]),
    "if-exists": one_of(["rename", "fail"]),
    "integer": {"type": "integer"},
    "milliseconds": whole(-LATEST, LATEST, description="Milliseconds"),
    "category": one_of(CATEGORIES),
    "category?": {"enum": [*CATEGORIES, None]},
    "files-to-find": _list_of("FileToFind", maxItems=MOST_TO_FIND),
}


def schemas(limits: Limits, *, large_packs: bool = False) -> dict[str, Schema]:
    """Return the schemas of request bodies by name. With `large_packs` a pack has no limits."""
    packs = PackLimits()
    small = {} if large_packs else {"maximum": min(packs.file_size, limits.max_size)}
    few = {} if large_packs else {"maxItems": packs.files}
    types = TYPES | {
        "expected-files": whole(1, limits.max_files),
        "files-to-validate": _list_of("FileToValidate", minItems=1, maxItems=limits.max_files),
        "file-size": whole(1, limits.max_size),
        "failed-files": whole(0, limits.max_files, description="Files that the client won't send"),
        "pack-files": _list_of("PackFile", minItems=1, **few),
        "pack-file-size": {"type": "integer", "minimum": 0, **small},
    }
    return records(_RECORDS, types)


def records(text: str, types: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the schemas of records by name."""
    lines = text.replace("\n  ", " ").strip().split("\n")
    return {name: _record(fields.split(), types) for name, fields in (line.split(maxsplit=1) for line in lines)}


def _record(fields: list[str], types: Mapping[str, Schema]) -> Schema:
    properties, required = {}, []
    for field in fields:
        left, colon, kind = field.partition(":")
        name, equals, constant = left.partition("=")
        if name != "...":
            properties[name.rstrip("?")] = {"const": constant} if equals else _type(kind if colon else "text", types)
            required += [] if name.endswith("?") else [name]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": "..." in fields}


def _type(kind: str, types: Mapping[str, Schema]) -> Schema:
    if not kind.startswith("["):
        return types.get(kind) or ref(kind)
    items = [_type(item, types) for item in kind[1:-1].split("|")]
    return {"type": "array", "items": {"anyOf": items} if len(items) > 1 else items[0]}


Problems = Sequence[tuple[str, str]]
"""Where in a value something is wrong, as `files[0].size`, and what."""
Check = Callable[[Any], Problems]


class Bodies:
    """Checks bodies against schemas. With `whole_floats` 3.0 is an integer, as in JavaScript."""

    def __init__(self, schemas: Mapping[str, Schema], *, whole_floats: bool = False) -> None:
        self._whole_floats = whole_floats
        self._schemas = schemas
        self._checks = {name: self._check(schema) for name, schema in schemas.items()}

    def problems(self, name: str, body: Any) -> list[str]:
        """Return what is wrong with a body; nothing if it matches the schema `name`."""
        return [f'"{at or "value"}" {what}' for at, what in self._checks[name](body)]

    def _check(self, schema: Schema) -> Check:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        if "enum" in schema:
            return _enum(schema["enum"])
        makers = {"object": self._object, "array": self._array, "string": _string, "integer": self._integer}
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        checks = {kind: makers[kind](schema) for kind in kinds if kind != "null"}
        return next(iter(checks.values())) if len(kinds) == 1 else _either(checks, optional="null" in kinds)

    def _object(self, schema: Schema) -> Check:
        checks = {key: self._check(inner) for key, inner in schema.get("properties", {}).items()}
        required, closed = set(schema.get("required", ())), not schema.get("additionalProperties", True)
        fewest = schema.get("minProperties", 0)

        def check(value: Any) -> Problems:
            if not isinstance(value, dict):
                return [("", "must be of type object")]
            if len(value) < fewest:
                return [("", "is not allowed to be empty")]
            found: list[tuple[str, str]] = []
            for key, inner in checks.items():
                if key in value:
                    if problems := inner(value[key]):
                        found += _below(key, problems)
                elif key in required:
                    found.append((key, "is required"))
            if closed and not value.keys() <= checks.keys():
                found.append((next(key for key in value if key not in checks), "is not allowed"))
            return found

        return check

    def _array(self, schema: Schema) -> Check:
        inner, fewest, most = self._check(schema["items"]), schema.get("minItems", 0), schema.get("maxItems")

        def check(value: Any) -> Problems:
            if not isinstance(value, list):
                return [("", "must be an array")]
            if len(value) < fewest:
                return [("", f"must contain at least {fewest} items")]
            if most is not None and len(value) > most:
                return [("", f"must contain less than or equal to {most} items")]
            found: list[tuple[str, str]] = []
            for index, item in enumerate(value):
                if problems := inner(item):
                    found += _below(f"[{index}]", problems)
            return found

        return check

    def _integer(self, schema: Schema) -> Check:
        lowest, highest, whole_floats = schema.get("minimum"), schema.get("maximum"), self._whole_floats

        def check(value: Any) -> Problems:
            if type(value) is not int and not (whole_floats and isinstance(value, float) and value.is_integer()):
                return [("", "must be an integer" if isinstance(value, float) else "must be a number")]
            if lowest is not None and value < lowest:
                return [("", f"must be greater than or equal to {lowest}")]
            if highest is not None and value > highest:
                return [("", f"must be less than or equal to {highest}")]
            return ()

        return check


def _below(place: str, problems: Problems) -> Problems:
    return [(f"{place}.{at}" if at and at[0] != "[" else place + at, what) for at, what in problems]


def _enum(values: list[Any]) -> Check:
    wrong = [("", f"must be one of [{', '.join('null' if value is None else value for value in values)}]")]
    return lambda value: () if value in values else wrong


def _string(schema: Schema) -> Check:
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
    fewest, most, uuid = schema.get("minLength", 0), schema.get("maxLength"), schema.get("format") == "uuid"

    def check(value: Any) -> Problems:
        if not isinstance(value, str):
            return [("", "must be a string")]
        if len(value) < fewest:
            return [("", "is not allowed to be empty")]
        if most is not None and len(value) > most:
            return [("", f"length must be less than or equal to {most} characters long")]
        if pattern is not None and pattern.fullmatch(value) is None:
            return [("", f"must match {pattern.pattern}")]
        return () if not uuid or is_uuid(value) else [("", "must be a valid GUID")]

    return check


def _either(checks: Mapping[str, Check], *, optional: bool) -> Check:
    """Return the check of a value that is a string or, if the schema has them, an object or null."""

    def check(value: Any) -> Problems:
        if value is None and optional:
            return ()
        return checks["object" if isinstance(value, dict) and "object" in checks else "string"](value)

    return check

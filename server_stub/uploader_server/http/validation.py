"""Validation of JSON bodies, with the messages of the reference backend's validator."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Any

from uploader_server.http.errors import ApiError, parse_json
from uploader_server.wire import CATEGORIES, extension

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_server.config import Limits

MOST_PROBLEMS = 1000  # maximum problems reported for one body
_FORMAT = {False: "Unsupported file format (.{})", True: "不支持的文件格式 (.{})"}
_MIME = {False: "Unsupported MIME type ({})", True: "不支持的MIME类型 ({})"}
_MIXED = {False: "All files must have the same type", True: "所有文件必须是相同类型"}
_MORE_MIMES = {"avi": {"video/avi", "video/x-msvideo", "video/msvideo"}}


def session_request(body: Any, max_files: int) -> tuple[str, int]:
    """Return `category` and `expectedFiles` of a new session. Raises ApiError 400 INVALID_CATEGORY."""
    problems = _problems(
        "", body, {"category": _category_problem, "expectedFiles": lambda at, n: _number_problem(at, n, max_files)}
    )
    if problems:
        raise ApiError(400, "INVALID_CATEGORY", "The session can't be created", details=problems[0])
    return body["category"], int(body["expectedFiles"])


def finish_request(body: Any, max_files: int) -> int:
    """Return `failed` of a `finish` (default 0). Raises ApiError 400 VALIDATION_ERROR."""
    body = {"failed": 0, **body} if isinstance(body, dict) else body
    problems = _problems("", body, {"failed": lambda at, n: _number_problem(at, n, max_files, 0)})
    if problems:
        raise ApiError(400, "VALIDATION_ERROR", "The session can't be ended", details=problems[0])
    return int(body["failed"])


def validated(text: bytes, limits: Limits, *, chinese: bool) -> list[dict[str, Any]]:
    """Parse a body and check its files (slow: run in a thread). Raises ApiError 400 VALIDATION_ERROR."""
    try:
        body = parse_json(text)
    except ValueError:
        body = None
    problems = _problems("", body, {"files": lambda at, files: _list_problem(at, files, limits.max_files)})
    if not problems:
        checks = {
            "name": _text_problem,
            "size": lambda at, size: _number_problem(at, size, limits.max_size),
            "type": _text_problem,
        }
        for index, file in enumerate(body["files"]):
            problems += _problems(f"files[{index}]", file, checks)
    if problems:
        raise ApiError(400, "VALIDATION_ERROR", "The files can't be validated", details=problems[:MOST_PROBLEMS])
    return judge(body["files"], limits, chinese=chinese)


def _problems(at: str, body: Any, checks: Mapping[str, Callable[[str, Any], str | None]]) -> list[str]:
    """Return the problems of an object that must have these keys."""
    if not isinstance(body, dict):
        return [f'"{at or "value"}" must be of type object']
    prefix = f"{at}." if at else ""
    found = [
        check(f"{prefix}{key}", body[key]) if key in body else f'"{prefix}{key}" is required'
        for key, check in checks.items()
    ]
    found += [f'"{prefix}{key}" is not allowed' for key in body if key not in checks][:1]
    return [problem for problem in found if problem is not None]


def _category_problem(at: str, value: Any) -> str | None:
    return None if value in CATEGORIES else f'"{at}" must be one of [{", ".join(CATEGORIES)}]'


def _list_problem(at: str, value: Any, most: int) -> str | None:
    if not isinstance(value, list):
        return f'"{at}" must be an array'
    if not value:
        return f'"{at}" must contain at least 1 items'
    return f'"{at}" must contain less than or equal to {most} items' if len(value) > most else None


def _text_problem(at: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return f'"{at}" must be a string'
    return None if value else f'"{at}" is not allowed to be empty'


def _number_problem(at: str, value: Any, highest: int, lowest: int = 1) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f'"{at}" must be a number'
    if isinstance(value, float) and not value.is_integer():
        return f'"{at}" must be an integer'
    if value < lowest:
        return f'"{at}" must be greater than or equal to {lowest}'
    return f'"{at}" must be less than or equal to {highest}' if value > highest else None


def judge(files: list[dict[str, Any]], limits: Limits, *, chinese: bool) -> list[dict[str, Any]]:
    """Check each file against the limits: `{index, valid, errors}`."""
    mixed = not limits.mixed_types and len({extension(file["name"]) for file in files}) > 1
    judged = []
    for index, file in enumerate(files):
        ending, errors = extension(file["name"]), []
        if not limits.allows(ending):
            errors.append(_FORMAT[chinese].format(ending))
        if "*" not in limits.types and file["type"] not in _mimes(limits.types):
            errors.append(_MIME[chinese].format(file["type"]))
        if mixed:
            errors.append(_MIXED[chinese])
        judged.append({"index": index, "valid": not errors, "errors": errors})
    return judged


def _mimes(types: tuple[str, ...]) -> set[str]:
    """Return the MIME types of file name extensions; `application/octet-stream` for unknown ones."""
    known = {mimetypes.guess_type(f"x.{ending}")[0] or "application/octet-stream" for ending in types}
    return known.union(*(_MORE_MIMES.get(ending, set()) for ending in types))

"""Validation of JSON bodies, with the messages of the reference backend's validator."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Any

from uploader_server.http.errors import ApiError, parse_json
from uploader_server.wire import CATEGORIES, extension

if TYPE_CHECKING:
    from uploader_server.config import Limits

MOST_PROBLEMS = 1000
"""Maximum problems reported for one body."""
_FORMAT = {False: "Unsupported file format (.{})", True: "不支持的文件格式 (.{})"}
_MIME = {False: "Unsupported MIME type ({})", True: "不支持的MIME类型 ({})"}
_MIXED = {False: "All files must have the same type", True: "所有文件必须是相同类型"}
_MORE_MIMES = {"avi": {"video/avi", "video/x-msvideo", "video/msvideo"}}


def session_request(body: Any, max_files: int) -> tuple[str, int]:
    """Return `category` and `expectedFiles` of a new session. Raises ApiError 400 INVALID_CATEGORY."""
    problem = _session_problem(body, max_files)
    if problem is not None:
        raise ApiError(400, "INVALID_CATEGORY", "The session can't be created", details=problem)
    return body["category"], int(body["expectedFiles"])


def _session_problem(body: Any, max_files: int) -> str | None:
    if not isinstance(body, dict):
        return '"value" must be of type object'
    category, expected = body.get("category"), body.get("expectedFiles")
    if "category" not in body:
        return '"category" is required'
    if category not in CATEGORIES:
        return f'"category" must be one of [{", ".join(CATEGORIES)}]'
    if "expectedFiles" not in body:
        return '"expectedFiles" is required'
    return _number_problem("expectedFiles", expected, max_files) or _unknown_key(
        "", body, {"category", "expectedFiles"}
    )


def finish_request(body: Any, max_files: int) -> int:
    """Return `failed` of a `finish` (default 0). Raises ApiError 400 VALIDATION_ERROR."""
    if not isinstance(body, dict):
        problem: str | None = '"value" must be of type object'
    else:
        problem = _number_problem("failed", body.get("failed", 0), max_files, 0) or _unknown_key("", body, {"failed"})
    if problem is not None:
        raise ApiError(400, "VALIDATION_ERROR", "The session can't be ended", details=problem)
    return int(body.get("failed", 0))


def validated(text: bytes, limits: Limits, *, chinese: bool) -> list[dict[str, Any]]:
    """Parse a body and check its files (slow: run in a thread). Raises ApiError 400 VALIDATION_ERROR."""
    try:
        body = parse_json(text)
    except ValueError:
        body = None
    return judge(validation_request(body, limits), limits, chinese=chinese)


def validation_request(body: Any, limits: Limits) -> list[dict[str, Any]]:
    """Return the files to validate. Raises ApiError 400 VALIDATION_ERROR with problems in `details`."""
    problems = _validation_problems(body, limits)
    if problems:
        raise ApiError(400, "VALIDATION_ERROR", "The files can't be validated", details=problems[:MOST_PROBLEMS])
    files: list[dict[str, Any]] = body["files"]
    return files


def _validation_problems(body: Any, limits: Limits) -> list[str]:
    if not isinstance(body, dict):
        return ['"value" must be of type object']
    files = body.get("files")
    if "files" not in body:
        return ['"files" is required']
    if not isinstance(files, list):
        return ['"files" must be an array']
    if not files:
        return ['"files" must contain at least 1 items']
    if len(files) > limits.max_files:
        return [f'"files" must contain less than or equal to {limits.max_files} items']
    problems = [_unknown_key("", body, {"files"})]
    for index, file in enumerate(files):
        problems += _file_problems(f"files[{index}]", file, limits)
    return [problem for problem in problems if problem is not None]


def _file_problems(at: str, file: Any, limits: Limits) -> list[str | None]:
    if not isinstance(file, dict):
        return [f'"{at}" must be of type object']
    return [
        _text_problem(f"{at}.name", file, "name"),
        _number_problem(f"{at}.size", file["size"], limits.max_size) if "size" in file else f'"{at}.size" is required',
        _text_problem(f"{at}.type", file, "type"),
        _unknown_key(f"{at}.", file, {"name", "size", "type"}),
    ]


def _text_problem(at: str, file: dict[str, Any], key: str) -> str | None:
    if key not in file:
        return f'"{at}" is required'
    if not isinstance(file[key], str):
        return f'"{at}" must be a string'
    return None if file[key] else f'"{at}" is not allowed to be empty'


def _number_problem(at: str, value: Any, highest: int, lowest: int = 1) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f'"{at}" must be a number'
    if isinstance(value, float) and not value.is_integer():
        return f'"{at}" must be an integer'
    if value < lowest:
        return f'"{at}" must be greater than or equal to {lowest}'
    return f'"{at}" must be less than or equal to {highest}' if value > highest else None


def _unknown_key(prefix: str, body: dict[str, Any], known: set[str]) -> str | None:
    unknown = next((key for key in body if key not in known), None)
    return None if unknown is None else f'"{prefix}{unknown}" is not allowed'


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

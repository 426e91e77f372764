"""The parser of server answers: real answers, and any other JSON."""

from __future__ import annotations

import json
import math
import os
import time
from typing import TYPE_CHECKING

import pytest
from fakes import STREAMS, WIRE, captured, golden
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core import packs, protocol
from uploader_cli.core.capabilities import parse_capabilities
from uploader_cli.core.events import FileStatus, Transport
from uploader_cli.core.plan import ASSUMED, Limits
from uploader_cli.core.protocol import (
    error_code,
    error_sentence,
    number,
    parse_batch,
    parse_http_date,
    parse_limits,
    parse_progress,
    parse_session,
    parse_time,
    server_time,
    utf8,
    wire_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDENS = sorted(path.stem for path in WIRE.glob("*.json"))


# --- the captures ----------------------------------------------------------------------------------------------------


READERS: dict[str, Callable[[object], object]] = {
    "/session": parse_session,
    "/batch": parse_batch,
    "/progress/": lambda body: parse_progress(body, Transport.HTTP),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_every_captured_answer_is_read_by_the_parser_of_its_call(name: str) -> None:
    """And an error is never taken for success."""
    answer = golden(name)
    body, path = answer["body"], answer["request"]["path"]
    if answer["status"] >= 300:
        assert [reader(body) for reader in READERS.values()] == [None] * len(READERS)
        assert error_code(body) == body["error"]
        assert error_sentence(body).startswith(body["message"])
    else:
        assert error_code(body) == ""
        for part, reader in READERS.items():
            assert part not in path or reader(body) is not None


def test_a_session_answer_carries_its_limits() -> None:
    session = parse_session(golden("session-ok")["body"])
    assert session is not None
    assert (session.session_id, session.category) == ("2ba25c4c-a0ea-4983-89fc-cf63711e7de2", "personal")
    assert session.limits == ASSUMED


def test_the_health_of_the_reference_backend_names_no_limits() -> None:
    assert parse_limits(golden("health")["body"].get("limits")) is None


@pytest.mark.parametrize("name", ["batch-ok", "batch-one-failed-inside-200", "batch-cancelled-midway"])
def test_names_of_a_batch_come_back_as_they_were_sent(name: str) -> None:
    answer = golden(name)
    stored = parse_batch(answer["body"])
    assert stored is not None
    sent = answer["request"]["multipart"]["files"]
    assert [(item.name, item.size) for item in stored] == [(part["filename"], part["size"]) for part in sent]
    assert all(item.server_id for item in stored)
    assert all((item.status == "completed") == (item.location is not None) for item in stored)


def test_a_batch_that_succeeded_may_hold_a_failed_file() -> None:
    body = golden("batch-one-failed-inside-200")["body"]
    assert body["success"] is True
    stored = parse_batch(body)
    assert stored is not None
    assert [item.status for item in stored] == ["completed", "failed"]
    assert stored[1].error


def test_totals_of_a_poll_come_from_its_files() -> None:
    """The reference backend doubles `completedFiles` and leaves `totalProgress` at 0 (protocol.md, section 3.6)."""
    body = golden("progress-after")["body"]
    assert (body["completedFiles"], body["totalProgress"]) == (4, 0)
    message = parse_progress(body, Transport.HTTP)
    assert message is not None
    assert (message.status, message.completed, message.total, message.percent) == ("completed", 2, 2, None)
    assert [(file.name, file.status, file.percent) for file in message.files] == [
        ("a.mp4", "completed", 100),
        ("景区 b.mp4", "completed", 100),
    ]


@pytest.mark.parametrize("stream", STREAMS)
def test_every_event_is_read_with_the_fields_it_has(stream: str) -> None:
    for at, data in captured(stream):
        message = parse_progress(data, Transport.WEBSOCKET)
        assert message is not None, at
        assert message.percent == data.get("totalProgress")
        assert (message.completed, message.failed) == (data["completedFiles"], data["failedFiles"])
        assert message.total == data.get("totalFiles")
        assert message.status == data["overallStatus"]
        assert message.message == data["message"]
        current = data.get("currentFile")
        assert [(file.name, file.server_id, file.percent) for file in message.files] == (
            [(current["originalName"], current["id"], current["progress"])] if current else []
        )


def test_a_file_is_named_by_its_path_where_the_server_reports_paths() -> None:
    current = {"originalName": "x.mp4", "relativePath": "a/x.mp4", "status": "uploading"}
    message = parse_progress({"sessionId": "s", "currentFile": current}, Transport.WEBSOCKET)
    assert message is not None
    assert message.files == (FileStatus("a/x.mp4", "uploading"),)


# --- hostile shapes --------------------------------------------------------------------------------------------------

HOSTILE: list[object] = [
    None,
    [],
    {},
    "",
    "/a",
    "//[",
    "http://\ud800/",
    "http://h:x/",
    "<html>",
    b"\x00",
    0,
    -1,
    True,
    math.nan,
    math.inf,
    10**400,
    [[]],
    [None],
    {"a": None},
]
FIELDS = sorted(
    {"maxFiles", "maxFileSize", "allowedTypes", "mixedTypes", "relativePaths", "currentFile", "relativePath", "details"}
    | {"endpoint", "version", "extensions", "checksumAlgorithms", "maxSize", "maxBytes", "exists", "sha256", "location"}
    | {"data", "stage", "retryable", "size"}
    | {key for stream in STREAMS for message in captured(stream) for key in message.data}
    | {key for name in ("batch-one-failed-inside-200", "progress-after") for key in golden(name)["body"]}
    | {key for name in ("batch-one-failed-inside-200",) for item in golden(name)["body"]["files"] for key in item}
)
PARSERS: list[Callable[[object], object]] = [
    error_code,
    error_sentence,
    parse_limits,
    parse_session,
    parse_batch,
    lambda body: parse_progress(body, Transport.HTTP),
    parse_time,
    number,
    lambda body: server_time({}, body),
    lambda body: parse_capabilities(body, "http://h:1/"),
    lambda body: packs.parse_offer(body, "http://h:1/"),
    lambda body: packs.parse_lookup_offer(body, "http://h:1/"),
    lambda body: packs.parse_found(body, 2),
    lambda body: packs.parse_answer(body, 2),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(HOSTILE)
shapes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=8),
    max_leaves=20,
)


@pytest.mark.parametrize("body", HOSTILE, ids=lambda value: repr(value)[:20])
def test_parsers_ignore_json_that_is_not_an_object(body: object) -> None:
    assert parse_session(body) is None
    assert parse_progress(body, Transport.HTTP) is None
    assert parse_batch(body) is None
    assert parse_limits(body) is None
    assert error_code(body) == ""
    assert isinstance(body, str) or error_sentence(body) == ""


@given(shapes)
def test_parsers_raise_for_no_json_value(body: object) -> None:
    for parser in PARSERS:
        parser(body)


@pytest.mark.parametrize("name", ["session-ok", "batch-ok", "progress-during", "validate-error", STREAMS[0]])
@given(data=st.data())
def test_parsers_raise_for_no_altered_answer(name: str, data: st.DataObject) -> None:
    """Replace any one value of a real answer, at any depth."""
    body = golden(name)["body"] if name in GOLDENS else data.draw(st.sampled_from(captured(name))).data
    body = json.loads(json.dumps(body))
    place = body
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(shapes)
            break
        place = place[key]
    for parser in PARSERS:
        parser(body)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "5", None, [5]])
def test_number_of_a_non_finite_value_is_none(value: object) -> None:
    assert number(value) is None
    message = parse_progress({"sessionId": "s", "totalProgress": value, "completedFiles": value}, Transport.HTTP)
    assert message is not None
    assert (message.percent, message.completed) == (None, None)


@pytest.mark.parametrize("value", [0, -3, 2.5, 10**400])
def test_number_of_a_finite_value_is_the_value(value: float) -> None:
    assert number(value) == value


def test_unusable_entries_of_a_list_are_left_out_of_a_poll_and_kept_in_a_batch() -> None:
    """A batch answer is matched by name, so an entry without one must not make the others move up."""
    entries = [None, {"originalName": ""}, {"originalName": "a.mp4", "status": "completed"}, 7]
    message = parse_progress({"sessionId": "s", "files": entries}, Transport.HTTP)
    assert message is not None
    assert [file.name for file in message.files] == ["a.mp4"]
    stored = parse_batch({"files": entries})
    assert stored is not None
    assert [(item.name, item.status) for item in stored] == [("", ""), ("", ""), ("a.mp4", "completed"), ("", "")]


# --- limits ----------------------------------------------------------------------------------------------------------

BUNDLED = {"maxFiles": 1000, "maxFileSize": 1 << 40, "allowedTypes": ["*"], "mixedTypes": True, "relativePaths": True}


def test_the_bundled_servers_limits() -> None:
    assert parse_limits(BUNDLED) == Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)


@pytest.mark.parametrize(
    "change",
    [
        {"maxFiles": None},
        {"maxFiles": 0},
        {"maxFiles": -1},
        {"maxFiles": "3"},
        {"maxFiles": True},
        {"maxFiles": math.nan},
        {"maxFileSize": None},
        {"maxFileSize": "300"},
        {"allowedTypes": None},
        {"allowedTypes": "mp4"},
    ],
    ids=str,
)
def test_limits_that_lack_a_part_are_none(change: dict[str, object]) -> None:
    assert parse_limits({**BUNDLED, **change}) is None


def test_types_are_lower_case_without_a_dot_and_flags_are_true_only_as_true() -> None:
    limits = parse_limits({**BUNDLED, "allowedTypes": [".MP4", "Avi"], "mixedTypes": 1, "relativePaths": "yes"})
    assert limits is not None
    assert limits.allowed_types == {"mp4", "avi"}
    assert (limits.mixed_types, limits.relative_paths) == (False, False)


# --- words, times, names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"message": "no"}, "no"),
        ({"message": "no", "details": "size 0"}, "no: size 0"),
        ({"message": "no", "details": ["a", "b", 3]}, "no: a; b; 3"),
        ({"details": "size 0"}, "size 0"),
        ({"message": "no", "details": {"a": 1}}, "no"),
        ({"message": "no", "details": []}, "no"),
        ({"message": "two\r\nlines ", "details": "and\ta tab"}, "two lines : and a tab"),
        ({"message": None}, ""),
        ("virus found", "virus found"),
        ({"error": "Bucket not found"}, "Bucket not found"),
        ({"error": "InvalidKey", "message": "Invalid key: ä.bin"}, "Invalid key: ä.bin"),
        ({"error": {"message": "no quota", "code": 7}}, "no quota"),
        ({"errors": [{"message": "no permission", "extensions": {"code": "FORBIDDEN"}}]}, "no permission"),
        ({"type": "about:blank", "title": "Out of credit", "detail": "30 needed"}, "Out of credit: 30 needed"),
        ({"detail": [{"loc": ["header"], "msg": "field required"}]}, "field required"),
        ("a\x1b[31mred\x00\u202e", "a [31mred"),
        ("x" * 301, "x" * 299 + "…"),
        (["x"], ""),
    ],
    ids=lambda value: str(value)[:40].encode("unicode_escape").decode(),
)
def test_an_errors_sentence_is_one_line(body: dict[str, object], sentence: str) -> None:
    assert error_sentence(body) == sentence


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.500Z", 1.5),
        ("1970-01-01T08:00:01+08:00", 1.0),
        ("1970-01-01T00:00:01", 1.0),  # no zone: UTC
        ("0001-01-01T00:00:00", -62135596800.0),
        ("yesterday", None),
        ("", None),
        ("2026-13-01T00:00:00Z", None),
        (None, None),
        (1, None),
    ],
)
def test_timestamps_are_parsed_as_unix_seconds(
    value: object, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As unix seconds, wherever the machine is."""
    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_time(value) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("name", "on_the_wire"),
    [
        ("a b.mp4", "a b.mp4"),
        ("景区 b.mp4", "景区 b.mp4"),
        ('say "hi".mp4', "say %22hi%22.mp4"),
        ("two\r\nlines.mp4", "two%0D%0Alines.mp4"),
        ("100%.mp4", "100%.mp4"),
        ("back\\slash.mp4", "back\\slash.mp4"),
        (os.fsdecode(b"caf\xe9.mp4"), "caf%E9.mp4"),
    ],
)
def test_names_are_encoded_for_the_wire(name: str, on_the_wire: str) -> None:
    assert wire_name(name) == on_the_wire


@given(
    st.text(max_size=30) | st.from_regex(r"(http://h)?/uploads/\w{1,3}/(%[0-9a-fA-F]{2}|\w|[?#/]){0,9}"),
    st.text(max_size=4),
)
def test_any_location_names_a_file_or_none(location: str, name: str) -> None:
    other = protocol.renamed(location, name, "")
    assert other is None or other.rpartition("/")[2] not in ("", name)


@given(st.text(max_size=30) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{0,6}"))
def test_any_date_of_a_header_is_one_or_none(value: str) -> None:
    date = parse_http_date(value)
    assert date is None or math.isfinite(date)


@given(st.binary(max_size=20).map(os.fsdecode))
def test_any_name_of_a_disk_can_travel_in_a_header(name: str) -> None:
    on_the_wire = wire_name(name)
    assert not set('"\r\n') & set(on_the_wire)
    on_the_wire.encode("utf-8")
    assert utf8(name).encode("utf-8")[:1] == utf8(name).encode()[:1]


def test_as_object_and_text_accept_one_type_each() -> None:
    assert protocol.as_object([1]) == {}
    assert protocol.as_object({"a": 1}) == {"a": 1}
    assert protocol.text(b"a") is None
    assert protocol.text("a") == "a"


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 784111777.0),
        ("Sun, 06 Nov 1994 08:49:37 +0100", 784108177.0),
        *((text, None) for text in (None, "", "soon", "1 Jan 2020 00:00:00 +99999999999999")),
        ("1 Jan 99999999999999999 00:00:00 GMT", None),
    ],
)
def test_dates_of_headers(date: str | None, seconds: float | None) -> None:
    assert parse_http_date(date) == seconds


def test_answer_without_a_valid_date_has_no_clock() -> None:
    assert server_time({"Date": "1 Jan 99999999999999999 00:00:00 GMT"}, None) is None

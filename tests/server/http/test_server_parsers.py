"""Each parser of the server accepts or refuses any input of a client or an operator, without another error."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from server.batches import body_of, file, text

from uploader_cli.core.capabilities import encode_metadata
from uploader_server.auth import check_token, issue_token, owner_of
from uploader_server.batch import multipart
from uploader_server.batch.lookup import parse as parse_lookup
from uploader_server.batch.multipart import BatchReader
from uploader_server.config import OPTIONS, ServerConfig
from uploader_server.errors import Refusal
from uploader_server.http.bodies import Bodies, schemas
from uploader_server.http.errors import ENGLISH, as_api_error, parse_json
from uploader_server.http.memory import Held, Memory
from uploader_server.http.rest import finish_request, session_request, validated
from uploader_server.options import check_network, check_origin, parse_size
from uploader_server.pace import Pace
from uploader_server.realtime.strict import are_packets, is_message, parsed
from uploader_server.simulation.rules import RuleError, parse_rule
from uploader_server.simulation.table import FAULTS
from uploader_server.tus.headers import (
    LONGEST_METADATA,
    MOST_PARTS,
    number,
    parse_checksum,
    parse_concat,
    parse_metadata,
    parse_place,
)
from uploader_server.wire import TUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Message

HEADERS = st.text(st.characters(max_codepoint=255), max_size=60)
"""Header values as they arrive: any bytes, one character each."""
DIGITS = st.sampled_from(
    ["0", "7", "9" * 18, "9" * 19, "9" * 400, "9" * 5000, "-1", "1.5", "²", "٣", "nan", "inf", "1e400"]
)
LIMITS = ServerConfig(max_files=3, max_size=1 << 20).limits
CHECKED = Bodies(schemas(LIMITS), whole_floats=True)


def mixture(*pieces: str) -> st.SearchStrategy[str]:
    """Texts of these pieces and of a few others, in any order."""
    some = st.sampled_from([*pieces, " ", ",", ";", ":", "=", "\0", "é", "\ud800", "/"]) | DIGITS | st.text(max_size=3)
    return st.lists(some, max_size=8).map("".join)


def in_header(*pieces: str) -> st.SearchStrategy[str]:
    """Values of a header made of these pieces, or of any bytes."""
    return HEADERS | mixture(*pieces).map(lambda value: value.encode("latin-1", "ignore").decode("latin-1"))


def refuses(parse: Callable[..., object], *given: object, by: type[Exception] = Refusal) -> bool:
    """Whether it is refused; anything but `by` fails the test."""
    try:
        parse(*given)
    except by as error:
        status = as_api_error(error).status if isinstance(error, Refusal) else 400
        return status in range(400, 500) or pytest.fail(f"{status}")
    return False


# --- headers of tus --------------------------------------------------------------------------------------------------

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=12)
METADATA = st.dictionaries(KEYS, st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6)


@given(METADATA, st.sampled_from([",", ", "]))
def test_metadata_are_read_as_they_were_written(fields: dict[str, str], comma: str) -> None:
    pairs = [f"{key} {base64.b64encode(value.encode()).decode()}".strip() for key, value in fields.items()]
    assert parse_metadata(comma.join(pairs)) == parse_metadata(encode_metadata(fields)) == fields


@given(in_header("finalKey QQ==", "partOffset MQ==", "finalLength", "a b", "A" * LONGEST_METADATA))
@example("finalKey QQ==,finalLength MQ==,partOffset eA==")
@example("a /w==")
def test_metadata_are_read_or_refused(value: str) -> None:
    if not refuses(parse_metadata, value):
        refuses(parse_place, parse_metadata(value))


@given(in_header("partial", "final;", TUS, "http://[", "00000000-0000-4000-8000-000000000000", "?", "#"))
def test_a_concatenation_names_parts_or_is_refused(value: str) -> None:
    if not refuses(parse_concat, value):
        concat = parse_concat(value)
        assert (concat.kind == "final") == bool(concat.parts)
        assert len(set(concat.parts)) == len(concat.parts) <= MOST_PARTS


@given(in_header("sha1", "sha256", "md5", "AAAA", "2jmj7l5rSw0yVb/vlWAYkK/YBwk="))
def test_numbers_and_checksums_are_read_or_refused(value: str) -> None:
    refuses(parse_checksum, value)
    if not refuses(number, {"Upload-Offset": value}, "Upload-Offset"):
        assert 0 <= (number({"Upload-Offset": value}, "Upload-Offset") or 0) < 1 << 63


@given(in_header("Bearer ", "e30", ".", base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode(), issue_token("s")))
def test_only_the_right_authorization_is_accepted(value: str) -> None:
    assert owner_of(value, "another") == ""
    assert refuses(check_token, value, "another", "the token")


# --- JSON bodies -----------------------------------------------------------------------------------------------------

ONE = {"Count": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}}}
NOT_WHOLE, NO_NUMBER = ['"n" must be an integer'], ['"n" must be a number']


@pytest.mark.parametrize(
    ("value", "strict", "lenient"),
    [(3, [], []), (3.0, NOT_WHOLE, []), (3.5, NOT_WHOLE, NOT_WHOLE), (True, NO_NUMBER, NO_NUMBER)]
    + [(value, NO_NUMBER, NO_NUMBER) for value in tuple[Any, ...](("3", None, []))]
    + [(10, *[['"n" must be less than or equal to 9']] * 2), (float("nan"), NOT_WHOLE, NOT_WHOLE)],
)
def test_only_whole_numbers_are_integers(value: object, strict: list[str], lenient: list[str]) -> None:
    """With `whole_floats` also those that are written with a point; a truth value never is one."""
    assert Bodies(ONE).problems("Count", {"n": value}) == strict
    assert Bodies(ONE, whole_floats=True).problems("Count", {"n": value}) == lenient


NAMES = st.sampled_from(
    ["files", "name", "size", "type", "category", "expectedFiles", "failed", "relativePath", "sha256"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["personal", "a.mp4", "\ud800", 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
TEXTS = st.binary(max_size=40) | st.sampled_from([b"[" * 5000, b"9" * 5000, b'{"a":' * 3000, b"\xff", b"", b"[1e999]"])


@given(VALUES.map(lambda value: json.dumps(value).encode()) | TEXTS)
@example(b'{"files": [null]}')
@example(b'{"files": null}')
@example(b'{"failed": null}')
@example(b'{"category": "personal", "expectedFiles": null}')
def test_a_json_body_is_read_or_refused(body: bytes) -> None:
    refuses(lambda: validated(body, LIMITS, CHECKED, ENGLISH))
    refuses(parse_lookup, body)
    if not refuses(parse_json, body, by=ValueError):
        refuses(session_request, parse_json(body), CHECKED)
        refuses(finish_request, parse_json(body), CHECKED)


@given(
    st.binary(max_size=20)
    | mixture("0", "2", "4", "5", "42", '["join-session"', "]", "{", "-", "\x1e").map(
        lambda value: value.encode("utf-8", "replace")
    )
)
def test_socket_io_parser_accepts_any_bytes_without_error(body: bytes) -> None:
    are_packets(body)
    assert parsed(body) is None
    is_message(parsed(body.decode("utf-8", "replace")))


# --- multipart -------------------------------------------------------------------------------------------------------


class Noted(BatchReader):
    """A reader that notes the text parts in order."""

    def __init__(self, directory: Path) -> None:
        names = itertools.count()
        super().__init__(LIMITS, lambda: directory / str(next(names)), Held(Memory()), eager=True)
        self.noted: list[tuple[str, str]] = []

    async def text(self, name: str, value: str) -> None:
        self.noted.append((name, value))


def cut(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    ends = sorted({at % (len(body) + 1) for at in cuts} | {0, len(body)})
    return (body[start:end] for start, end in itertools.pairwise(ends))


def read_batch(body: bytes, cuts: list[int], directory: Path) -> tuple[Any, Any]:
    """What a reader makes of a body that arrives in these pieces."""
    reader = Noted(directory)
    pieces = [*cut(body, cuts)] or [b""]
    rest = iter(enumerate(pieces, 1))

    async def receive() -> Message:
        count, piece = next(rest)
        return {"type": "http.request", "body": piece, "more_body": count < len(pieces)}

    def read(path: str | Path) -> bytes:
        return Path(path).read_bytes()

    async def run() -> tuple[Any, Any]:
        try:
            await reader.read(receive, "multipart/form-data; boundary=BOUNDARY", Pace(0, 60.0, 10.0))
            return reader.noted, [(one.original_name, read(one.data)) for one in reader.files if one.data]
        except Refusal as error:
            return as_api_error(error).status, error.code
        finally:
            await reader.discard()

    return asyncio.run(run())


PIECES = [
    b"--BOUNDARY",
    b"\r\n",
    b"--",
    b'Content-Disposition: form-data; name="files"',
    b'; filename="a"',
    b": ",
    b"x",
]
BODIES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=14).map(b"".join)
CUTS = st.lists(st.integers(0, 2000), max_size=6)
"""Where a body is cut into pieces."""


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.binary(max_size=60) | BODIES, CUTS)
def test_batch_is_parsed_for_any_fragmentation(value: str, content: bytes, cuts: list[int]) -> None:
    content = content.replace(b"BOUNDARY", b"boundary")
    body = body_of([text("category", value), file("a.bin", content)])
    with tempfile.TemporaryDirectory() as directory:
        assert read_batch(body, cuts, Path(directory)) == ([("category", value)], [("a.bin", content)])


@pytest.mark.parametrize(("count", "status"), [(8, None), (9, 413)])
def test_text_parts_have_a_limit_together(
    count: int, status: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they are empty: each takes memory."""
    monkeypatch.setattr(multipart, "MAX_TEXTS", 8 * (len("x0") + multipart.PART))
    noted = [(f"x{number}", "") for number in range(count)]
    found = read_batch(body_of([text(*one) for one in noted]), [], tmp_path)
    assert found == ((noted, []) if status is None else (status, "VALIDATION_ERROR"))


@given(BODIES, CUTS)
def test_invalid_batch_is_refused_alike_for_any_fragmentation(body: bytes, cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        read = [read_batch(b"--BOUNDARY" + body, where, Path(directory)) for where in ([], cuts)]
        assert list(Path(directory).iterdir()) == []
    whole, in_pieces = read  # the first of two mistakes may be another one
    assert whole == in_pieces or {str(one[0]) for one in read} <= {"400", "413"}


# --- what an operator writes -----------------------------------------------------------------------------------------


@given(mixture("flap", "kick", "off", "silent", "fail", "report", "https://", "10.0.0.0", "8", "M", "MB", "iB", "T"))
def test_an_option_is_read_or_refused(value: str) -> None:
    modes = (option.parse for option in OPTIONS if option.name in ("realtime", "analysis"))
    for parse in (parse_size, check_network, check_origin, *modes):
        refuses(parse, value, by=ValueError)


@given(st.integers(1, 1 << 50), st.sampled_from(["", "B", "K", "kib", "MB", "g", "tb"]))
def test_size_is_parsed_to_bytes(amount: int, unit: str) -> None:
    base = 1000 if unit.lower().endswith("b") and not unit.lower().endswith("ib") and len(unit) > 1 else 1024
    assert parse_size(f"{amount}{unit}") == amount * base ** " kmgt".index((unit.lower().rstrip("b") + " ")[0])


@given(
    st.sampled_from(sorted(FAULTS)), mixture("#", "-", "#/2", "patch", "session", "seconds=", "8M", "before", "GET /a")
)
def test_a_fault_is_read_or_refused(kind: str, rest: str) -> None:
    refuses(parse_rule, f"{kind}:{rest}", by=RuleError)
    refuses(parse_rule, rest, by=RuleError)
    example = FAULTS[kind].example
    refuses(parse_rule, f"{example}{rest}", by=RuleError)
    assert parse_rule(example).kind == kind


@pytest.mark.parametrize("rule", ["slow:patch:{}", "cut:patch#1:{}", "stall:patch:in,seconds=1,at={}"])
def test_overflowing_size_is_refused(rule: str) -> None:
    assert refuses(parse_rule, rule.format("9" * 400), by=RuleError)

"""Headers of answers: as `http.client` reads them, but for what it reads as in mails."""

from __future__ import annotations

import http.client
import io
import re
from http.client import HTTPException, LineTooLong, RemoteDisconnected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.transfer.connection import HEAD, MOST_LINES, read_fields

PIECES = (b"A", b"b-2", b"a", b":", b":", b" ", b"\t", b"x", b"\xe9", b"\xa0", b"\0", b"=", b",")
ENDS = (b"\r\n", b"\n", b"\r\n ", b"\n\t", b"\r\n\r\n", b"\n\n")
BODY = b"\n{}"


def heads(*more: bytes) -> st.SearchStrategy[bytes]:
    """Return what looks like headers to different degrees, and may end in their midst."""
    field = st.builds(lambda name, value: name + b": " + value, st.sampled_from((b"A", b"a", b"b-2")), st.binary())
    field = field.map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
    return st.lists(st.one_of(st.sampled_from((*PIECES, *ENDS, *ENDS, *more)), field)).map(b"".join)


@given(heads(b"\r", b"\r\r\n"))
def test_headers_end_where_http_client_ends_them(head: bytes) -> None:
    ours, theirs = io.BytesIO(head + BODY), io.BytesIO(head + BODY)
    http.client.parse_headers(theirs)
    try:
        read_fields(ours)
    except RemoteDisconnected:  # before the empty line, which `http.client` takes for their end
        assert not re.search(rb"(?:^|\n)\r?\n", head + BODY)
    assert ours.tell() == theirs.tell()


@given(heads())
def test_valid_headers_are_those_of_http_client(head: bytes) -> None:
    message = http.client.parse_headers(io.BytesIO(head + b"\n\n"))
    if message.defects:  # it reads no further than a line that it does not know
        return
    fields = read_fields(io.BytesIO(head + b"\n\n"))
    assert {name.lower() for name in fields} == {name.lower() for name in message}
    for name in fields:
        theirs = message.get_all(name, [])
        assert fields.get_all(name) == [re.sub(r"\r?\n[ \t]+", " ", value).strip() for value in theirs]


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b"A: 1\nB:2\r\n\n", [("A", "1"), ("B", "2")]),
        (b"A: 1\r\n \t2\r\nB: 3\r\n\r\n", [("A", "1 2"), ("B", "3")]),
        (b"A: 1\r\nB: x\r\na: 2\r\n\r\n", [("A", "1, 2"), ("B", "x")]),
        (b"A: \xe9\r\n\r\n", [("A", "é")]),
        (b"no header\r\nA: 1\r\n\r\n", [("A", "1")]),
        (b"A: 1\r2\r\n\r\n", [("A", "1 2")]),
        (b"A : 1:2\r\n\r\n", [("A", "1:2")]),
        (b"\r\n", []),
    ],
)
def test_headers_are_read_as_rfc_9112_says(head: bytes, fields: list[tuple[str, str]]) -> None:
    assert list(read_fields(io.BytesIO(head)).items()) == fields


def test_limits_are_those_of_http_client() -> None:
    longest, lines = b"A: " + b"x" * (HEAD - 4) + b"\n", [b"A: 1\n"] * (MOST_LINES - 1)
    for head in (longest + b"\n", b"".join(lines) + b"\n"):
        http.client.parse_headers(io.BytesIO(head))
        read_fields(io.BytesIO(head))
    for head, kind in ((b"A" + longest + b"\n", LineTooLong), (b"".join(lines) + b"A: 1\n\n", HTTPException)):
        for read in (http.client.parse_headers, read_fields):
            with pytest.raises(kind):
                read(io.BytesIO(head))


@pytest.mark.parametrize("head", [b"", b"A: 1", b"A: 1\r\n", b"A: 1\r\nContent-Length: 1"])
def test_headers_without_their_end_are_a_lost_connection(head: bytes) -> None:
    """Part of a value is another value."""
    with pytest.raises(RemoteDisconnected):
        read_fields(io.BytesIO(head))

"""The bytes of a manifest → what each line says. `ok` writes entries as `line path>name category sha256`."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core.events import FailureCode
from uploader_cli.core.names import as_base64, json_line
from uploader_cli.errors import UsageError
from uploader_cli.selection.manifest_lines import LONGEST_LINE, BadLine, Entry, Format, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA = "ab" * 32


class Slowly(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read(self, _size: int | None = -1) -> bytes:
        return super().read(3)


def lines(content: bytes | str, kind: Format, *, strict: bool = True) -> Iterator[Entry | BadLine]:
    raw = content if isinstance(content, bytes) else content.encode()
    whole = list(parse(io.BytesIO(raw), kind, strict=strict))
    assert list(parse(Slowly(raw), kind, strict=strict)) == whole
    return iter(whole)


def ok(content: bytes | str, kind: Format, *, strict: bool = True) -> list[str]:
    out = []
    for item in lines(content, kind, strict=strict):
        assert isinstance(item, Entry), item
        more = "".join(f" {value}" for value in (item.category, item.sha256) if value)
        out.append(f"{item.line} {item.path}" + (f">{item.name}" if item.name != item.path else "") + more)
    return out


def bad(content: bytes | str, kind: Format, *, strict: bool = True) -> list[tuple[int, str]]:
    found = [item for item in lines(content, kind, strict=strict) if isinstance(item, BadLine)]
    assert {item.code for item in found} <= {FailureCode.BAD_LINE}
    return [(item.line, item.message) for item in found]


# --- paths, line by line or with a NUL after each ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a.mp4\nd/b.mp4\n", ["1 a.mp4", "2 d/b.mp4"]),
        ("a.mp4\r\n\r\nb.mp4", ["1 a.mp4", "3 b.mp4"]),
        ("\ufeffa.mp4\n", ["1 a.mp4"]),
        ("aa\n\ufeffa.mp4\n", ["1 aa", "2 \ufeffa.mp4"]),
        ("# no comment\n two  blanks \n", ["1 # no comment", "2  two  blanks "]),
        ("", []),
        ("\n\n", []),
    ],
)
def test_plain_list_has_a_path_a_line(content: str, found: list[str]) -> None:
    """A path a line; empty lines are nothing and are counted, nothing is a comment, blanks belong to names."""
    assert ok(content, Format.PLAIN) == found


def test_nul_separated_names_may_have_line_breaks() -> None:
    """Line breaks belong to names then."""
    assert ok("a\nb.mp4\0\0c\r\0d", Format.NUL) == ["1 a\nb.mp4", "3 c\r", "4 d"]


def test_names_that_are_no_utf_8() -> None:
    name = os.fsdecode(b"\xff.mp4")
    assert ok(b"\xff.mp4\n", Format.PLAIN) == ok(b"\xff.mp4\0", Format.NUL) == [f"1 {name}"]


def test_a_line_without_end() -> None:
    """Of it no more is kept than is needed to say so, and the next one is read as ever."""
    longest = b"x" * (3 * LONGEST_LINE)
    found = list(parse(io.BytesIO(longest + b"\nb.mp4\n"), Format.PLAIN))
    assert [item.line for item in found] == [1, 2]
    assert isinstance(found[0], BadLine)
    assert "longer than" in found[0].message
    assert found[1] == Entry(2, "b.mp4", "b.mp4")
    (only,) = parse(io.BytesIO(b'{"path": "' + longest), Format.JSONL)
    assert isinstance(only, BadLine)


def test_memory_stays_flat_for_a_line_without_an_end() -> None:
    class Endless(io.BytesIO):
        left = 16

        def read(self, _size: int | None = -1) -> bytes:
            self.left -= 1
            return b"x" * LONGEST_LINE if self.left >= 0 else b""

    tracemalloc.start()
    try:
        (line,) = parse(Endless(), Format.PLAIN)
        assert tracemalloc.get_traced_memory()[1] < 6 * LONGEST_LINE
    finally:
        tracemalloc.stop()
    assert isinstance(line, BadLine)


def test_nul_separated_list_is_detected() -> None:
    assert bad("a.mp4\0b.mp4\0", Format.PLAIN) == [(1, "contains a NUL character: a NUL-separated list needs -0")]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("d/a.mp4", "d/a.mp4"),
        ("./d//a.mp4", "d/a.mp4"),
        ("d/../a.mp4", "a.mp4"),
        ("../other/a.mp4", "a.mp4"),
        ("/abs/olute/a.mp4", "a.mp4"),
    ],
)
def test_the_name_that_a_path_gives(path: str, name: str) -> None:
    """From the working directory on; of a path that leads elsewhere the last part."""
    (entry,) = lines(path, Format.PLAIN)
    assert isinstance(entry, Entry)
    assert (entry.path, entry.name) == (path, name)


# --- columns ----------------------------------------------------------------------------------------------------------


def test_csv_values_are_quoted_as_rfc_4180_says() -> None:
    """RFC 4180: quotes, commas and line breaks in values; a record has the number of its first line."""
    content = f'path,name,category,sha256\r\na.mp4,x/y.mp4,scenic,{SHA.upper()}\r\n"b\n,"".mp4",,,\r\n\r\nc.mp4,,,\r\n'
    assert ok(content, Format.CSV) == [f"2 a.mp4>x/y.mp4 scenic {SHA}", '3 b\n,".mp4', "6 c.mp4"]


def test_csv_columns_in_any_order_and_those_of_our_own_reports() -> None:
    content = "code,message,relative_path,path\nnetwork,no answer,files/a.mp4,/data/files/a.mp4\n"
    assert ok(content, Format.CSV) == ["2 /data/files/a.mp4>files/a.mp4"]


def test_csv_lines_that_do_not_fit() -> None:
    assert bad("path,name\na.mp4\nb.mp4,b,c\nc.mp4,\n", Format.CSV) == [
        (2, "1 value for 2 columns"),
        (3, "3 values for 2 columns"),
    ]
    assert bad('path\n"a"b\nc\n', Format.CSV) == [(2, "not valid CSV: ',' expected after '\"'")]
    assert "path_b64" in bad(b"path\n\xff.mp4\n", Format.CSV)[0][1]


@pytest.mark.parametrize("end", ["", "\n", '\n"'])
def test_a_quote_that_is_not_closed_takes_only_its_own_line(end: str) -> None:
    """The files that are listed after it are sent all the same, when lenient."""
    content = 'path,name\na.mp4,\n"b.mp4,\nc.mp4,"n\n.mp4"\nd.mp4,' + end
    found = list(lines(content, Format.CSV))
    quotes = [item for item in found if isinstance(item, BadLine)]
    assert (quotes[0].line, quotes[0].message) == (3, "not valid CSV: unclosed quote")
    assert [item.path for item in found if isinstance(item, Entry)] == ["a.mp4", "c.mp4", "d.mp4"]
    assert [item.line for item in found] == sorted(item.line for item in found)


@pytest.mark.thorough
def test_a_quote_that_is_not_closed_in_a_long_list() -> None:
    """No more than one value's worth is read on for its end."""
    names = [f"{number:05}.mp4" for number in range(40_000)]
    found = list(parse(io.BytesIO(('path\n"\n' + "\n".join(names)).encode()), Format.CSV))
    assert isinstance(found[0], BadLine)
    assert [item.path for item in found[1:]] == names


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("a.mp4\n", "line 1: the column path is missing"),
        ("path;name\n", "separated by commas"),
        ("path,path\n", "duplicate column 'path'"),
        ("path,sha1\n", "unknown column 'sha1'"),
        ('"path\n', "the header is not valid CSV"),
    ],
)
def test_a_csv_header_that_can_not_be_used(header: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(parse(io.BytesIO(header.encode()), Format.CSV))


def test_jsonl_has_an_object_a_line() -> None:
    content = [{"path": "a.mp4"}, {"path": "b.mp4", "name": "n.mp4", "category": None, "sha256": SHA}]
    assert ok("\n \n".join(map(json.dumps, content)), Format.JSONL) == ["1 a.mp4", f"3 b.mp4>n.mp4 {SHA}"]


def test_the_event_stream_is_a_list_of_files_too() -> None:
    """Its lines about failed files can be fed back as they are, names of odd bytes as well."""
    event = {"v": 1, "seq": 9, "run": "r", "ts": "2026-01-01T00:00:00.000Z", "type": "file.failed", "file": 3}
    event |= {"path": "\\xff.mp4", "path_b64": "/y5tcDQ=", "code": "network", "message": "no", "retryable": True}
    assert ok(json.dumps(event), Format.JSONL) == [f"1 {os.fsdecode(b'%c.mp4' % 0xFF)}"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON: Expecting property name enclosed in double quotes (column 2)"),
        ("[" * 30_000, "not valid JSON: nested too deeply"),
        ('{"path": "a", "size": %s}' % ("9" * 5000), "not valid JSON: a number is too long"),
        ('["a.mp4"]', 'must be an object as {"path": "a.mp4"}'),
        ('{"path": "a", "sha1": "x"}', "unknown key 'sha1'"),
        ('{"path": 7}', "path must be text"),
        ('{"path": ""}', "no path"),
        ('{"name": "a.mp4"}', "no path"),
        ('{"path": "a\\u0000b"}', "the path contains a NUL character"),
        ('{"path": "\\ud800"}', "path is not a valid file name on this system"),
        ('{"path_b64": "?"}', "path_b64 is not base64"),
        ('{"path_b64": "é"}', "path_b64 is not base64"),
        ('{"path": "a", "category": "work"}', "category must be personal or scenic, not 'work'"),
        ('{"path": "a", "sha256": "abc"}', "sha256 must be 64 hexadecimal digits, not 'abc'"),
        ('{"path": "a", "name": "../b"}', "name must be a relative path without . and .., as videos/a.mp4, not '../b'"),
        ('{"path": "a", "name": "/b"}', "name must be a relative path without . and .., as videos/a.mp4, not '/b'"),
        ('{"path": "a", "name": "b\\u0000"}', "name contains a NUL character or an undecodable byte: 'b\\x00'"),
    ],
)
def test_a_line_that_can_not_be_used(line: str, words: str) -> None:
    """It is named with its number, and the others are read all the same."""
    content = f'{{"path": "before"}}\n{line}\n{{"path": "after"}}\n'
    assert bad(content, Format.JSONL) == [(2, words)]
    assert [item.line for item in lines(content, Format.JSONL)] == [1, 2, 3]


def test_a_line_that_is_no_utf_8() -> None:
    assert bad(b'{"path": "\xff"}', Format.JSONL) == [(1, "not UTF-8")]


def test_unknown_columns_are_ignored_when_lenient() -> None:
    assert ok("path,sha1\na.mp4,x\n", Format.CSV, strict=False) == ["2 a.mp4"]
    assert ok('{"path": "a.mp4", "sha1": 7}', Format.JSONL, strict=False) == ["1 a.mp4"]


# --- anything at all -------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(
            b"path",
            b"path_b64",
            b"name",
            b"sha256",
            b",",
            b'"',
            b"\n",
            b"\r\n",
            b"\0",
            b"{",
            b"}",
            b":",
            b"a/../b",
            b"/",
        ),
        *(b'{"path": "a.mp4"}\n', b'{"path_b64": "/w=="}', b'{"path_b64": "\xc3\xa9"}', b"\xff", b"\xef\xbb\xbf"),
        *(b"[" * 5000, b'{"path": "a", "size": ' + b"9" * 5000 + b"}"),
    ]
)
PATHS = st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw and raw not in (b"/", b"//"))


class InBlocks(io.BytesIO):
    """A stream that gives these numbers of bytes, one after the other."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        super().__init__(content)
        self.sizes = iter(sizes)

    def read(self, size: int | None = -1) -> bytes:
        return super().read(next(self.sizes, size))


@given(st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join), st.lists(st.integers(3, 40)), st.booleans())
def test_any_bytes_are_entries_or_bad_lines_however_they_arrive(content: bytes, sizes: list[int], strict: bool) -> None:
    for kind in Format:
        try:
            whole = list(parse(io.BytesIO(content), kind, strict=strict))
        except UsageError:
            if kind is not Format.CSV:
                raise
            continue
        assert list(parse(InBlocks(content, sizes), kind, strict=strict)) == whole
        numbers = [item.line for item in whole]
        assert numbers == sorted(set(numbers))
        for item in whole:
            assert "\0" not in item.path
            assert (
                isinstance(item, BadLine)
                or not {"", ".", ".."} & set(item.name.split("/"))
                or item.path.strip("/") == ""
            )


@given(st.lists(PATHS.map(os.fsdecode), max_size=6))
def test_paths_come_back_from_each_format_that_can_hold_them(paths: list[str]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["path_b64"], *([base64.b64encode(os.fsencode(path)).decode()] for path in paths)])
    rows = [{"path": path, "path_b64": as_base64(path)} for path in paths]
    written = {
        Format.NUL: b"".join(os.fsencode(path) + b"\0" for path in paths),
        Format.CSV: table.getvalue().encode(),
        Format.JSONL: "".join(map(json_line, rows)).encode(),
    }
    for kind, content in written.items():
        assert [item.path for item in parse(io.BytesIO(content), kind)] == paths, kind

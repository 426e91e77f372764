"""Multipart bodies: the exact bytes, what independent parsers read in them, and files that change meanwhile."""

from __future__ import annotations

import email.policy
import errno
import io
import os
import resource
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any

import multipart
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uploader_cli.core.events import FailureCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import wire_name
from uploader_cli.errors import FileError
from uploader_cli.transfer import bodies
from uploader_cli.transfer.bodies import Body, content_type, upload_form
from uploader_cli.transfer.bodies import multipart as form

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FIELDS = [("sessionId", "s-1"), ("category", "personal")]
BLOCK = 1 << 20


def local(path: Path, number: int = 0, relative: str | None = None) -> LocalFile:
    info = path.stat()
    return LocalFile(number, str(path), relative or path.name, info.st_size, info.st_mtime_ns)


def write(directory: Path, name: str | bytes, data: bytes, number: int = 0) -> LocalFile:
    path = directory / os.fsdecode(name)
    path.write_bytes(data)
    return local(path, number)


def body_of(
    files: Sequence[LocalFile],
    fields: Sequence[tuple[str, str]] = FIELDS,
    on_sent: Callable[[LocalFile, int], None] = lambda _file, _sent: None,
    *,
    sized: bool = False,
    clock: Callable[[], float] = lambda: 0.0,
) -> Body:
    return Body(*form(upload_form(fields, files, sized=sized)), checkpoint=lambda: None, on_sent=on_sent, clock=clock)


def boundary_of(body: Body) -> str:
    return body.content_type.partition("=")[2]


def drain(body: Body, amount: int = BLOCK) -> bytes:
    pieces = []
    while piece := body.read(amount):
        pieces.append(bytes(piece))
        body.taken(len(piece))
    return b"".join(pieces)


def parsed_by_multipart(body: Body, data: bytes) -> list[tuple[str, str | None, bytes]]:
    """The parts as the `multipart` package sees them: field, file name, bytes."""
    parser = multipart.MultipartParser(io.BytesIO(data), boundary_of(body), content_length=len(data), strict=True)
    return [(part.name, part.filename, part.raw) for part in parser]


def parsed_by_email(body: Body, data: bytes) -> list[tuple[str, str | None, bytes]]:
    """The same as Python's own mail parser sees them."""
    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.compat32).parsebytes(head + data)
    assert not message.defects
    out = []
    part: Any
    for part in message.get_payload():
        assert not part.defects
        # Undo what the parser does to bytes beyond ASCII.
        raw = str(next(part.raw_items())[1]).encode("ascii", "surrogateescape").decode("utf-8")
        named = dict(item.split("=", 1) for item in raw.split("; ")[1:])
        payload = part.get_payload(decode=True)
        out.append((named["name"].strip('"'), named["filename"].strip('"') if "filename" in named else None, payload))
    return out


# --- exact bytes ----------------------------------------------------------------------------------------------------


def test_body_has_these_exact_bytes(tmp_path: Path) -> None:
    """Text parts first, field `files` only, no `filename*`, no charset, no length of a part unless asked for."""
    body = body_of([write(tmp_path, "景区 b.mp4", b"\x00\xff\r\n--x", 0), write(tmp_path, "a.bin", b"2", 1)])
    b = boundary_of(body)
    expected = (
        f'--{b}\r\nContent-Disposition: form-data; name="sessionId"\r\n\r\ns-1\r\n'
        f'--{b}\r\nContent-Disposition: form-data; name="category"\r\n\r\npersonal\r\n'
        f'--{b}\r\nContent-Disposition: form-data; name="files"; filename="景区 b.mp4"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    ).encode()
    expected += b"\x00\xff\r\n--x\r\n"
    expected += (
        f'--{b}\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n2\r\n--{b}--\r\n"
    ).encode()
    assert drain(body) == expected
    assert len(body) == len(expected)
    assert body.content_type == f"multipart/form-data; boundary={b}"


def test_sized_parts_have_a_content_length(tmp_path: Path) -> None:
    body = body_of([write(tmp_path, "a.mp4", b"12345")], sized=True)
    data = drain(body)
    assert b"Content-Type: video/mp4\r\nContent-Length: 5\r\n\r\n12345\r\n" in data
    assert len(data) == len(body)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("plain.mp4", "plain.mp4"),
        ('say "cheese".mp4', "say %22cheese%22.mp4"),
        ("two\r\nlines.mp4", "two%0D%0Alines.mp4"),
        ("100%.mp4", "100%.mp4"),
        ("semi;colon=x.mp4", "semi;colon=x.mp4"),
        ("emoji 🎬 喂.avi", "emoji 🎬 喂.avi"),
        (b"latin-\xe9.mp4", "latin-%E9.mp4"),
        ("tab\tand \x1b[31m.mp4", "tab\tand \x1b[31m.mp4"),
    ],
)
def test_file_name_is_escaped_as_browsers_do(tmp_path: Path, name: str | bytes, sent: str) -> None:
    """Quotes and line breaks are percent-escaped, UTF-8 is kept, other bytes become %XX (protocol.md, section 3.13)."""
    body = body_of([write(tmp_path, name, b"x")])
    data = drain(body)
    assert f'name="files"; filename="{sent}"\r\n'.encode() in data
    assert len(data) == len(body)
    assert parsed_by_email(body, data)[-1] == ("files", sent, b"x")


def test_text_part_is_utf_8(tmp_path: Path) -> None:
    body = body_of([write(tmp_path, "a.mp4", b"x")], [*FIELDS, ("relativePath", "dir/喂 b.mp4")])
    data = drain(body)
    assert 'name="relativePath"\r\n\r\ndir/喂 b.mp4\r\n'.encode() in data
    assert len(data) == len(body)


# --- read back by others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 7, 100, 4096, BLOCK])
def test_independent_parsers_read_equal_bytes(tmp_path: Path, amount: int) -> None:
    contents = [os.urandom(3000), b"\r\n", b"--uploader-\r\n\r\n--", bytes(range(256)) * 3]
    files = [write(tmp_path, f"datei {number}.mp4", data, number) for number, data in enumerate(contents)]
    body = body_of(files)
    data = drain(body, amount)
    expected: list[tuple[str, str | None, bytes]] = [("sessionId", None, b"s-1"), ("category", None, b"personal")]
    expected += [("files", file.name, content) for file, content in zip(files, contents, strict=True)]
    assert parsed_by_multipart(body, data) == expected
    assert parsed_by_email(body, data) == expected


@given(
    contents=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4),
    amount=st.integers(1, 500),
    names=st.lists(
        st.text(st.characters(exclude_characters="/\\\x00", exclude_categories=["Cs"]), min_size=1), max_size=4
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_and_bytes_are_parsed_equal(
    tmp_path: Path, contents: list[bytes], amount: int, names: list[str]
) -> None:
    files = []
    for number, data in enumerate(contents):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(data)
        files.append(local(path, number, names[number] if number < len(names) else None))
    body = body_of(files)
    data = drain(body, amount)
    assert len(data) == len(body)
    assert [raw for _, _, raw in parsed_by_multipart(body, data)[2:]] == contents
    for file in files:
        assert f'filename="{wire_name(file.name)}"\r\n'.encode() in data


def test_file_of_gigabytes_is_read_through_one_buffer(tmp_path: Path) -> None:
    """Every piece is a view of the same megabyte."""
    path = tmp_path / "huge.mp4"
    with path.open("wb") as file:
        file.truncate(6 << 30)
    body = body_of([local(path)])
    assert len(body) > 6 << 30
    buffers = set()
    for _ in range(50):
        piece = body.read(BLOCK)
        assert len(piece) == BLOCK
        buffers.add(id(piece.obj))
    assert len(buffers) == 1
    body.close()


def test_closed_body_holds_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    body = body_of([write(tmp_path, "a.mp4", b"x" * 5000)])
    body.read(1000)
    body.close()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
    assert bytes(body.read(1000)) == b""


# --- what is reported of the bytes -----------------------------------------------------------------------------------


def test_sent_bytes_are_reported_by_file_and_end_at_its_size(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    files = [write(tmp_path, f"{n}.mp4", b"x" * 5000, n) for n in range(2)]
    ticks = iter(range(10_000))
    body = body_of(files, on_sent=lambda file, sent: told.append((file.file, sent)), clock=lambda: next(ticks) * 1.0)
    drain(body, 700)
    for number in range(2):
        mine = [sent for file, sent in told if file == number]
        assert mine == sorted(mine)
        assert mine[-1] == 5000
        assert len(mine) > 3
    assert [file for file, _ in told] == sorted(file for file, _ in told)
    assert body.through


def test_reports_come_at_most_twenty_times_a_second(tmp_path: Path) -> None:
    told: list[int] = []
    now = [0.0]
    body = body_of(
        [write(tmp_path, "a.mp4", b"x" * 100_000)], on_sent=lambda _, sent: told.append(sent), clock=lambda: now[0]
    )
    while piece := body.read(100):
        now[0] += 0.001
        body.taken(len(piece))
    assert told[-1] == 100_000
    assert len(told) <= now[0] * 20 + 2


def test_end_is_reported_once_after_the_last_byte(tmp_path: Path) -> None:
    ends: list[bool] = []
    files = [write(tmp_path, "a.mp4", b"x" * 1000)]
    now = [10.0]
    body = Body(
        *form(upload_form(FIELDS, files)),
        checkpoint=lambda: None,
        on_through=lambda: ends.append(True),
        clock=lambda: now[0],
    )
    assert body.seconds == 0.0
    piece = body.read(BLOCK)
    now[0] = 12.0
    body.taken(len(piece) - 1)
    assert (ends, body.through, body.seconds) == ([], False, 2.0)
    now[0] = 13.0
    body.taken(1)
    now[0] = 99.0
    assert (ends, body.through, body.seconds) == ([True], True, 3.0)


# --- files that change ----------------------------------------------------------------------------------------------


def failing(body: Body, amount: int = 500) -> FileError:
    """Return the error that reading ends in; what was read before is not the whole body."""
    pieces: list[int] = []
    with pytest.raises(FileError) as caught:
        pieces.extend(map(len, iter(lambda: body.read(amount), b"")))
    assert sum(pieces) < len(body)
    assert not body.read(amount), "nothing may follow an error"
    return caught.value


def half(body: Body) -> None:
    for _ in range(3):
        body.read(500)


@pytest.mark.parametrize("change", ["shrinks", "grows", "is touched"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_changed_file_is_not_sent_to_its_end(tmp_path: Path, change: str, when: str) -> None:
    file = write(tmp_path, "a.mp4", b"x" * 5000)
    body = body_of([file, write(tmp_path, "b.mp4", b"y", 1)])
    if when == "while":
        half(body)
    if change == "shrinks":
        os.truncate(file.path, 1200)
    elif change == "grows":
        with open(file.path, "ab") as out:
            out.write(b"z")
    os.utime(file.path, ns=(0, file.mtime_ns + 1_000_000_000))
    error = failing(body)
    assert error.code is FailureCode.CHANGED
    assert error.path == file.path
    assert file.path in str(error)
    assert error.hint
    assert not error.retryable


def test_shorter_file_with_the_same_mtime_is_changed(tmp_path: Path) -> None:
    file = write(tmp_path, "a.mp4", b"x" * 5000)
    body = body_of([file])
    half(body)
    os.truncate(file.path, 1200)
    os.utime(file.path, ns=(file.mtime_ns, file.mtime_ns))
    assert failing(body).code is FailureCode.CHANGED


def test_file_that_vanishes_before_it_is_opened_is_named(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.mp4", b"x" * 2000), write(tmp_path, "b.mp4", b"y", 1)
    body = body_of([first, second])
    half(body)
    os.unlink(second.path)
    error = failing(body)
    assert (error.code, error.path) == (FailureCode.VANISHED, second.path)


def test_file_that_vanishes_while_it_is_read_is_sent(tmp_path: Path) -> None:
    """It is open: its bytes are those of the selection, whatever its name does now."""
    file = write(tmp_path, "a.mp4", b"x" * 5000)
    body = body_of([file])
    first = bytes(body.read(500))
    os.unlink(file.path)
    assert b"x" * 5000 in first + drain(body, 500)


def test_file_that_became_a_directory_is_unreadable(tmp_path: Path) -> None:
    file = write(tmp_path, "a.mp4", b"x")
    os.unlink(file.path)
    os.mkdir(file.path)
    assert failing(body_of([file])).code is FailureCode.UNREADABLE


def test_failing_disk_is_an_unreadable_file(tmp_path, monkeypatch) -> None:
    class Failing(io.FileIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(bodies, "open_unchanged", lambda file: Failing(file.path))
    file = write(tmp_path, "a.mp4", b"x")
    error = failing(body_of([file]))
    assert (error.code, error.path) == (FailureCode.UNREADABLE, file.path)
    assert os.strerror(errno.EIO) in str(error)


def test_file_that_lacks_a_descriptor_can_be_retried(tmp_path: Path) -> None:
    file = write(tmp_path, "a.mp4", b"x")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        error = failing(body_of([file]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (error.code, error.retryable) == (FailureCode.UNREADABLE, True)


# --- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "video/mp4"),
        ("a.AVI", "video/x-msvideo"),
        ("a.png", "image/png"),
        ("a.unheard-of", "application/octet-stream"),
        ("no extension", "application/octet-stream"),
    ],
)
def test_media_type_depends_on_the_extension(name: str, kind: str) -> None:
    assert content_type(name) == kind

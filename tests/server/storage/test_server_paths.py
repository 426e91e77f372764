"""Limits of the paths of clients: each door refuses a long one before the file system is asked."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, file, new_session, post_parts, progress, text, upload
from server.packs.packing import body_of_pack, manifest_of, post_body, send_pack
from server.tus.tus_client import create, error
from serving import inside, running_server

from uploader_server.storage.paths import UnsafePathError, safe_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_server.serving import EmbeddedServer

LONG_PATH = "d/" * 2100 + "x.mp4"
LONG_NAME = "d/" + "é" * 126 + ".mp4"  # 256 bytes
LONGEST_NAME = "é" * 125 + "x.mp4"  # 255 bytes
CALLS = ("lstat", "stat", "open", "mkdir", "link", "readlink")
DEEP = "d/" * 1000 + "x.mp4"
REASONS = {LONG_PATH: "the path has more than 4096 bytes", LONG_NAME: "a name in the path has more than 255 bytes"}


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


def packed(url: str, path: str, good: str) -> list[Any]:
    return [file.get("error") for file in send_pack(url, new_session(url, 2), [(path, b"1"), (good, b"2")])]


def batched(url: str, path: str, good: str) -> list[Any]:
    return [one.get("errorCode") for one in upload(url, file("a", b"1"), file("b", b"2"), paths=(path, good))]


def named(url: str, path: str, good: str) -> list[Any]:
    """The names of a batch without paths."""
    return [one.get("errorCode") for one in upload(url, file(path, b"1"), file(good, b"2"))]


def resumable(url: str, path: str, good: str) -> list[Any]:
    """Two tus uploads: a creation that is refused has no neighbours."""
    session = new_session(url, 2)
    answers = [create(url, 1, b"1", sessionId=session, filename="a", relativePath=one) for one in (path, good)]
    return [None if answer.status_code == 201 else error(answer)[1] for answer in answers]


def looked_up(url: str, path: str, good: str) -> list[Any]:
    body = {"category": "personal", "files": [{"relativePath": one, "size": 1} for one in (path, good)]}
    return [one.get("error") for one in requests.post(f"{url}/api/upload/lookup", json=body).json()["files"]]


DOORS = {"pack": packed, "batch": batched, "name": named, "tus": resumable, "lookup": looked_up}


@pytest.mark.parametrize("path", [LONG_PATH, LONG_NAME], ids=["path", "name"])
@pytest.mark.parametrize("door", DOORS)
def test_long_path_fails_alone_and_reaches_no_file_system_call(
    shared: EmbeddedServer, door: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in CALLS:
        monkeypatch.setattr(os, name, noting(getattr(os, name), asked))
    assert DOORS[door](shared.url, path, f"{door}/{len(path)}/{LONGEST_NAME}") == ["INVALID_PATH", None]
    assert asked
    assert not [one for one in asked if "d/d/d" in one or "é" * 126 in one]


def noting(call: Callable[..., Any], asked: list[str]) -> Callable[..., Any]:
    def noted(path: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(path if isinstance(path, str) else os.fsdecode(path) if hasattr(path, "__fspath__") else "")
        return call(path, *arguments, **named)

    return noted


@pytest.mark.parametrize("field", ["filename", "relativePath"])
@pytest.mark.parametrize("concat", ["", "partial"])
def test_long_name_in_metadata_is_refused_at_creation(
    subtests: pytest.Subtests, shared: EmbeddedServer, field: str, concat: str
) -> None:
    """Also the name beside a path, and those of parts, which never become files."""
    headers = {"Upload-Concat": concat} if concat else {}
    for path, reason in REASONS.items():
        with subtests.test(path=path, reason=reason):
            answer = create(shared.url, 1, headers=headers, **{"filename": "a", "relativePath": "a", field: path})
            assert (error(answer), answer.json()["message"]) == ((400, "INVALID_PATH"), reason)


def test_validation_reports_a_long_name_of_one_file(shared: EmbeddedServer) -> None:
    files = [{"name": name, "size": 1, "type": "video/mp4"} for name in (LONG_PATH, LONGEST_NAME, LONG_NAME)]
    answer = requests.post(f"{shared.url}/api/upload/validate", json={"files": files}, timeout=DEADLINE).json()
    errors = [file["errors"] for file in answer["files"]]
    assert errors == [[f"INVALID_PATH: {REASONS[LONG_PATH]}"], [], [f"INVALID_PATH: {REASONS[LONG_NAME]}"]]


@pytest.mark.parametrize("path", [LONG_PATH, LONG_NAME], ids=["path", "name"])
def test_long_path_of_a_download_or_an_analysis_is_not_found(
    shared: EmbeddedServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in CALLS:
        monkeypatch.setattr(os, name, noting(getattr(os, name), asked))
    location = f"/uploads/personal/{path}"
    assert requests.get(shared.url + location, timeout=DEADLINE).status_code == 404
    analysis = requests.post(f"{shared.url}/api/ai/analyze/content", json={"videoPath": location}, timeout=DEADLINE)
    assert error(analysis) == (404, "FILE_NOT_FOUND")
    assert not [one for one in asked if "d/d/d" in one or "é" * 126 in one]


def test_lookup_finds_a_file_whose_name_leaves_no_room_for_a_number(shared: EmbeddedServer) -> None:
    path = f"numbered/{LONGEST_NAME}"
    send_pack(shared.url, new_session(shared.url), {path: b"1"})
    wanted = {"relativePath": path, "size": 1, "sha256": hashlib.sha256(b"1").hexdigest()}
    body = {"category": "personal", "files": [wanted]}
    (found,) = requests.post(f"{shared.url}/api/upload/lookup", json=body, timeout=DEADLINE).json()["files"]
    assert (found["exists"], found["sha256"]) == (True, wanted["sha256"])


def test_only_the_beginning_of_a_refused_path_is_kept(shared: EmbeddedServer) -> None:
    """In the progress, in the database, and in what a session remembers to count each file once."""
    session = new_session(shared.url, 4)
    paths = [f"{'x' * 100_000}{end}" for end in "abb"]
    send_pack(shared.url, session, [(path, b"") for path in paths])
    shown = [file["relativePath"] for file in progress(shared.url, session).json()["files"]]
    assert len(set(shown)) == 2  # the third is the second again, which is not counted twice
    assert all(len(path) < 300 for path in shown)
    batched(shared.url, "../" + "x" * 50_000, "good.mp4")
    longest = "SELECT max(length(original_name), length(relative_path), length(error)) FROM files"
    database = inside(shared).store.database
    assert max(row[0] or 0 for row in database.wait(lambda db: db.execute(longest).fetchall())) < 300


@pytest.mark.thorough
@pytest.mark.parametrize(("durability", "door"), [("none", "batch"), ("fsync", "pack")])
def test_path_of_a_thousand_new_directories_is_stored(
    durability: str, door: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file beside it. The end of the server removes them all."""
    if os.access("/dev/shm", os.W_OK):  # a disk needs seconds for so many directories
        monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    with running_server(packs=True, durability=durability) as server:
        assert DOORS[door](server.url, DEEP, "good.mp4") == [None, None]
        assert (server.root / "personal" / DEEP).read_bytes() == b"1"
        assert (server.root / "personal" / "good.mp4").is_file()
        assert looked_up(server.url, DEEP, "good.mp4") == [None, None]
        assert requests.get(f"{server.url}/uploads/personal/{DEEP}", timeout=DEADLINE).content == b"1"
    assert not server.root.exists()
    assert not caplog.text


def test_paths_with_very_many_directories_ask_for_a_smaller_request(shared: EmbeddedServer) -> None:
    """Each segment may be a directory to create or open: 413 makes the client divide the request."""
    session = new_session(shared.url, 100)
    paths = [f"{number}/{'d/' * 2000}x.mp4" for number in range(33)]
    with pytest.raises(AssertionError, match="PACK_TOO_LARGE"):
        send_pack(shared.url, session, [(path, b"") for path in paths])
    escaped = manifest_of(session, [(path, b"") for path in paths]).replace(b"/", b"\\u002f")
    assert error(post_body(shared.url, body_of_pack(escaped, b""))) == (413, "PACK_TOO_LARGE")
    wanted = [{"relativePath": path, "size": 0} for path in paths]
    body = {"category": "personal", "files": wanted}
    lookup = requests.post(f"{shared.url}/api/upload/lookup", json=body, timeout=DEADLINE)
    assert (lookup.status_code, "at most 65536 segments" in lookup.text) == (413, True)
    with pytest.raises(AssertionError, match=r"at most 65536 segments"):
        upload(shared.url, *(file("a", b"") for _ in paths), session=session, paths=tuple(paths))
    assert not (shared.root / "personal" / "0").exists()


@pytest.mark.parametrize("door", ["pack", "lookup"])
def test_segments_of_a_refused_path_do_not_count(shared: EmbeddedServer, door: str) -> None:
    """A path with more segments than a request may have fails alone, like every path that is too long."""
    assert DOORS[door](shared.url, "d/" * 70_000 + "x.mp4", "good.mp4") == ["INVALID_PATH", None]


def test_no_symlink_below_a_category_is_followed_at_any_depth() -> None:
    with running_server(packs=True) as server:
        personal = server.root / "personal"
        (personal / "real/deeper").mkdir(parents=True)
        (personal / "link").symlink_to("real")
        (personal / "real/up").symlink_to("../..")
        (personal / "real/loop").symlink_to("loop")
        outcomes = [packed(server.url, path, f"good {n}.mp4")[0] for n, path in enumerate(LINKED)]
    assert outcomes == list(LINKED.values())


LINKED = {
    "real/deeper/a.mp4": None,
    "link/deeper/a.mp4": "INVALID_PATH",
    "link/new/a.mp4": "INVALID_PATH",
    "link/up/a.mp4": "INVALID_PATH",
    "real/up/personal/a.mp4": "INVALID_PATH",
    "real/up/scenic/a.mp4": "INVALID_PATH",
    "real/loop/a.mp4": "INVALID_PATH",
}


@pytest.mark.parametrize("path", [LONG_PATH, LONG_NAME, "a\ud800", "\0" * 4097, "/" * 5000])
def test_safe_parts_refuses_long_paths(path: str) -> None:
    with pytest.raises(UnsafePathError):
        safe_parts(path)


def test_safe_parts_takes_paths_at_the_limits() -> None:
    longest = "/".join([LONGEST_NAME] * 16)
    assert len(longest.encode()) == 4095
    assert len(safe_parts(longest)) == 16
    assert len(safe_parts("é/" * 1365 + "x")) == 1366  # 4,096 bytes
    with pytest.raises(UnsafePathError):
        safe_parts("é/" * 1365 + "xy")


def pack_once(url: str, path: str, data: bytes) -> Any:
    """The error of one file with `ifExists: fail`, or the path where it is."""
    session = new_session(url)
    answer = post_body(url, body_of_pack(manifest_of(session, {path: data}, ifExists="fail"), data)).json()["files"][0]
    return answer.get("error") or answer["location"].removeprefix("/uploads/personal/")


def batch_once(url: str, path: str, data: bytes) -> Any:
    fields = {"sessionId": new_session(url), "category": "personal", "relativePath": path, "ifExists": "fail"}
    parts = [*(text(name, value) for name, value in fields.items()), file("name", data)]
    answer = post_parts(url, parts).json()["files"][0]
    return answer.get("errorCode") or answer["filePath"].partition("personal/")[2]


def tus_once(url: str, path: str, data: bytes) -> Any:
    fields = {"sessionId": new_session(url), "relativePath": path, "ifExists": "fail"}
    answer = create(url, len(data), data, **fields)
    return answer.headers.get("content-location", "").removeprefix("/uploads/personal/") or error(answer)[1]


@pytest.mark.parametrize("once", [pack_once, batch_once, tus_once])
def test_repeated_file_is_found_equal_and_only_another_one_is_refused(
    shared: EmbeddedServer, once: Callable[[str, str, bytes], Any]
) -> None:
    """A client whose answer was lost sends its file again, also with `ifExists: fail`."""
    path = f"{once.__name__}/x.mp4"
    told = [once(shared.url, path, data) for data in (b"one", b"one", b"two", b"three")]
    assert told == [path, path, "FILE_EXISTS", "FILE_EXISTS"]
    assert [file.name for file in (shared.root / "personal" / once.__name__).iterdir()] == ["x.mp4"]

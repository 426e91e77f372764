"""`--if-exists`: the outcome of a file whose name is taken on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import uploader
from serving import running_server
from tus_services import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

BY = [(), ("--no-pack",), ("--protocol", "batch")]
"""In packs, with tus, in batch requests."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as running:
        yield running


@pytest.mark.parametrize("by", BY)
def test_if_exists_fail_refuses_taken_names(
    by: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Whatever the content; with --skip-existing equal files are skipped. Nothing is renamed."""
    make_files(**{"same.mp4": b"same", "other.mp4": b"mine", "new.mp4": b"new"})
    there = server.root / "personal" / dest / "files"
    there.mkdir(parents=True)
    (there / "same.mp4").write_bytes(b"same")
    (there / "other.mp4").write_bytes(b"theirs")
    command = ("upload", "files", "-s", server.url, *by, "--dest", dest, "--if-exists", "fail", "--json")
    strict = uploader(*command, home=tmp_path)
    assert (strict.code, strict.finished["completed"]) == (4, 1), strict.err
    failed = {event["path"]: (event["code"], event["retryable"]) for event in strict.of("file.failed")}
    assert failed == {f"files/{name}.mp4": ("exists", False) for name in ("same", "other")}
    assert f"personal/{dest}/files/same.mp4 exists on the server (--if-exists fail)" in strict.err
    combined = uploader(*command, "--skip-existing", home=tmp_path)
    assert [event["path"] for event in combined.of("file.failed")] == ["files/other.mp4"]
    assert {event["reason"] for event in combined.of("file.skipped")} == {"present"}
    stored = {path.name: path.read_bytes() for path in there.iterdir()}
    assert stored == {"same.mp4": b"same", "other.mp4": b"theirs", "new.mp4": b"new"}


@pytest.mark.parametrize("by", BY)
def test_if_exists_fail_refuses_name_taken_during_upload(
    by: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Two files of a run have one name, which the lookup finds free: the server refuses the second."""
    make_files(**{"a/x.mp4": b"first", "b/x.mp4": b"second"})
    command = ("upload", "files/a/x.mp4", "files/b/x.mp4", "-s", server.url, *by, "--dest", dest)
    done = uploader(*command, "--if-exists", "fail", "--json", home=tmp_path)
    assert [path.name for path in (server.root / "personal" / dest).iterdir()] == ["x.mp4"]
    assert done.code == 4
    (failed,) = done.of("file.failed")
    assert (failed["code"], failed["retryable"]) == ("exists", False)
    assert "A file with other content has this name" in failed["message"]


@pytest.mark.thorough
@pytest.mark.parametrize(("by", "fault"), [((), "lose:pack#1"), (("--no-pack",), "lose:create#1")])
def test_file_whose_answer_was_lost_is_not_taken(
    by: tuple[str, ...], fault: str, make_files: Files, tmp_path: Path
) -> None:
    """Its own upload has stored it: the next run finds that, and does not fail."""
    make_files(**{"a.mp4": b"content"})
    with running_server(packs=True) as server:
        server.faults.add(fault)
        command = ("upload", "files", "-s", server.url, *by, "--if-exists", "fail", "--retries", "0", "--json")
        lost, again = uploader(*command, home=tmp_path), uploader(*command, home=tmp_path)
    assert (lost.code, again.code) == (3, 0), again.err
    assert again.finished["completed"] == 1


def test_if_exists_fail_at_a_server_without_lookup_exits_2(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 1})
    with running_server(flavour="reference", processing_seconds=0.01) as server, Service() as service:
        here = uploader("upload", files, "-s", server.url, "--if-exists", "fail", home=tmp_path)
        there = uploader("upload", files, "--tus-endpoint", service.url, home=tmp_path, UPLOADER_IF_EXISTS="fail")
        paths = [request.path for request in server.faults.requests]
        assert [path for path in paths if path != "/socket.io/"] == ["/health"]  # the socket may be dialled meanwhile
        assert not service.requests
    assert here.code == there.code == 2
    assert "--if-exists: fail needs a lookup of stored files" in here.err
    assert "UPLOADER_IF_EXISTS: fail needs a lookup" in there.err

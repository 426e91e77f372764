"""`--dest`: a directory on the server below which the files are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from command import uploader
from serving import running_server
from tus_services import Service

import uploader_cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

DEST = "trips/2026 ü"


@pytest.mark.thorough
@pytest.mark.parametrize(("packs", "protocol"), [(True, "auto"), (False, "auto"), (False, "batch")])
def test_dest_stores_files_below_a_directory(packs: bool, protocol: str, make_files: Files, tmp_path: Path) -> None:
    """By every protocol; the same command skips them, and without the option they are other files."""
    make_files(**{"deep/a.mp4": b"a", "b.mp4": b"b"})
    with running_server(packs=packs) as server:
        command = ("upload", "files", "-s", server.url, "--protocol", protocol, "--skip-existing")
        done = uploader(*command, "--dest", f"./{DEST}/", "--report", "r.json", home=tmp_path)
        assert done.code == 0, done.err
        there = server.root / "personal" / DEST / "files"
        assert ((there / "deep" / "a.mp4").read_bytes(), (there / "b.mp4").read_bytes()) == (b"a", b"b")
        again = uploader(*command, "--dest", DEST, "--json", home=tmp_path)
        assert {event["reason"] for event in again.of("file.skipped")} == {"present"}
        assert again.events[0]["dest"] == DEST
        elsewhere = uploader(*command, "--dest", ".", "--json", home=tmp_path)
        assert elsewhere.finished["completed"] == 2
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["dest"] == DEST
    assert {row["relative_path"] for row in report["files"]} == {"files/deep/a.mp4", "files/b.mp4"}


@pytest.mark.thorough
@pytest.mark.feature("plan")
def test_resumed_run_and_list_of_failures_keep_dest(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """`resume` remembers the directory; a list of failures works with the same option."""
    make_files(**{"a.mp4": b"a", "b.mp4": b"b"})
    server.faults.fail_files.append("*b.mp4")
    first = uploader("upload", "files", "-s", server.url, "--dest", DEST, "--failed-to", "left.jsonl", home=tmp_path)
    assert first.code == 4
    server.faults.fail_files.clear()
    again = ("upload", "--from-file", "left.jsonl", "-s", server.url, "--dest", DEST)
    plan = uploader(*again, "-n", "-v", home=tmp_path)
    assert f"files/b.mp4 → personal/{DEST}/files/b.mp4" in plan.out
    assert uploader("resume", home=tmp_path, UPLOADER_DEST="elsewhere").code == 0
    stored = {path.relative_to(server.root).as_posix() for path in server.root.glob("personal/**/*.mp4")}
    assert stored == {f"personal/{DEST}/files/{name}.mp4" for name in "ab"}


@pytest.mark.parametrize("value", ["/srv", "a//b", "a/../b", "..", "a\nb", "a\\b", "", "a/./b"])
def test_invalid_dest_exits_2(value: str, make_files: Files, tmp_path: Path) -> None:
    done = uploader("upload", make_files(a=1), "-s", "localhost:9", "--dest", value, home=tmp_path)
    assert done.code == 2
    assert done.err.startswith("error: --dest: ")


@pytest.mark.feature("plan")
def test_dest_at_a_server_without_directories_exits_2(make_files: Files, tmp_path: Path) -> None:
    """No session is created, but a slow run may connect; a dry run knows it afterwards."""
    files = make_files(**{"a.mp4": 10})
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        done = uploader("upload", files, "-s", server.url, "--dest", DEST, home=tmp_path)
        assert {request.path for request in server.faults.requests} - {"/socket.io/"} == {"/health"}
        assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
        plan = uploader("upload", files, "-s", server.url, "--dest", DEST, "-n", home=tmp_path)
    assert done.code == plan.code == 2
    assert "--dest: " in done.err
    assert "has no directories" in done.err
    assert "uploader resume" not in done.err
    assert "has no directories" in plan.err


def test_dest_is_in_the_metadata_of_a_tus_server(make_files: Files, tmp_path: Path) -> None:
    """In `relativePath` and `{path}`."""
    files = make_files(**{"a.mp4": 1})
    with Service() as service:
        command = ("upload", files, "--tus-endpoint", service.url, "--dest", DEST)
        assert uploader(*command, "--metadata", "name={path}", home=tmp_path).code == 0
        sent = service.only.metadata
        assert sent["relativePath"] == sent["name"] == f"{DEST}/files/a.mp4"


def test_library_stores_files_below_dest(server: EmbeddedServer, make_files: Files) -> None:
    files = make_files(**{"a.mp4": b"a"})
    with uploader_cli.Uploader(server=server.url, dest=DEST) as uploads:
        assert uploads.upload(files).ok
    assert uploader_cli.upload(files / "a.mp4", server=server.url, dest="other").ok
    stored = {path.relative_to(server.root).as_posix() for path in server.root.glob("personal/**/*.mp4")}
    assert stored == {f"personal/{DEST}/files/a.mp4", "personal/other/a.mp4"}

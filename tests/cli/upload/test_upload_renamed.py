"""Files that the server stores under another name because theirs is taken."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from command import uploader
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.thorough
@pytest.mark.parametrize(("packs", "protocol"), [(True, "auto"), (False, "auto"), (False, "batch")])
def test_renamed_file_is_named_in_summary_event_and_report(
    packs: bool, protocol: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Every protocol reports it; a file that keeps its name is not mentioned."""
    with running_server(packs=packs) as server:
        make_files(**{"deep/b c.mp4": 10})
        command = ("upload", "files", "-s", server.url, "--protocol", protocol, "--no-resume", "--json")
        first = uploader(*command, home=tmp_path)
        (tmp_path / "files" / "deep" / "b c.mp4").write_bytes(b"another")
        make_files(**{"new.mp4": 3})
        reports = ("--report", "r.json", "--report", "r.csv", "--report", "r.md")
        done = uploader(*command, *reports, home=tmp_path)
        assert (server.root / "personal" / "files" / "deep" / "b c (2).mp4").read_bytes() == b"another"
    stored_as = "files/deep/b c (2).mp4"
    assert not any("stored_as" in event for event in first.events)
    assert "another name" not in first.err
    names = {event["path"]: event.get("stored_as") for event in done.of("file.completed")}
    assert names == {"files/deep/b c.mp4": stored_as, "files/new.mp4": None}
    assert f"! stored under another name:\n  files/deep/b c.mp4 → {stored_as}\n" in done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["renamed"] == 1
    assert {row["path"]: row.get("stored_as") for row in report["files"]} == names
    with (tmp_path / "r.csv").open(newline="") as lines:
        assert {row["path"]: row["stored_as"] or None for row in csv.DictReader(lines)} == names
    assert "| files/deep/b c.mp4 | files/deep/b c (2).mp4 |" in (tmp_path / "r.md").read_text()


def test_session_prefix_of_the_server_is_not_reported_as_renaming(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The reference backend puts the session's id before every name."""
    files = make_files(**{"a.mp4": 10})
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert "stored_as" not in done.of("file.completed")[0]
    assert "another name" not in done.err

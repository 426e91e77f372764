"""Reports of single shards, and the merged report."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from command import ended, read_until, start

from uploader_cli.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SHARDS = 3


@pytest.mark.thorough
def test_merged_shard_reports_have_each_file_once(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the third shard it is reported as missing, also if it was cut from other files."""
    names = [f"{directory}/{number}.mp4" for directory in "ab" for number in range(15)]
    make_files(**dict.fromkeys(names, 10))
    monkeypatch.chdir(tmp_path)
    reports = []
    for index in range(1, SHARDS + 1):
        reports.append(f"s{index}.json")
        assert (
            main(["upload", "files", "-s", server.url, "-q", f"--shard={index}/{SHARDS}", "--report", reports[-1]]) == 0
        )
        document = json.loads((tmp_path / reports[-1]).read_text())
        assert document["shard"] == {"index": index, "count": SHARDS}
        assert 0 < document["counts"]["selected"] < len(names)
    assert main(["report", "merge", *reports[:2], "-q", "-o", "two.json"]) == 3
    assert json.loads((tmp_path / "two.json").read_text())["missing"] == [f"no report of shard 3 of {SHARDS}"]
    assert main(["report", "merge", *reports, "-q", "-o", "all.json"]) == 0
    whole = json.loads((tmp_path / "all.json").read_text())
    assert sorted(row["path"] for row in whole["files"]) == [f"files/{name}" for name in sorted(names)]
    assert (whole["missing"], whole["in_several_shards"], whole["counts"]["completed"]) == ([], 0, len(names))
    assert {run["all_shards"]["files"] for run in whole["runs"]} == {len(names)}
    line = ["upload", "files/a", "-s", server.url, "-q", f"--shard={SHARDS}/{SHARDS}", "--report", "part.json"]
    assert main(line) == 0
    assert main(["report", "merge", *reports[:2], "part.json", "-q"]) == 3
    stored = server.root / "personal" / "files"
    assert sorted(str(path.relative_to(stored)) for path in stored.rglob("*.mp4")) == sorted(names)


@pytest.mark.thorough
def test_killed_shard_is_reported_by_the_resuming_run(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` leaves no report; the resumed run accounts for every file of the shard, also for those sent before."""
    make_files(**{f"{number:02}.mp4": 640 for number in range(40)})
    options = (
        "--shard",
        "1/1",
        "--report",
        "killed.json",
        "--limit-rate",
        "2560",
        "--jobs",
        "1",
        "--state-dir",
        "state",
    )
    process = start("upload", "files", "-s", server.url, "--json", *options, home=tmp_path)
    seen = read_until(process, "file.completed")
    ended(process, seen, signal.SIGKILL)
    assert not (tmp_path / "killed.json").exists()
    monkeypatch.chdir(tmp_path)
    resumed = ["resume", "-q", "--limit-rate", "none", "--state-dir", "state", "--report", "resumed.json"]
    assert main(resumed) == 0
    assert main(["report", "merge", "resumed.json", "-q", "-o", "all.json"]) == 0
    whole = json.loads((tmp_path / "all.json").read_text())
    assert [row["path"] for row in whole["files"]] == [f"files/{number:02}.mp4" for number in range(40)]
    assert whole["skips"] == {"present": 40 - whole["counts"]["completed"]}
    assert whole["runs"][0]["shard"] == {"index": 1, "count": 1}

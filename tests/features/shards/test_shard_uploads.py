"""Runs with `--shard`."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from command import uploader

from uploader_cli import Settings, upload
from uploader_cli.features.shards.part import Shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]


@pytest.mark.thorough
def test_shard_sends_its_part_of_the_files(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Two runs send one half each; the second takes its number from the job array."""
    files = make_files(**{f"{number}.mp4": 1 for number in range(20)})
    one = uploader("upload", files, "-s", server.url, "--shard", "1/2", "--json", home=tmp_path)
    array = {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "2"}
    options = ("--shard", "auto", "--json", "--report", "two.json")
    two = uploader("upload", files, "-s", server.url, *options, home=tmp_path, **array)
    assert (one.code, two.code) == (0, 0)
    halves = [{event["path"] for event in done.of("file.completed")} for done in (one, two)]
    assert all(halves)
    assert not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == 20
    assert two.events[0]["files"] == len(halves[1])
    assert two.finished["skipped"] == 0
    assert json.loads((tmp_path / "two.json").read_text())["shard"] == {"index": 2, "count": 2}


def test_shard_without_files_exits_0(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """With more machines than files some shards are empty, which is not an error."""
    files = make_files(**{"a.mp4": 1})
    codes = {uploader("upload", files, "-s", server.url, "--shard", f"{n}/2", home=tmp_path).code for n in (1, 2)}
    assert codes == {0}


def test_each_shard_of_a_list_needs_only_its_own_files(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with the same list: all is there once, and each has looked at its own files only."""
    monkeypatch.chdir(tmp_path)
    names = [f"files/{number:02}.mp4" for number in range(20)]
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    for shard in ("1/2", "2/2"):
        settings = Settings(server=server.url, from_file=tmp_path / "list.txt", shard=shard)
        own = [name for name in names if Shard(settings).holds(name)]
        assert 0 < len(own) < 20
        shutil.rmtree("files", ignore_errors=True)
        make_files(**{name.removeprefix("files/"): 1 for name in own})
        assert len(upload(from_file=tmp_path / "list.txt", settings=settings).receipts) == len(own)
    assert sorted(path.name for path in server.root.rglob("*.mp4")) == [name[6:] for name in names]

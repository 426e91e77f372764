"""`upload --digest`: the SHA-256 of each file, from the bytes that are read to send it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from command import DISTANT, ended, read_confirmed, start, uploader
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.sources import content
from uploader_cli.transfer import bodies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

KIB, MIB = 1 << 10, 1 << 20


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "how",
    [
        ("--chunk-size", "64K"),
        ("--chunk-size", "64K", "--checksum", "none"),
        ("--chunk-size", "64K", "--checksum", "sha1", "--verify"),
        ("--protocol", "batch"),
    ],
    ids=" ".join,
)
def test_digest_is_computed_in_the_pass_that_sends(
    how: tuple[str, ...],
    make_files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With packs, tus and batch, each byte is read once; event, report and receipt have the digest."""
    make_files(small=10, one=1, **{"deep/large": os.urandom(300 * KIB)})
    monkeypatch.chdir(tmp_path)
    read, read_at, read_block = list[int](), content.read_at, content.read_block

    def counted(file: Any, source: Any, position: int, piece: memoryview) -> None:
        read.append(len(piece))
        read_at(file, source, position, piece)

    def counted_block(file: Any, source: Any, position: int, length: int) -> bytes:
        read.append(length)
        return read_block(file, source, position, length)

    monkeypatch.setattr(bodies, "read_at", counted)
    monkeypatch.setattr(content, "read_at", counted)
    monkeypatch.setattr(content, "read_block", counted_block)
    names = ("files/small", "files/one", "files/deep/large")
    digests = {name: f"sha256:{sha256(tmp_path / name)}" for name in names}
    with running_server(packs=True) as server:
        monkeypatch.setenv("UPLOADER_SERVER", server.url)
        monkeypatch.setattr("uploader_cli.core.sizes.LARGEST_PACKED", 64 * KIB)
        assert main(["upload", "files", "--digest", "--report", "r.json", "--json", *how]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {event["path"]: event["checksum"] for event in events if event["type"] == "file.completed"} == digests
        rows = json.loads((tmp_path / "r.json").read_text())["files"]
        assert {row["path"]: row["checksum"] for row in rows} == digests
        assert sum(read) == 300 * KIB + 11
        assert main(["upload", "files", "--skip-existing", "--digest", "--report", "again.json", "-q", *how]) == 0
    assert sum(read) == 300 * KIB + 11, "the second run has the digests of the receipts"
    rows = json.loads((tmp_path / "again.json").read_text())["files"]
    assert {row["path"]: row["checksum"] for row in rows} == digests


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_digest_of_a_resumed_file_includes_what_was_sent_before(parts: int, tmp_path: Path) -> None:
    """The first run has no --digest; a file sent in parts is read again where they are not in order."""
    big, early = tmp_path / "big.mp4", tmp_path / "early.mp4"
    big.write_bytes(os.urandom(4 * MIB))
    early.write_bytes(b"early")
    slow = ("-j", str(parts), "--chunk-size", "256K", "--limit-rate", "400K", "--json")
    small = {f"uploader_cli.transfer.tus_state.{name}": MIB for name in ("LARGE_AND_FAR", "LEAST_PART")}
    sizes = {**small, **(DISTANT if parts > 1 else {})}
    with running_server(latency_ms=30 if parts > 1 else 0) as server:
        process = start("upload", early, big, "-s", server.url, *slow, home=tmp_path, constants=sizes)
        ended(process, read_confirmed(process, MIB), signal.SIGKILL)
        again = ("resume", "--limit-rate", "none", "--digest", "--json")
        done = uploader(*again, home=tmp_path, constants=sizes)
        assert done.code == 0, done.err
        (began,) = done.of("file.started")
        assert MIB <= began["offset"] < 4 * MIB
        expected = {str(path): f"sha256:{sha256(path)}" for path in (early, big)}
        ends = done.of("file.completed") + done.of("file.skipped")
        assert {event["path"]: event["checksum"] for event in ends} == expected


def test_skipped_file_has_the_digest_of_its_receipt(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Also without --digest, in the event and in both columns of a CSV report."""
    files = make_files(**{"a.bin": b"a", "b.bin": b"bb"})
    command = ("upload", files, "-s", server.url, "--json")
    assert uploader(*command, "--digest", home=tmp_path).code == 0
    again = uploader(*command, "--skip-existing", "--report", "files.csv", home=tmp_path)
    with (tmp_path / "files.csv").open(newline="") as report:
        rows = [(row["outcome"], row["checksum"], row["sha256"]) for row in csv.DictReader(report)]
    found = {event["path"]: event.get("checksum") for event in again.of("file.skipped")}
    assert found == {str(path): f"sha256:{sha256(path)}" for path in files.iterdir()}
    assert sorted(rows) == sorted(("skipped", checksum, checksum.partition(":")[2]) for checksum in found.values())

"""The URL of each file on the server: in events, reports, receipts, the summary and `--links`."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from command import uploader
from serving import running_server
from tus_services import Service

import uploader_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as running:
        yield running


def links(file: Path) -> dict[str, str]:
    """The URLs in a list of links, by path."""
    lines = (line.split("\t") for line in file.read_text().splitlines())
    return {path: url for url, path in lines}


@pytest.mark.parametrize("by", [(), ("--no-pack",), ("--protocol", "batch")])
def test_each_output_has_the_url_of_a_stored_file(
    by: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """It can be read there; a file that is skipped because it is there has it as well."""
    make_files(**{"a b ü.mp4": b"one", "c.mp4": b"two"})
    outputs = ("--links", "links.txt", "--report", "r.json", "--report", "r.csv", "--json")
    command = ("upload", "files", "-s", server.url, *by, "--dest", f"{dest} ü", *outputs)
    done = uploader(*command, home=tmp_path)
    urls = {event["path"]: event["url"] for event in done.of("file.completed")}
    assert {urlopen(url).read() for url in urls.values()} == {b"one", b"two"}
    assert links(tmp_path / "links.txt") == urls
    assert {row["path"]: row["url"] for row in json.loads((tmp_path / "r.json").read_text())["files"]} == urls
    with (tmp_path / "r.csv").open(newline="") as lines:
        assert {row["path"]: row["url"] for row in csv.DictReader(lines)} == urls
    for path, url in urls.items():
        assert f"\n  {path} → {url}\n" in done.err
    assert f"\n  to {server.url[7:]}/personal/{dest} ü, session " in done.err
    again = uploader(*command, "--skip-existing", home=tmp_path)
    assert {event["path"]: event["url"] for event in again.of("file.skipped")} == urls
    assert links(tmp_path / "links.txt") == urls


@pytest.mark.thorough
def test_files_of_a_resumed_run_have_their_urls(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Also those that the first run has stored; one that failed has none."""
    make_files(**{"a.mp4": b"a", "b.mp4": b"b"})
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("b*",)) as reference:
        first = uploader("upload", "files", "-s", reference.url, "--links", "links", home=tmp_path)
        assert first.code == 4
        before = links(tmp_path / "links")
        assert urlopen(before["files/a.mp4"]).read() == b"a"
        reference.faults.fail_files.clear()
        assert uploader("resume", "--links", "links", home=tmp_path).code == 0
        after = links(tmp_path / "links")
        assert urlopen(after["files/b.mp4"]).read() == b"b"
    assert (set(before), set(after)) == ({"files/a.mp4"}, {"files/a.mp4", "files/b.mp4"})
    assert after["files/a.mp4"] == before["files/a.mp4"]


def test_url_at_a_tus_server_is_that_of_the_upload(make_files: Files, tmp_path: Path) -> None:
    with Service() as service:
        done = uploader("upload", make_files(a=1), "--tus-endpoint", service.url, "--json", home=tmp_path)
        (upload,) = service.uploads
    (completed,) = done.of("file.completed")
    assert completed["url"].startswith(service.url)
    assert completed["url"].endswith(upload)


def test_skip_existing_asks_the_url_that_a_tus_server_has_given(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Its `Content-Location` is where the file is; its upload may be gone."""
    make_files(**{"a.mp4": b"one"})
    command = ("upload", "files", "--tus-endpoint", f"{server.url}/api/upload/files/", "--dest", dest)
    first = uploader(*command, "--json", home=tmp_path)
    again = uploader(*command, "--skip-existing", "--json", home=tmp_path)
    (completed,), (skipped,) = first.of("file.completed"), again.of("file.skipped")
    assert (skipped["reason"], skipped["url"]) == ("present", completed["url"])


def test_summary_of_many_files_lists_no_urls(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    files = make_files(**{f"{number}.mp4": 1 for number in range(4)})
    assert "/uploads/" not in uploader("upload", files, "-s", server.url, "--dest", dest, home=tmp_path).err


def test_links_are_not_written_over_a_video(make_files: Files, tmp_path: Path) -> None:
    """An option without its value takes the next argument."""
    files = make_files(**{"a.mp4": b"a"})
    done = uploader("upload", "-s", "localhost:9", "--links", files / "a.mp4", files, home=tmp_path)
    assert done.code == 2
    assert "--links: " in done.err
    assert (files / "a.mp4").read_bytes() == b"a"


def test_receipts_of_the_library_have_urls(server: EmbeddedServer, make_files: Files) -> None:
    result = uploader_cli.upload(make_files(**{"a.mp4": b"mine"}), server=server.url, dest="library")
    (receipt,) = result.receipts
    assert receipt.url == f"{server.url}/uploads/personal/library/files/a.mp4"

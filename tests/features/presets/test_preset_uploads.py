"""Uploads with a preset: its rules, in runs that are interrupted or resumed, and beside other options."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from command import uploader
from tus_services import MIB, CloudflareDirectUpload, CloudflareStream, OpenCloud, Service, Supabase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Files = Callable[..., Path]

CLOUDFLARE = ("--preset", "cloudflare-stream")
SUPABASE = ("--preset", "supabase", "--metadata", "bucketName=videos")


@pytest.fixture
def plain() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.mark.thorough
def test_id_of_the_first_answer_survives_an_interrupted_run(make_files: Files, tmp_path: Path) -> None:
    """Only the creation has the header; a resumed run creates nothing."""
    files = make_files(**{"clip.mp4": 17 * MIB})
    with CloudflareStream() as service:
        options = ("--tus-endpoint", service.url, *CLOUDFLARE, "--retries", "0", "--json")
        service.locked = 1
        assert uploader("upload", files, *options, home=tmp_path).code == 3
        done = uploader("resume", "--json", home=tmp_path)
        assert (done.code, len(service.uploads), service.refusals) == (0, 1, [])
    assert done.of("file.completed")[0]["server_id"] == "cab807e0c477d01baq20f66c3d1dfc20"


@pytest.mark.parametrize("size", ["4M", "6000000", "201M"])
def test_chunk_size_against_the_preset_exits_2(size: str, make_files: Files, tmp_path: Path) -> None:
    options = ("--tus-endpoint", "localhost:1", *CLOUDFLARE, "--chunk-size", size)
    done = uploader("upload", make_files(a=1), *options, home=tmp_path)
    assert done.code == 2
    assert "does not fit the rule of the server, 5M-200M/262144" in done.err


def test_supabase_preset_needs_a_bucket_and_replaces_nothing(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"small.png": 3})
    with Supabase() as service:
        refused = uploader("upload", files, "--tus-endpoint", service.url, *SUPABASE[:2], home=tmp_path)
        assert refused.code == 2
        assert "--metadata bucketName=VALUE" in refused.err
        assert uploader("upload", files, "--tus-endpoint", service.url, *SUPABASE, home=tmp_path).code == 0
    assert {headers["x-upsert"] for method, headers in service.requests if method == "POST"} == {"false"}


@pytest.mark.thorough
def test_supabase_locks_are_retried_and_objects_kept(make_files: Files, tmp_path: Path) -> None:
    """409 stands for a lock, and for an object that exists; a header of the user replaces the preset's."""
    files = make_files(**{"clip.mp4": 7 * MIB})
    with Supabase() as service:
        options = ("--tus-endpoint", service.url, *SUPABASE, "--no-resume", "--json")
        service.locked = 2
        done = uploader("upload", files, *options, home=tmp_path)
        assert (done.code, done.of("file.completed")[0]["attempts"]) == (0, 3)
        assert {"another request uses the upload" in retry["message"] for retry in done.of("file.retry")} == {True}
        again = uploader("upload", files, *options, "--retries", "1", home=tmp_path)
        assert again.code == 3
        assert "its file exists already (409" in again.of("file.failed")[0]["message"]
        forced = uploader("upload", files, *options, "--header", "X-Upsert: true", home=tmp_path)
        assert forced.code == 0


def test_preset_of_a_config_file(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Any setting may be in it, below all other sources; headers and metadata are added to those of the user."""
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"""
        [preset.archive]
        tus-endpoint = "{plain.url}"
        chunk-rule = "64K-128K/64K"
        metadata = ["collection=raw", "title={{stem}}"]
        header = ["X-Team: video", "X-Tier: cold"]
        retry-status = [418]
        jobs = 3
    """)
    plain.locked, type(plain).lock_status = 1, 418
    try:
        files = make_files(**{"a.mp4": 300 << 10})
        options = ("--preset", "archive", "--metadata", "title=own", "--header", "x-tier: hot", "--json")
        done = uploader("upload", files, *options, home=tmp_path, UPLOADER_JOBS="2")
    finally:
        type(plain).lock_status = 423
    assert done.code == 0, done.err
    assert (done.events[0]["jobs"], done.events[0]["server"]) == (2, plain.url)
    assert plain.only.metadata == {"collection": "raw", "title": "own"}
    assert plain.only.chunks == [128 << 10, 128 << 10, 44 << 10]
    sent = [(headers["x-team"], headers["x-tier"]) for method, headers in plain.requests if method == "PATCH"]
    assert set(sent) == {("video", "hot")}
    shown = json.loads(uploader("config", "--json", home=tmp_path, UPLOADER_PRESET="archive").out)["settings"]
    assert shown["chunk_rule"]["value"] == "65536-131072/65536"
    assert shown["chunk_rule"]["source"] == "preset"
    unknown = uploader("upload", files, "--preset", "archiv", home=tmp_path)
    assert unknown.code == 2
    assert "use one of: archive, cloudflare-stream, directus, " in unknown.err


@pytest.mark.thorough
@pytest.mark.parametrize("listed", [False, True])
def test_second_file_of_an_equal_place_fails_before_its_first_byte(
    listed: bool, make_files: Files, tmp_path: Path
) -> None:
    """Where a service stores files under their metadata; the message names what tells them apart."""
    files = make_files(**{"a/same.mp4": 10, "b/same.mp4": 20, "c/other.mp4": 30})
    with Supabase() as service:
        options: tuple[str, ...] = (
            "--tus-endpoint",
            service.url,
            *SUPABASE,
            "--metadata",
            "objectName={name}",
            "--json",
        )
        header = ("--header", "x-upsert: true")
        done = uploader("upload", files, *options, *header, home=tmp_path)
        assert (done.code, done.finished["completed"], done.finished["failed"]) == (4, 2, 1), done.err
        (failed,) = done.of("file.failed")
        assert (failed["path"], failed["code"]) == (str(files / "b" / "same.mp4"), "exists")
        assert "has the same objectName on the server, same.mp4; --metadata 'objectName={path}'" in failed["message"]
        assert service.objects["videos", "same.mp4"].content == (files / "a" / "same.mp4").read_bytes()
        assert uploader("resume", "--json", home=tmp_path).code == 2, "resuming does not send it either"
        if listed:
            table = tmp_path / "list.csv"
            rows = [f"{files}/{name}/same.mp4,{name}.mp4" for name in "ab"]
            table.write_text("\n".join(["path,objectName", *rows]))
            asked: tuple[str | Path, ...] = ("--from-file", table)
        else:
            options, asked = (*options[:-3], "--json"), (files,)
        assert uploader("upload", *asked, *options, home=tmp_path).code == 0
    assert not service.refusals


def test_preset_in_a_foreign_directory_exits_2(make_files: Files, tmp_path: Path) -> None:
    """Its config may belong to a stranger."""
    (tmp_path / "uploader.toml").write_text('[preset.theirs]\nchunk-rule = "1M"\n')
    for options in ((), ("--preset", "theirs")):
        done = uploader("upload", make_files(a=1), *options, home=tmp_path)
        assert done.code == 2
        assert "uploader.toml: preset: not allowed in the config of a working directory" in done.err


def test_place_that_a_preset_does_not_send_exits_2(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Without a preset it is sent."""
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[preset.own]\nmetadata = ["name={name}"]\nplace = ["filename"]')
    options = ("--tus-endpoint", plain.url, "--preset", "own")
    done = uploader("upload", make_files(**{"a.mp4": 10}), *options, home=tmp_path)
    assert done.code == 2
    assert "place: no metadata filename is sent" in done.err


def test_dest_with_a_preset_that_sends_names_only_exits_2(plain: Service, make_files: Files, tmp_path: Path) -> None:
    command = ("upload", make_files(**{"a.mp4": 1}), "--tus-endpoint", plain.url, "--dest", "d", "--preset", "tusd")
    refused = uploader(*command, home=tmp_path)
    assert refused.code == 2
    assert "preset tusd sends names without directories" in refused.err
    assert uploader(*command, "--metadata", "filename={path}", home=tmp_path).code == 0
    assert plain.only.metadata["filename"] == "d/files/a.mp4"


def test_cloudflare_direct_upload_resumes_at_the_offset_of_the_server(make_files: Files, tmp_path: Path) -> None:
    """Of an upload that this machine has not begun, the rest is sent, by the rules of the preset."""
    clip = make_files(**{"clip.mp4": 17 * MIB}) / "clip.mp4"
    begun = clip.read_bytes()[: 6 * MIB]
    with CloudflareDirectUpload() as service:
        url = service.existing(17 * MIB, begun)
        done = uploader(
            "upload", clip, "--preset", "cloudflare-stream", "--json", home=tmp_path, UPLOADER_UPLOAD_URL=url
        )
    assert (done.code, service.refusals) == (0, []), done.err
    assert {method for method, _ in service.requests} == {"HEAD", "PATCH"}
    assert (service.only.content, sum(service.only.chunks)) == (clip.read_bytes(), 11 * MIB)
    (started,) = done.of("file.started")
    assert started["offset"] == 6 * MIB


def test_preset_of_a_server_that_ignores_checksums_verifies_no_file(tmp_path: Path) -> None:
    """Also where the user asks for checksums."""
    (tmp_path / "a.bin").write_bytes(os.urandom(10_000))
    with OpenCloud() as service:
        options = ("--preset", "opencloud", "--checksum", "sha1")
        done = uploader("upload", "a.bin", "--tus-endpoint", service.url, "--json", *options, home=tmp_path)
    assert (done.code, done.of("file.completed")[0]["verified"]) == (0, False), done.err

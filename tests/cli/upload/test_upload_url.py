"""`--upload-url` and the column `upload_url`: files for uploads that a service has created already."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from command import uploader
from scripted_server import Answer, Rule, ScriptedServer
from tus_services import MIB, Service, Vimeo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Files = Callable[..., Path]

TOKEN = {"UPLOADER_TOKEN": "secret-token"}


@pytest.fixture(scope="module")
def plain() -> Iterator[Service]:
    with Service() as service:
        yield service


def methods(service: Service) -> set[str]:
    return {method for method, _ in service.requests}


def stored(home: Path) -> str:
    """Return what the journal has of runs, uploads and receipts."""
    with sqlite3.connect(home / "state" / "uploader" / "journal.sqlite3") as db:
        return repr([db.execute(f"SELECT * FROM {table}").fetchall() for table in ("run", "pending", "receipt")])


def test_vimeo_upload_link_gets_head_and_patch_without_credentials(make_files: Files, tmp_path: Path) -> None:
    """The token is for the API, which is on another host; nothing that is printed or kept has the whole URL."""
    clip = make_files(**{"clip.mp4": 3 * MIB}) / "clip.mp4"
    log, report = tmp_path / "log", tmp_path / "report.json"
    with Vimeo() as service:
        url = service.existing(3 * MIB)
        options = ("--header", "X-Team: video", "--chunk-size", "1M", "--log-file", log, "--report", report, "--json")
        done = uploader("upload", clip, "--upload-url", url, *options, home=tmp_path, **TOKEN)
    assert (done.code, service.refusals) == (0, []), done.err
    assert methods(service) == {"HEAD", "PATCH"}
    assert service.only.content == clip.read_bytes()
    assert service.only.chunks == [MIB] * 3
    assert not any({"authorization", "x-team", "x-request-id"} & headers.keys() for _, headers in service.requests)
    assert done.of("warning")[0]["code"] == "token_withheld"
    assert done.events[0]["server"] == service.url.removesuffix("files/")
    assert done.of("file.completed")[0]["location"] is None
    printed = done.out + done.err + log.read_text() + report.read_text() + stored(tmp_path)
    assert "files/u0" not in printed
    assert f"{done.events[0]['server']}***" in log.read_text(), "requests are logged without the path"


def test_interrupted_upload_url_is_resumed_and_then_forgotten(make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": 2 * MIB}) / "clip.mp4"
    with Vimeo() as service:
        url, service.locked = service.existing(2 * MIB), 9
        failed = uploader("upload", clip, "--upload-url", url, "--retries", "0", home=tmp_path)
        assert failed.code == 3
        assert url in stored(tmp_path)
        listed = uploader("runs", "--json", home=tmp_path)
        assert url not in listed.out
        assert json.loads(listed.out)[0]["arguments"]["options"]["upload_url"].endswith("/***")
        service.locked = 0
        done = uploader("resume", home=tmp_path)
        assert (done.code, service.refusals) == (0, []), done.err
    assert service.only.content == clip.read_bytes()
    assert url not in stored(tmp_path)


def test_upload_url_of_another_length_exits_4(plain: Service, make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": 10}) / "clip.mp4"
    url = plain.existing(11)
    done = uploader("upload", clip, "--upload-url", url, home=tmp_path)
    assert done.code == 4
    assert "its upload was created for 11 bytes, and it has 10: nothing was sent" in done.err
    assert not plain.uploads[url.rpartition("/")[2]].content


def test_upload_url_without_length_gets_it(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """An upload may have been created with a deferred length (tus 1.0, creation-defer-length)."""
    clip = make_files(**{"clip.mp4": 3 * MIB}) / "clip.mp4"
    url = plain.existing(None)
    assert uploader("upload", clip, "--upload-url", url, "--chunk-size", "1M", home=tmp_path).code == 0
    upload = plain.uploads[url.rpartition("/")[2]]
    assert (upload.length, upload.content, plain.refusals) == (3 * MIB, clip.read_bytes(), [])


def test_upload_url_without_upload_exits_4_and_creates_none(plain: Service, make_files: Files, tmp_path: Path) -> None:
    clip, before = make_files(**{"clip.mp4": 10}) / "clip.mp4", len(plain.uploads)
    done = uploader("upload", clip, "--upload-url", f"{plain.url}gone?sig=abc", home=tmp_path)
    assert (done.code, len(plain.uploads)) == (4, before)
    assert "its upload can't be used" in done.err
    assert "ask the service for a new upload URL" in done.err
    assert "sig=abc" not in done.err


@pytest.mark.parametrize("status", [403, 404, 410])
def test_upload_url_that_a_proxy_does_not_know_exits_4_at_once(status: int, make_files: Files, tmp_path: Path) -> None:
    """Nothing was sent to it, so there is nothing to resume, and the URL is probably wrong."""
    clip = make_files(**{"clip.mp4": 10}) / "clip.mp4"
    page = Answer(status, b"<h1>Sorry</h1>", {"Content-Type": "text/html"})
    with ScriptedServer(Rule(page)) as server:
        done = uploader("upload", clip, "--upload-url", f"{server.url}/files/abc", "--json", home=tmp_path)
    assert (done.code, done.of("file.retry")) == (4, []), done.err
    assert "ask the service for a new upload URL" in done.err
    assert "uploader resume" not in done.err
    assert {request.method for request in server.requests} == {"HEAD"}


def test_upload_url_with_bytes_outlasts_a_404_of_a_proxy(make_files: Files, tmp_path: Path) -> None:
    """Its bytes are there once the server is back, in this run or in the next one."""
    clip = make_files(**{"clip.mp4": 10}) / "clip.mp4"
    signed = {"Tus-Resumable": "1.0.0"}
    here = Answer(200, headers=signed | {"Upload-Offset": 0, "Upload-Length": 10})
    gone = Rule(Answer(404, b"<h1>Sorry</h1>", {"Content-Type": "text/html"}), "HEAD *", times=0)
    patched = Rule(lambda _request: setattr(gone, "times", 2), "PATCH *", times=1)  # and the connection is closed
    stored = Rule(Answer(204, headers=signed | {"Upload-Offset": 10}), "PATCH *")
    with ScriptedServer(gone, patched, Rule(here, "HEAD *"), stored) as server:
        done = uploader("upload", clip, "--upload-url", f"{server.url}/files/abc", "--json", home=tmp_path)
    assert (done.code, gone.times) == (0, 0), done.err


@pytest.mark.parametrize("again", [(), ("--no-resume",)])
def test_changed_file_is_not_sent_to_its_upload_url(again: tuple[str, ...], make_files: Files, tmp_path: Path) -> None:
    """An upload never gets bytes of two files, and is not deleted, also without resuming."""
    clip = make_files(**{"clip.mp4": 2 * MIB}) / "clip.mp4"
    with Vimeo() as service:
        url = service.existing(2 * MIB)
        options = ("--upload-url", url, "--retries", "0", *again)
        service.locked = 9
        assert uploader("upload", clip, *options, home=tmp_path).code == 3
        service.locked = 0
        os.utime(clip, (1, 1))
        done = uploader("upload", clip, *options, home=tmp_path)
        assert done.code == (0 if again else 4)
        assert again or "has changed since an earlier upload of it to the same URL" in done.err
        assert methods(service) <= {"HEAD", "PATCH"}


@pytest.mark.parametrize(
    ("options", "token", "sent"),
    [
        ((), True, set()),
        ((), False, {"x-api-key"}),
        (("--tus-endpoint", "{origin}/other/"), True, {"authorization", "x-api-key"}),
        (("--server", "{origin}"), True, {"authorization", "x-api-key"}),
        (("--tus-endpoint", "https://api.example/"), True, set()),
        (("--server", "api.example"), False, set()),
    ],
)
def test_credentials_go_to_the_named_origin_only(
    options: tuple[str, ...], token: bool, sent: set[str], plain: Service, make_files: Files, tmp_path: Path
) -> None:
    clip = make_files(**{"clip.mp4": 10}) / "clip.mp4"
    origin = plain.url.removesuffix("/files/")
    plain.requests.clear()
    given = [option.format(origin=origin) for option in options]
    url = plain.existing(10)
    env = TOKEN if token else {}
    done = uploader("upload", clip, "--upload-url", url, "-q", "--header", "X-Api-Key: k", *given, home=tmp_path, **env)
    assert done.code == 0, done.err
    assert methods(plain) == {"HEAD", "PATCH"}
    for _, headers in plain.requests:
        assert {"authorization", "x-api-key"} & headers.keys() == sent


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_column_upload_url_of_a_list(suffix: str, plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Lines without a URL are created at the endpoint; `--failed-to` keeps the URL, a report conceals it."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 20, "c.mp4": 30})
    first, third = plain.existing(10), plain.existing(31)
    rows = [(files / "a.mp4", first), (files / "b.mp4", None), (files / "c.mp4", third)]
    listed = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        listed.write_text("path,upload_url\n" + "".join(f"{path},{url or ''}\n" for path, url in rows))
    else:
        listed.write_text("".join(json.dumps({"path": str(path), "upload_url": url}) + "\n" for path, url in rows))
    options = ("--failed-to", tmp_path / f"failed.{suffix}", "--report", tmp_path / "report.json", "--json")
    done = uploader("upload", "--from-file", listed, "--tus-endpoint", plain.url, *options, home=tmp_path)
    assert (done.code, done.finished["completed"], done.finished["failed"]) == (4, 2, 1), done.err
    assert plain.uploads[first.rpartition("/")[2]].content == (files / "a.mp4").read_bytes()
    assert third in (tmp_path / f"failed.{suffix}").read_text()
    printed = (tmp_path / "report.json").read_text() + done.out + done.err
    assert not any(f'{url}"' in printed or f"{url} " in printed for url in (first, third))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{files}", "--upload-url", "http://h/secret"), "is the upload of one file"),
        (("{files}/a.mp4", "{files}/b.mp4", "--upload-url", "http://h/secret"), "is the upload of one file"),
        (("{files}/a.mp4", "--upload-url", "ftp://h/secret"), "is not the URL of an upload"),
        (("{files}/a.mp4", "--upload-url", "http://h/secret", "-c", "scenic"), "a tus server has no categories"),
        (("{files}/a.mp4", "--upload-url", "http://h/secret", "--metadata", "a=b"), "created with its metadata"),
        (("--upload-url", "http://h/secret", "--from-file", "{list}"), "a list has a column upload_url"),
        (("-s", "localhost:1", "--from-file", "{list}"), "upload_url needs a tus server"),
        (("--tus-endpoint", "localhost:1", "--from-file", "{bad}"), "upload_url is not an http or https URL"),
    ],
)
def test_unusable_upload_urls_exit_2_and_stay_secret(
    arguments: tuple[str, ...], said: str, make_files: Files, tmp_path: Path
) -> None:
    files, listed, bad = make_files(**{"a.mp4": 1, "b.mp4": 1}), tmp_path / "list.csv", tmp_path / "bad.csv"
    listed.write_text(f"path,upload_url\n{files}/a.mp4,http://h/secret\n")
    bad.write_text(f"path,upload_url\n{files}/a.mp4,/secret\n")
    given = [argument.format(files=files, list=listed, bad=bad) for argument in arguments]
    done = uploader("upload", *given, home=tmp_path)
    assert done.code == 2, done.err
    assert said in done.err
    assert "secret" not in done.err

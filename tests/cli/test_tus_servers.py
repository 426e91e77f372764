"""Uploads to tus servers in the wild: metadata, presets for services, and uploads that exist already."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from command import uploader
from tus_services import Service, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Files = Callable[..., Path]

MAY_1 = 1_777_636_800  # 2026-05-01 12:00 UTC


@pytest.fixture
def plain() -> Iterator[Service]:
    with running(Service()) as service:
        yield service


def test_metadata_fields_describe_each_file(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Every field, text around it, a key without a value, and braces that are no field."""
    files = make_files(**{"deep/a.b.mp4": b"bytes"})
    os.utime(files / "deep" / "a.b.mp4", (MAY_1, MAY_1))
    given = {
        "path": "{path}",
        "title": "{stem} – {date}",
        "filename": "{name}",
        "ext": "{ext}",
        "kind": "{type}",
        "size": "{size}",
        "digest": "{sha256}",
        "requiresignedurls": "",
        "meta": '{"a": {"b": 1}}',
    }
    options = [f"--metadata={key}={template}" for key, template in given.items()]
    done = uploader("upload", files, "--tus-endpoint", plain.url, *options, home=tmp_path)
    assert done.code == 0, done.err
    sent = plain.only.metadata
    assert {key: sent[key] for key in given} == {
        "path": "files/deep/a.b.mp4",
        "title": "a.b – 2026-05-01",
        "filename": "a.b.mp4",
        "ext": "mp4",
        "kind": "video/mp4",
        "size": "5",
        "digest": hashlib.sha256(b"bytes").hexdigest(),
        "requiresignedurls": "",
        "meta": '{"a": {"b": 1}}',
    }
    assert sent["relativePath"] == "files/deep/a.b.mp4", "the usual metadata remains"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_column_of_a_list_overrides_metadata(suffix: str, plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Its value is taken literally; a line without one gets the template. A file can have several destinations."""
    files = make_files(**{"a.mp4": 1, "b.mp4": 1})
    rows = [(files / "a.mp4", "{name}"), (files / "a.mp4", "two"), (files / "b.mp4", None)]
    listed = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        lines = ["path,title", *(f"{path},{title or ''}" for path, title in rows)]
    else:
        lines = [json.dumps({"path": str(path)} | ({"title": title} if title else {})) for path, title in rows]
    listed.write_text("\n".join(lines))
    done = uploader(
        "upload", "--from-file", listed, "--tus-endpoint", plain.url, "--metadata", "title={stem}", home=tmp_path
    )
    assert done.code == 0, done.err
    assert sorted(upload.metadata["title"] for upload in plain.uploads.values()) == ["b", "two", "{name}"]


def test_failed_to_list_keeps_metadata_of_each_line(plain: Service, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 1})
    (tmp_path / "list.csv").write_text(f"path,title\n{files / 'a.mp4'},first\n")
    for suffix in ("csv", "jsonl"):
        again = tmp_path / f"again.{suffix}"
        plain.locked = 1
        options = ("--tus-endpoint", plain.url, "--metadata", "title=other", "--retries", "0")
        failed = uploader(
            "upload", "--from-file", tmp_path / "list.csv", *options, "--no-resume", "--failed-to", again, home=tmp_path
        )
        assert failed.code == 3
        plain.uploads.clear()
        assert uploader("upload", "--from-file", again, *options, "--no-resume", home=tmp_path).code == 0
        assert plain.only.metadata["title"] == "first"


def test_metadata_without_value_needs_a_column(plain: Service, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 1, "b.mp4": 1})
    options = ("--tus-endpoint", plain.url, "--metadata", "bucket")
    done = uploader("upload", files, *options, home=tmp_path)
    assert done.code == 2
    assert "--metadata bucket=VALUE" in done.err
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,bucket\n{files / 'a.mp4'},x\n{files / 'b.mp4'},\n")
    done = uploader("upload", "--from-file", listed, *options, home=tmp_path)
    assert done.code == 2
    assert "line 3: no value for bucket" in done.err
    assert not plain.uploads
    listed.write_text(f"path,bucket\n{files / 'a.mp4'},x\n{files / 'b.mp4'},y\n")
    assert uploader("upload", "--from-file", listed, *options, home=tmp_path).code == 0
    assert sorted(upload.metadata["bucket"] for upload in plain.uploads.values()) == ["x", "y"]
    done = uploader("upload", "--from-file", listed, *options[:2], "--metadata", "name", home=tmp_path)
    assert done.code == 2
    assert "the column name of a list means something else" in done.err


def test_other_metadata_is_another_destination(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """What an interrupted run has sent into one bucket is not in another one."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    options = ("--tus-endpoint", plain.url, "-j", "1", "--retries", "0", "--json")
    plain.locked = 1
    assert uploader("upload", files, *options, "--metadata", "bucket=one", home=tmp_path).code == 3
    other = uploader("upload", files, *options, "--metadata", "bucket=two", home=tmp_path)
    assert (other.code, other.finished["completed"]) == (0, 2)
    assert [upload.metadata["bucket"] for upload in plain.uploads.values()].count("two") == 2
    same = uploader("upload", files, *options, "--metadata", "bucket=one", home=tmp_path)
    assert (same.code, same.events[0]["resumed_from"] is not None, same.finished["completed"]) == (0, True, 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("title={nmae}", "there is no field {nmae}"),
        ("=x", "must be written KEY=TEMPLATE"),
        ("a b=x", "must be written KEY=TEMPLATE"),
        ("ü=x", "must be written KEY=TEMPLATE"),
    ],
)
def test_invalid_metadata_exits_2(value: str, said: str, make_files: Files, tmp_path: Path) -> None:
    done = uploader("upload", make_files(a=1), "--tus-endpoint", "localhost:1", "--metadata", value, home=tmp_path)
    assert done.code == 2
    assert said in done.err


def test_tus_options_without_endpoint_exit_2(make_files: Files, tmp_path: Path) -> None:
    """On the command line; those of the environment or a config file wait for a tus endpoint."""
    files = make_files(**{"a.mp4": 1})
    done = uploader("upload", files, "-s", "localhost:1", "--metadata", "a=b", home=tmp_path)
    assert done.code == 2
    assert "--metadata needs a tus server" in done.err
    ignored = uploader("upload", files, "-s", "localhost:1", "--dry-run", home=tmp_path, UPLOADER_METADATA="a=b")
    assert ignored.code == 0

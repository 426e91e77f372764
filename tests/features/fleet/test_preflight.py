"""The check of a worker before its first task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import local_file
from scripted_server import Answer, Rule, ScriptedServer

from uploader_cli import __version__
from uploader_cli.errors import Unauthorized
from uploader_cli.features.fleet.tasks import fields_of
from uploader_cli.features.fleet.worker import preflight


@pytest.mark.parametrize(("protocol", "header"), [("tus", "tus-resumable"), ("ietf", "upload-draft-interop-version")])
def test_endpoint_is_asked_in_the_protocol_of_the_run(protocol: str, header: str) -> None:
    with ScriptedServer(Rule(lambda _request: Answer(404))) as server:
        found = preflight(__version__, {"tus_endpoint": f"{server.url}/files", "protocol": protocol}, ())
        assert found.error is None
        (request,) = server.requests
    assert {"tus-resumable", "upload-draft-interop-version"} & {name.lower() for name in request.headers} == {header}


@pytest.mark.parametrize(
    ("version", "file", "change", "words"),
    [
        (__version__, "a.bin", {}, None),
        ("0.0.0", "a.bin", {}, f"it runs uploader {__version__}, and this machine 0.0.0"),
        (__version__, "b.bin", {}, "it can't read {path}: No such file or directory"),
        (__version__, "a.bin", {"size": 2}, "it has another file at {path}"),
        (__version__, "a.bin", {"mtime_ns": 2}, "it has another file at {path}"),
    ],
)
def test_worker_needs_the_version_and_the_files_of_the_driver(
    version: str, file: str, change: dict[str, int], words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    sample = replace(local_file(str(tmp_path / file), size=1), mtime_ns=(tmp_path / "a.bin").stat().st_mtime_ns)
    with ScriptedServer(Rule(Answer(404))) as server:
        options = {"tus_endpoint": f"{server.url}/files"}
        found = preflight(version, options, fields_of(replace(sample, **change), sample.path))
    assert str(found.error) == (words.format(path=sample.path) if words else "None")
    assert [(call.method, call.status) for call in found.calls] == ([] if words else [("HEAD", 404)])


def test_worker_without_the_token_takes_no_part() -> None:
    with ScriptedServer(Rule(Answer(401))) as server:
        found = preflight(__version__, {"server": server.url}, ())
    assert isinstance(found.error, Unauthorized)

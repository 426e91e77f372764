"""The check of a worker before its first task."""

from __future__ import annotations

import pytest
from scripted_server import Answer, Rule, ScriptedServer

from uploader_cli import __version__
from uploader_cli.fleet.worker import preflight


@pytest.mark.parametrize(("protocol", "header"), [("tus", "tus-resumable"), ("ietf", "upload-draft-interop-version")])
def test_endpoint_is_asked_in_the_protocol_of_the_run(protocol: str, header: str) -> None:
    with ScriptedServer(Rule(lambda _request: Answer(404))) as server:
        found = preflight(__version__, {"tus_endpoint": f"{server.url}/files", "protocol": protocol}, ())
        assert found.error is None
        (request,) = server.requests
    assert {"tus-resumable", "upload-draft-interop-version"} & {name.lower() for name in request.headers} == {header}

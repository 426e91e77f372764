"""Every call has an id, which the server logs; other hosts get none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import running_server

from uploader_cli import errors
from uploader_cli.core.events import CallMade
from uploader_cli.settings import Header, Settings
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.bodies import Body, Piece
from uploader_cli.transfer.http_client import HttpClient, RequestIds
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from uploader_server.serving import EmbeddedServer


def logged(server: EmbeddedServer) -> list[str]:
    """The ids of the requests that the server saw, in the order of their answers."""
    return [request.request_id for request in server.faults.requests]


def test_each_call_has_the_next_id_of_its_run(server: EmbeddedServer) -> None:
    told: list[Any] = []
    api = Api(Settings(server=server.url), told.append, Stop(), run="cafe")
    beside = api.another()
    api.health()
    beside.create_session("personal", 1)
    api.health()
    assert logged(server) == ["cafe-000001", "cafe-000002", "cafe-000003"]
    assert [(call.method, call.request_id, call.status) for call in told if isinstance(call, CallMade)] == [
        ("GET", "cafe-000001", 200),
        ("POST", "cafe-000002", 201),
        ("GET", "cafe-000003", 200),
    ]
    api.close()
    beside.close()


def test_repeated_call_has_a_new_id(server: EmbeddedServer) -> None:
    server.faults.next_answers("GET", "/api/upload/progress/*", [429])
    api = Api(Settings(server=server.url), lambda _event: None, Stop(), run="cafe")
    api.budget.pause = lambda seconds: None  # type: ignore[method-assign]
    assert api.progress("3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b", patient=True) is None
    assert logged(server) == ["cafe-000001", "cafe-000002"]
    api.close()


def test_server_fault_names_the_id_of_the_call(server: EmbeddedServer) -> None:
    server.faults.next_answers("GET", "/api/upload/progress/*", [500])
    api = Api(Settings(server=server.url), lambda _event: None, Stop(), run="cafe")
    with pytest.raises(errors.ServerFault, match="500, request cafe-000001"):
        api.progress("3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b")
    api.close()


def test_request_to_another_host_has_no_request_id(server: EmbeddedServer) -> None:
    """Not even the id that `--header` gives to all calls."""
    told: list[CallMade] = []
    with running_server() as other:
        http = HttpClient(Settings(server=server.url), RequestIds("cafe", told.append))
        assert http.request("GET", f"{other.url}/health").request_id == ""
        http.close()
        own = HttpClient(Settings(server=server.url, header=(Header("X-Request-ID", "mine"),)))
        own.request("GET", f"{other.url}/health")
        own.request("GET", f"{server.url}/health")
        own.close()
        assert logged(other) == ["", ""]
    assert logged(server) == ["mine"]
    assert [(call.request_id, call.status) for call in told] == [(None, 200)]


def test_call_without_an_answer_is_reported_with_its_reason(server: EmbeddedServer) -> None:
    told: list[CallMade] = []
    server.stop()
    http = HttpClient(Settings(server=server.url), RequestIds("cafe", told.append))
    with pytest.raises(errors.ConnectFailed):
        http.request("GET", f"{server.url}/health?secret=1")
    http.close()
    (call,) = told
    assert (call.url, call.request_id, call.status) == (f"{server.url}/health", "cafe-000001", None)
    assert "refused" in (call.error or "")


def test_call_is_reported_with_whether_it_carried_a_file(server: EmbeddedServer) -> None:
    """The time of such a call is no answer time."""
    told: list[CallMade] = []
    http = HttpClient(Settings(server=server.url), RequestIds("cafe", told.append))
    http.request("GET", f"{server.url}/health")
    http.request("POST", f"{server.url}/api/upload/session", json={"category": "personal", "expectedFiles": 1})
    body = Body("text/plain", [Piece(5, memoryview(b"bytes"))], checkpoint=lambda: None)
    http.request("POST", f"{server.url}/api/upload/batch", body=body)
    assert [call.carries for call in told] == [False, False, True]
    http.close()

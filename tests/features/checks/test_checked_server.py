"""`CheckedServer`: what sends its requests, and what ends them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted_server import Answer, Peer, Rule, ScriptedServer
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.features.checks.target import CheckedServer
from uploader_cli.settings import Settings


@pytest.mark.parametrize(("early", "status"), [(False, 103), (True, 200)], ids=["requests", "ours"])
def test_interim_answer_is_one_to_our_client_only(early: bool, status: int) -> None:
    """Most clients take it for the final answer, as `requests` does: a server with them is judged so."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        peer.answer(200, {})

    with ScriptedServer(script) as server:
        target = CheckedServer(Settings(server=server.url))
        assert target.send("GET", server.url, limit=PATIENCE, early=early).status == status
        target.close()


@pytest.mark.feature("smoke")
@pytest.mark.parametrize("size", [2, 100_001])
def test_body_is_sent_whole_with_its_length_and_a_pause_midway(size: int) -> None:
    from uploader_cli.features.smoke.sending import body_of

    data, steps = bytes(range(256)) * (size // 256) + bytes(size % 256), list[str]()
    with ScriptedServer(Rule(Answer(204))) as server:
        target = CheckedServer(Settings(server=server.url))
        body = body_of(data, "a/b", lambda: steps.append(f"midway {body.sent}"), lambda: steps.append("after"))
        target.send("PATCH", f"{server.url}/x", body=body, limit=PATIENCE)
        target.close()
    (request,) = server.requests
    assert request.body == data
    assert request.headers["content-length"] == str(size)
    assert "transfer-encoding" not in request.headers
    assert steps == [f"midway {(size + 1) // 2}", "after"]


def test_shut_ends_a_request_that_waits() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        asked.set()
        peer.hold()

    with ScriptedServer(script) as server, ThreadPoolExecutor(1) as other:
        target = CheckedServer(Settings(server=server.url))
        waiting = other.submit(target.send, "GET", server.url, limit=10 * PATIENCE)
        assert asked.wait(PATIENCE)
        target.shut()
        with pytest.raises(errors.ConnectionLost):
            waiting.result(PATIENCE)
        target.close()

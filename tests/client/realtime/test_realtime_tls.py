"""The websocket over TLS: it dials its own socket, so that even a handshake can be ended from outside."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
import trustme
from client.realtime.realtime_bench import SCALED, Bench, ServerProcess, wait_until
from time_limits import SLACK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    certificate = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    process = ServerProcess(str(certificate))
    yield process
    process.stop()


def close(bench: Bench) -> None:
    began = time.monotonic()
    bench.channel.close()
    wait_until(lambda: not bench.left_running(), SLACK * 1.0 - (time.monotonic() - began), bench.left_running)


def test_channel_uses_the_ca_bundle(server: ServerProcess, authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    bench = Bench(server.url, verify=str(path)).start()
    bench.reach("live")
    assert bench.story() == ["connecting start", "live websocket connected"]
    close(bench)


def test_channel_with_insecure_accepts_any_certificate(server: ServerProcess) -> None:
    bench = Bench(server.url, verify=False).start()
    bench.reach("live")
    assert bench.story() == ["connecting start", "live websocket connected"]
    close(bench)


def test_channel_refuses_an_untrusted_certificate(server: ServerProcess) -> None:
    """Neither transport connects to a server with an untrusted certificate."""
    server(seen=True)
    bench = Bench(server.url).start()
    bench.reach("polling")
    assert bench.story()[1] == "reconnecting refused 1"
    close(bench)
    assert not [item for item in server(seen=True) if "dial" in item]


@pytest.mark.thorough
def test_close_ends_a_handshake_without_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench = Bench(f"https://127.0.0.1:{silent.getsockname()[1]}", SCALED).start()
        _held = silent.accept()
        time.sleep(0.1)
        close(bench)
    assert bench.story() == ["connecting start", "closed finished"]

"""`uploader` behind real proxies with the settings that people have."""

from __future__ import annotations

import hashlib
import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests
import trustme
from command import uploader
from interop.proxies import FORWARD, haproxy, nginx, nginx_http, stock_nginx, tinyproxy
from serving import running_server

if TYPE_CHECKING:
    from pathlib import Path

    from command import Done
    from interop.foreign import Node

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.debian]

KIB, MIB = 1 << 10, 1 << 20
PATCH_BLOCKED = "if ($request_method = PATCH) { return 403; }"


def make(directory: Path, **sizes: int) -> list[Path]:
    """Make files of random bytes, the same in each run."""
    paths = []
    for name, size in sizes.items():
        path = directory / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        paths.append(path)
    return paths


def digests(paths: list[Path]) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


def stored(server: EmbeddedServer) -> list[str]:
    files = [path for path in server.root.rglob("*") if path.is_file() and ".uploader" not in path.parts]
    return digests(files)


def completed(done: Done) -> int:
    assert done.code == 0, done.out + done.err
    return len(done.of("file.completed"))


# --- nginx with its default client_max_body_size of 1 MB


@pytest.mark.parametrize("chunk", ["auto", "8M"])
def test_tus_upload_through_stock_nginx_uses_smaller_chunks(server: EmbeddedServer, tmp_path: Path, chunk: str) -> None:
    paths = make(tmp_path / "files", a=3 * MIB, b=2 * MIB + 1)
    with stock_nginx(tmp_path, server.url) as url:
        line = ["upload", *paths, "-s", url, "--protocol", "tus", "--chunk-size", chunk, "--json"]
        assert completed(uploader(*line, home=tmp_path)) == 2
    assert stored(server) == digests(paths)


def test_the_chunk_size_that_nginx_allows_is_remembered(server: EmbeddedServer, tmp_path: Path) -> None:
    first, second = make(tmp_path / "files", a=3 * MIB, b=3 * MIB)
    with stock_nginx(tmp_path, server.url) as url:
        for path in (first, second):
            assert completed(uploader("upload", path, "-s", url, "--json", home=tmp_path)) == 1
        log = (tmp_path / "nginx.log").read_text()
    refused = [line for line in log.splitlines() if "client intended to send too large body" in line]
    assert refused
    assert len(refused) <= 4, "only the first upload tries sizes"
    assert stored(server) == digests([first, second])


def test_packs_through_stock_nginx_are_split(tmp_path: Path) -> None:
    paths = make(tmp_path / "files", **{f"f{number}": 20 * KIB for number in range(200)})
    with running_server(packs=True) as server, stock_nginx(tmp_path, server.url) as url:
        assert completed(uploader("upload", tmp_path / "files", "-s", url, "--json", home=tmp_path)) == 200
        assert stored(server) == digests(paths)


def test_batch_through_stock_nginx_is_split_and_refuses_the_large_file(server: EmbeddedServer, tmp_path: Path) -> None:
    """The error names the proxy's directive: the 413 is not the upload server's."""
    small = make(tmp_path / "files", a=400_000, b=400_000, c=400_000, d=400_000)
    large = make(tmp_path / "files", large=3 * MIB)
    with stock_nginx(tmp_path, server.url) as url:
        line = ["upload", *small, *large, "-s", url, "--protocol", "batch", "--json"]
        done = uploader(*line, home=tmp_path)
    assert done.code == 4, done.out + done.err
    assert len(done.of("file.completed")) == 4
    (failed,) = done.of("file.failed")
    assert failed["code"] == "refused_size"
    assert "client_max_body_size" in failed["message"]
    assert stored(server) == digests(small)


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_doctor_finds_the_body_limit_of_nginx(tmp_path: Path, flavour: str) -> None:
    """And none of the server without nginx."""
    with running_server(flavour=flavour) as server, stock_nginx(tmp_path, server.url) as url:
        limited, free = (uploader("doctor", "-s", where, home=tmp_path) for where in (url, server.url))
        assert (limited.code, free.code) == (0, 0), limited.err + free.err
        smoke = uploader("smoke", "-s", url, "--only", "body-limit", home=tmp_path)
    assert "refuses requests of 2.0 MiB (413), 1.0 MiB pass" in " ".join(limited.err.split())
    assert smoke.code == 4
    assert "client_max_body_size" in smoke.err
    assert "client_max_body_size" in limited.err
    assert "requests of 8.0 MiB pass" in free.err
    assert stored(server) == []


def test_doctor_names_an_nginx_that_collects_requests(tmp_path: Path) -> None:
    """The answer of the server to the head of a request does not pass then."""
    with running_server() as server:
        how = "client_max_body_size 0; proxy_request_buffering on;"
        with nginx(tmp_path, f"location / {{ {how} proxy_pass {server.url}; {FORWARD} }}") as url:
            done = uploader("doctor", "-s", url, home=tmp_path)
    assert done.code == 0
    assert "a proxy collects them" in " ".join(done.err.split())


# --- a base path that the proxy removes


@pytest.mark.parametrize("protocol", ["auto", "tus", "batch"])
def test_upload_below_a_path_that_the_proxy_removes(tmp_path: Path, protocol: str) -> None:
    paths = make(tmp_path / "files", a=3 * MIB, b=1000, c=20 * MIB)
    limits = "client_max_body_size 0;"
    with running_server(packs=True) as server:
        location = f"{limits} location /files/ {{ proxy_pass {server.url}/; {FORWARD} }}"
        with nginx(tmp_path, location) as url:
            line = ["upload", *paths, "-s", f"{url}/files", "--protocol", protocol, "--verify", "--json"]
            done = uploader(*line, home=tmp_path)
            assert completed(done) == 3
            assert all(event["verified"] for event in done.of("file.completed"))
            again = uploader(*line, "--skip-existing", home=tmp_path)
            assert again.code == 0, again.out + again.err
            assert len(again.of("file.skipped")) == 3
            examined = uploader("doctor", "-s", f"{url}/files", home=tmp_path)
            assert examined.code == 0, examined.err
            assert f"{url}/files/api/upload/files/ offers" in " ".join(examined.err.split())
        assert stored(server) == digests(paths)


def test_server_behind_a_prefix_gives_locations_with_it(tmp_path: Path) -> None:
    with running_server(behind_proxy=("127.0.0.1",)) as server:
        forward = f"proxy_pass {server.url}/; {FORWARD} proxy_set_header X-Forwarded-Prefix /files;"
        with nginx(tmp_path, f"location /files/ {{ {forward} }}") as url:
            headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "3", "Upload-Metadata": "filename YS5tcDQ="}
            answer = requests.post(f"{url}/files/api/upload/files/", headers=headers, timeout=30)
            assert answer.status_code == 201
            location = answer.headers["Location"]
            assert location.startswith("/files/api/upload/files/")
            assert requests.head(url + location, headers={"Tus-Resumable": "1.0.0"}, timeout=30).status_code == 200
            health = requests.get(f"{url}/files/health", timeout=30).json()
            assert health["tus"]["endpoint"].startswith("/files/")


# --- a firewall that blocks PATCH


@pytest.mark.parametrize("protocol", ["auto", "tus"])
def test_blocked_patch_is_sent_as_post(server: EmbeddedServer, tmp_path: Path, protocol: str) -> None:
    paths = make(tmp_path / "files", a=20 * MIB, b=9 * MIB)
    with stock_nginx(tmp_path, server.url, f"client_max_body_size 0; {PATCH_BLOCKED}") as url:
        line = ["upload", *paths, "-s", url, "--protocol", protocol, "--chunk-size", "4M", "--json"]
        assert completed(uploader(*line, home=tmp_path)) == 2
    assert stored(server) == digests(paths)


def test_blocked_patch_and_post_are_replaced_by_a_batch(server: EmbeddedServer, tmp_path: Path) -> None:
    """A firewall that passes on no request to the URL of an upload, in `auto`."""
    paths = make(tmp_path / "files", a=20 * MIB, b=9 * MIB, c=1000)
    blocked = "if ($request_method = PATCH) { return 403; } if ($http_x_http_method_override) { return 403; }"
    with stock_nginx(tmp_path, server.url, f"client_max_body_size 0; {blocked}") as url:
        line = ["upload", *paths, "-s", url, "--chunk-size", "4M", "--json"]
        done = uploader(*line, home=tmp_path)
        assert completed(done) == 3
        assert [event["code"] for event in done.of("warning")] == ["patch_blocked"]
        failed = uploader(*line, "--protocol", "tus", home=tmp_path)
    assert stored(server) == digests(paths)
    assert failed.code == 4
    assert "blocks PATCH" in failed.of("file.failed")[0]["message"]


# --- a proxy that gives up while the server processes a batch


def test_batch_answer_that_the_proxy_did_not_wait_for_is_looked_up(tmp_path: Path) -> None:
    paths = make(tmp_path / "files", a=1000, b=2000)
    with running_server(processing_seconds=2.0) as server:
        location = f"location / {{ proxy_pass {server.url}; {FORWARD} proxy_read_timeout 1s; }}"
        with nginx(tmp_path, location) as url:
            done = uploader("upload", *paths, "-s", url, "--protocol", "batch", "--json", home=tmp_path)
        assert completed(done) == 2
        assert stored(server) == digests(paths), "each file once"


# --- haproxy in front, tinyproxy on the way


HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{port}
  default_backend uploader
backend uploader
  server one %s
"""


def test_upload_and_events_through_haproxy(server: EmbeddedServer, tmp_path: Path) -> None:
    paths = make(tmp_path / "files", a=3 * MIB, b=1000)
    with haproxy(tmp_path, HAPROXY % server.url.removeprefix("http://")) as url:
        done = uploader("upload", *paths, "-s", url, "--limit-rate", "1M", "--json", home=tmp_path)
    assert completed(done) == 2
    assert "websocket" in {event.get("transport") for event in done.events}
    assert stored(server) == digests(paths)


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_plain_http_to_the_tls_port_of_a_proxy_says_to_use_https(
    server: EmbeddedServer, tmp_path: Path, proxy: str
) -> None:
    """nginx answers 400 there, haproxy closes the connection."""
    (path,) = make(tmp_path / "files", a=1000)
    pem = tmp_path / "127.0.0.1.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with ExitStack() as stack:
        if proxy == "nginx":
            tls = f"listen 127.0.0.1:{{port}} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
            url = stack.enter_context(nginx_http(tmp_path, f"server {{ {tls} location / {{ return 204; }} }}"))
        else:
            config = HAPROXY.replace("{port}", f"{{port}} ssl crt {pem}") % server.url.removeprefix("http://")
            url = stack.enter_context(haproxy(tmp_path, config))
        done = uploader("upload", path, "-s", url, home=tmp_path)
        examined = uploader("doctor", "-s", url, home=tmp_path)
    assert (done.code, examined.code) == (6, 6), done.err + examined.err
    assert "this port speaks TLS: use https" in done.err
    assert "this port speaks TLS: use https" in " ".join(examined.err.split())


def test_proxy_without_its_password_says_where_it_goes(server: EmbeddedServer, tmp_path: Path) -> None:
    (path,) = make(tmp_path / "files", a=1000)
    with tinyproxy(tmp_path, "BasicAuth anna secret") as proxy:
        done = uploader("upload", path, "-s", server.url, "--proxy", f"http://{proxy}", home=tmp_path)
        assert done.code in (5, 6), done.err
        assert "407" in done.err
        assert "--proxy" in done.err
        line = ["upload", path, "-s", server.url, "--proxy", f"http://anna:secret@{proxy}", "--json"]
        done = uploader(*line, home=tmp_path)
    assert completed(done) == 1
    assert "secret" not in done.out + done.err


@pytest.mark.parametrize("how", ["--proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_websocket_uses_the_proxy(server: EmbeddedServer, tmp_path: Path, how: str) -> None:
    (path,) = make(tmp_path / "files", a=3 * MIB)
    with tinyproxy(tmp_path) as proxy:
        option = ["--proxy", f"http://{proxy}"] if how == "--proxy" else []
        environment = {} if option else {how: f"http://{proxy}"}
        line = ["upload", path, "-s", server.url, *option, "--limit-rate", "1M", "--json"]
        done = uploader(*line, home=tmp_path, **environment)
        log = (tmp_path / "tinyproxy.log").read_text()
    assert completed(done) == 1
    assert "/socket.io/" in log or "CONNECT" in log
    assert "/api/upload" in log


def test_no_proxy_keeps_every_call_off_the_proxy(server: EmbeddedServer, tmp_path: Path) -> None:
    (path,) = make(tmp_path / "files", a=3 * MIB)
    with tinyproxy(tmp_path) as proxy:
        environment = {"ALL_PROXY": f"http://{proxy}", "NO_PROXY": "127.0.0.1"}
        done = uploader("upload", path, "-s", server.url, "--limit-rate", "1M", "--json", home=tmp_path, **environment)
        time.sleep(0.1)
        log = (tmp_path / "tinyproxy.log").read_text()
    assert completed(done) == 1
    assert "Request" not in log


# --- a proxy in front of @tus/server that drops the port


def test_location_without_the_port_names_the_cause(node: Node, tmp_path: Path) -> None:
    """nginx with `Host $host` on a port of its own: @tus/server makes absolute URLs of it."""
    (path,) = make(tmp_path / "files", a=20 * MIB)
    store = tmp_path / "store"
    store.mkdir()
    process = node.start("tus_node_server.mjs", str(store), "[]")
    try:
        assert process.stdout is not None
        upstream = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        forward = f"proxy_pass {upstream}; client_max_body_size 0; proxy_set_header Host $host;"
        with nginx(tmp_path, f"location / {{ {forward} }}") as url:
            done = uploader("upload", path, "--tus-endpoint", f"{url}/files", "--chunk-size", "4M", home=tmp_path)
    finally:
        process.kill()
        process.communicate()
    assert done.code != 0
    assert "its proxy drops the port" in done.err
    assert "$http_host" in done.err

"""Broken set-ups with one fault each: failing step, cause and verdict name it."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from fakes import Clock
from features.doctor.broken_setups import (
    UNKNOWN,
    Answering,
    Instead,
    black_hole,
    doctor,
    no_websockets,
    refusing_proxy,
    silent_server,
    small_bodies,
    step,
    web_site,
    wrong_clock,
)
from proxy import Onlooker, Proxy, Request, Without, answer, tls_front
from serving import closed_port, running_server
from time_limits import PATIENCE
from tus_services import Plain

from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.doctor import context, network, server
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("busy_machine")


@dataclass
class World:
    """What a set-up may use, and what the doctor is given then."""

    stack: ExitStack
    tmp_path: Path
    patch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    def serve(self, **config: Any) -> str:
        """A bundled server."""
        return self.stack.enter_context(running_server(**config)).url

    def trust(self, authority: trustme.CA) -> None:
        """Name the authority with --ca-bundle."""
        bundle = self.tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(bundle))
        self.settings["ca_bundle"] = bundle


def port_closed(world: World) -> str:
    return f"http://127.0.0.1:{world.stack.enter_context(closed_port())}"


def port_filtered(world: World) -> str:
    world.patch.setattr(network, "RESPONSE_LIMIT", 0.4)
    return f"http://127.0.0.1:{world.stack.enter_context(black_hole())}"


def host_unknown(world: World) -> str:
    return "https://files.invalid"


def proxy_unknown(world: World) -> str:
    world.settings["proxy"] = "http://proxy.invalid:3128"
    return "http://files.invalid"


def proxy_malformed(world: World) -> str:
    world.patch.setenv("http_proxy", "http://me:hunter2@proxy.invalid:99999")
    return "http://files.invalid"


def proxy_refuses(world: World) -> str:
    world.settings["proxy"] = world.stack.enter_context(refusing_proxy()).url
    return "https://files.invalid"


def tls_name(world: World) -> str:
    authority = trustme.CA()
    world.trust(authority)
    return world.stack.enter_context(tls_front(world.serve(), authority, "files.example"))


def tls_authority(world: World) -> str:
    return world.stack.enter_context(tls_front(world.serve(), trustme.CA(), "localhost"))


def tls_expired(world: World) -> str:
    authority, now = trustme.CA(), datetime.now(UTC)
    world.trust(authority)
    old = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
    return world.stack.enter_context(tls_front(world.serve(), authority, "localhost", **old))


def tls_missing(world: World) -> str:
    return world.serve().replace("http://", "https://")


def tls_ends_soon(world: World) -> str:
    authority = trustme.CA()
    world.trust(authority)
    soon = datetime.now(UTC) + timedelta(days=5, hours=1)
    return world.stack.enter_context(tls_front(world.serve(), authority, "localhost", not_after=soon))


def web_page(world: World) -> str:
    return world.stack.enter_context(web_site()).url


def moved(world: World) -> str:
    return world.stack.enter_context(web_site(301, Location="https://files.example/health")).url


def cloudy(world: World) -> str:
    """Some other service with a `/health`, but no uploads."""
    return world.stack.enter_context(web_site(404, "application/json", b'{"detail":"Not Found"}')).url


def everything_is_ok(world: World) -> str:
    return world.stack.enter_context(web_site(200, "application/json", b'{"ok":true}')).url


def path_wrong(world: World) -> str:
    return f"{world.serve()}/wrong"


def _answered(world: World, part: str, answered: bytes) -> str:
    """A server behind a proxy that answers requests with `part` in their lines itself."""
    return world.stack.enter_context(Proxy(world.serve(), Instead(lambda request: part in request.line, answered))).url


def api_missing(world: World) -> str:
    """A server whose proxy passes on `/health` alone."""
    return _answered(world, " /api/upload/progress", answer(200, "Content-Type: application/json", body=b'{"ok":true}'))


def tus_server(world: World) -> str:
    return world.stack.enter_context(Plain()).url.removesuffix("/files/")


def tus_endpoint(world: World) -> str:
    """No upload server, but a tus server elsewhere on it."""
    world.settings["tus_endpoint"] = f"{tus_server(world)}/elsewhere/"
    return ""


def tus_endpoint_page(world: World) -> str:
    world.settings["tus_endpoint"] = everything_is_ok(world)
    return ""


def tus_headers_removed(world: World) -> str:
    proxy = world.stack.enter_context(Proxy(world.serve(), Without("Tus-Resumable")))
    world.settings["tus_endpoint"] = f"{proxy.url}/api/upload/files/"
    return ""


def upload_headers_removed(world: World) -> str:
    return world.stack.enter_context(Proxy(world.serve(), Without("Upload-[a-z-]+"))).url


def _at_a_tus_endpoint(world: World, onlooker: Onlooker) -> str:
    """A proxy in front of a tus server, which gets one upload."""
    proxy = world.stack.enter_context(Proxy(world.serve(), onlooker))
    world.settings["tus_endpoint"] = f"{proxy.url}/api/upload/files/"
    world.context["new_upload"] = True
    return ""


def upload_headers_removed_at_a_tus_endpoint(world: World) -> str:
    return _at_a_tus_endpoint(world, Without("Upload-[a-z-]+"))


def upload_headers_removed_from_answers(world: World) -> str:
    return _at_a_tus_endpoint(world, Answering("Upload-[a-z-]+"))


def upload_headers_removed_from_plain_answers(world: World) -> str:
    """The same with a server that takes no bytes with a creation."""
    proxy = world.stack.enter_context(Proxy(tus_server(world), Answering("Upload-[a-z-]+")))
    world.settings["tus_endpoint"] = f"{proxy.url}/files/"
    world.context["new_upload"] = True
    return ""


def location_removed(world: World) -> str:
    return _at_a_tus_endpoint(world, Answering("Location"))


def location_of_another_host(world: World) -> str:
    return _at_a_tus_endpoint(world, Answering("Location", b"Location: http://backend.internal:8080/files/1\r\n"))


def location_without_tls(world: World) -> str:
    url, authority = world.serve(), trustme.CA()
    world.trust(authority)
    proxy = world.stack.enter_context(Proxy(url, NoTls()))
    front = world.stack.enter_context(tls_front(proxy.url, authority))
    world.settings["tus_endpoint"] = f"{front}/api/upload/files/"
    world.context["new_upload"] = True
    return ""


class NoTls(Onlooker):
    """Has the path of each new upload follow the name of this machine, with http."""

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        return (
            piece
            if to_server
            else re.sub(rb"(?i)\r\nlocation: (https?://[^/]*)?/", b"\r\nLocation: http://localhost/", piece)
        )


def signature_removed_from_answers(world: World) -> str:
    return _at_a_tus_endpoint(world, Answering("Tus-Resumable"))


def _blocked(world: World, *methods: str) -> str:
    return _at_a_tus_endpoint(world, Instead(lambda request: request.method in methods, answer(405)))


def head_blocked(world: World) -> str:
    return _blocked(world, "HEAD")


def delete_blocked(world: World) -> str:
    return _blocked(world, "DELETE")


def patch_and_its_override_blocked(world: World) -> str:
    return _at_a_tus_endpoint(
        world,
        Instead(
            lambda request: request.method == "PATCH" or "x-http-method-override" in request.headers,
            answer(405, close=True),
        ),
    )


def creation_refused(world: World) -> str:
    """A server that wants metadata."""
    refusing = Instead(lambda request: request.method == "POST", answer(422, "Tus-Resumable: 1.0.0", body=b"no bucket"))
    return _at_a_tus_endpoint(world, refusing)


def tus_hidden(world: World) -> str:
    """A proxy that knows nothing of the tus endpoint."""
    return _answered(world, " /api/upload/files", answer(405, close=True))


def packs_fail(world: World) -> str:
    return world.serve(packs=True, faults=("status:pack:500",))


def lookups_fail(world: World) -> str:
    return world.serve(packs=True, faults=("status:lookup:500",))


def patch_blocked(world: World) -> str:
    return _answered(world, "PATCH ", answer(403, close=True))


def bodies_limited(world: World) -> str:
    return world.stack.enter_context(small_bodies(world.serve())).url


def bodies_limited_in_batch_mode(world: World) -> str:
    return world.stack.enter_context(small_bodies(world.serve(flavour="reference"))).url


def bodies_limited_at_a_tus_endpoint(world: World) -> str:
    world.settings["tus_endpoint"] = world.stack.enter_context(small_bodies(world.serve())).url + "/api/upload/files/"
    return ""


def websockets_blocked(world: World) -> str:
    return world.stack.enter_context(no_websockets(world.serve())).url


def websockets_off(world: World) -> str:
    return world.serve(websocket="off")


def socket_io_off(world: World) -> str:
    return world.serve(realtime="off")


def slow(world: World) -> str:
    world.patch.setattr(server, "SAMPLING", 0.7)
    return world.serve(latency_ms=550)


def rate_limit(world: World) -> str:
    return world.stack.enter_context(_used_up(rate_window=300.0))


def rate_limit_for_long(world: World) -> str:
    world.settings["max_wait"] = 60.0
    return world.stack.enter_context(_used_up(rate_window=300.0))


@contextmanager
def _used_up(**config: Any) -> Iterator[str]:
    with running_server(rate_limit=1, **config) as running:
        requests.get(f"{running.url}/api/upload/progress/{UNKNOWN}", timeout=PATIENCE)
        yield running.url


def few_calls_left(world: World) -> str:
    return world.serve(rate_limit=10)


def session_expired(world: World) -> str:
    world.context["session"] = UNKNOWN
    return world.serve()


def clock_ahead(world: World) -> str:
    return world.stack.enter_context(wrong_clock(world.serve(), -3.005)).url


def clock_behind(world: World) -> str:
    return world.stack.enter_context(wrong_clock(world.serve(), +26.0)).url


def unavailable(world: World) -> str:
    world.patch.setattr(server, "RETRY_PAUSE", 0.01)
    return world.stack.enter_context(web_site(503, "text/plain", b"busy")).url


def crashing(world: World) -> str:
    world.patch.setattr(server, "RETRY_PAUSE", 0.01)
    return world.stack.enter_context(web_site(500, "text/plain", b"oops")).url


def overloaded(world: World) -> str:
    """Two of five questions are not answered: with 503, and with the end of the connection."""
    running = world.stack.enter_context(running_server())
    running.faults.next_answers("GET", "/health", [None, 503, Answer(close=True)])
    return running.url


def api_unavailable(world: World) -> str:
    running = world.stack.enter_context(running_server())
    running.faults.next_answers("GET", "/api/*", [503, 503])
    return running.url


def api_hanging(world: World) -> str:
    """A proxy that passes on `/health` alone."""
    world.patch.setattr(context, "RESPONSE_LIMIT", 2.0)  # what answers has to be in time on a slow machine, too
    over = threading.Event()

    class Holding(Onlooker):
        def head(self, request: Request) -> None:
            if request.target.startswith("/api/"):
                over.wait(PATIENCE)

    proxy = world.stack.enter_context(Proxy(world.serve(), Holding()))
    world.stack.callback(over.set)  # before the proxy waits for its connections
    return proxy.url


def hanging(world: World) -> str:
    world.patch.setattr(context, "RESPONSE_LIMIT", 0.3)
    return world.stack.enter_context(silent_server())


def token_refused(world: World) -> str:
    world.settings["token"] = "expired-long-ago"
    return world.serve()


def token_wanted(world: World) -> str:
    running = world.stack.enter_context(running_server())
    denied = Answer(401, {"Content-Type": "application/json"}, b'{"error":"UNAUTHORIZED","message":"no"}')
    running.faults.next_answers("GET", "/api/*", [denied] * 3)
    return running.url


def guarded(world: World) -> str:
    """A server with --auth-token-file, and no token here."""
    return world.serve(auth_token="of-somebody-else")


def guarded_against_us(world: World) -> str:
    """The same, with another token here."""
    world.settings["token"] = "ours"
    return world.serve(auth_token="of-somebody-else")


def guarded_session(world: World) -> str:
    """The same, for one session."""
    world.context["session"] = UNKNOWN
    return world.serve(auth_token="of-somebody-else")


def connections_used_up(world: World) -> str:
    """Another client at this address uses all of its realtime connections."""
    url = world.serve(max_connections=1)
    requests.get(f"{url}/socket.io/?EIO=4&transport=polling", timeout=PATIENCE)
    return url


def slow_disk(world: World) -> str:
    """It writes 3.9 MB/s."""
    return disk_that_takes(world, repeat(0.135))


def stalling_disk(world: World) -> str:
    """Fast on the whole, but one write takes long."""
    return disk_that_takes(world, chain([0.31], repeat(0.1)))


def disk_that_takes(world: World, seconds: Iterator[float]) -> str:
    """Each write takes as long, by the clock of this check."""
    clock = Clock()
    world.patch.setattr("uploader_cli.features.doctor.disk.time", SimpleNamespace(perf_counter=clock))
    world.context["fsync"] = lambda _handle: clock.pass_(next(seconds))
    return world.serve()


def disk_read_only(world: World) -> str:
    world.settings["state_dir"] = world.tmp_path / "file" / "below"
    (world.tmp_path / "file").write_text("no directory")
    return world.serve()


def state_dir_too_long(world: World) -> str:
    world.settings["state_dir"] = world.tmp_path / ("n" * 300)
    return world.serve()


def home_read_only(world: World) -> str:
    """An upload uses a temporary directory instead."""
    for name in ("HOME", "XDG_STATE_HOME"):
        world.patch.setenv(name, "/proc/sys")
    return world.serve()


def journal_damaged(world: World) -> str:
    world.settings["state_dir"] = world.tmp_path
    (world.tmp_path / "journal.sqlite3").write_bytes(b"this is no database" * 100)
    return world.serve()


BROKEN: list[tuple[Callable[[World], str], str, str, str, Exit]] = [
    (port_closed, "tcp", "is closed: nothing listens there", "is closed", Exit.NO_SERVER),
    (port_filtered, "tcp", "a firewall drops the packets", "no answer from port", Exit.NO_SERVER),
    (host_unknown, "dns", "host name files.invalid is unknown", "files.invalid is unknown", Exit.NO_SERVER),
    (proxy_unknown, "dns", "host name proxy.invalid is unknown", "proxy.invalid is unknown", Exit.NO_SERVER),
    (proxy_malformed, "proxy", "http_proxy is no URL of a proxy: Port", "http_proxy is no URL", Exit.USAGE),
    (proxy_refuses, "tls", "the proxy does not connect", "403 Forbidden", Exit.NO_SERVER),
    (tls_name, "tls", "is for files.example, not for localhost", "the TLS name does not match", Exit.NO_SERVER),
    (tls_authority, "tls", "certificate is unknown: it is not in the file", "certificate is unknown", Exit.NO_SERVER),
    (
        tls_expired,
        "tls",
        "the server's certificate has expired",
        "the server's certificate has expired",
        Exit.NO_SERVER,
    ),
    (tls_missing, "tls", "does not speak TLS", "does not speak TLS", Exit.NO_SERVER),
    (tls_ends_soon, "tls", "expires in 5 days", "expires in 5 days", Exit.OK),
    (web_page, "health", "/health answers 200 with text/html", "this is not an upload server", Exit.NO_SERVER),
    (moved, "health", "redirects to https://files.example", "redirects to", Exit.NO_SERVER),
    (cloudy, "health", "this is not an upload server", "this is not an upload server", Exit.NO_SERVER),
    (everything_is_ok, "health", "this is not an upload server", "No upload possible", Exit.NO_SERVER),
    (path_wrong, "health", "this is not an upload server", "No upload possible", Exit.NO_SERVER),
    (api_missing, "polling", "this is not an upload server", "No upload possible", Exit.NO_SERVER),
    (tus_server, "health", "this is a tus server", "No upload possible", Exit.NO_SERVER),
    (tus_endpoint, "tus", "is not the endpoint of the tus server (404)", "No upload possible", Exit.NO_SERVER),
    (tus_endpoint_page, "tus", "does not answer as a tus server", "No upload possible", Exit.NO_SERVER),
    (tus_headers_removed, "tus", "arrive without Tus-Resumable (412)", "No upload possible", Exit.NO_SERVER),
    (upload_headers_removed, "tus_headers", "arrive without Upload-Length (400)", "No upload possible", Exit.NO_SERVER),
    (
        upload_headers_removed_at_a_tus_endpoint,
        "tus_headers",
        "arrive without Upload-Length (400)",
        "No upload possible",
        Exit.NO_SERVER,
    ),
    (
        upload_headers_removed_from_answers,
        "tus_headers",
        "without Upload-Offset (HEAD: 200)",
        "No upload possible",
        Exit.NO_SERVER,
    ),
    (
        upload_headers_removed_from_plain_answers,
        "tus_headers",
        "uploads can't be resumed",
        "without Upload-Offset",
        Exit.OK,
    ),
    (location_removed, "tus_headers", "has no Location (201)", "No upload possible", Exit.NO_SERVER),
    (location_of_another_host, "tus_headers", "http://backend.internal:8080/***", "another server", Exit.OK),
    (location_without_tls, "tus_headers", "URLs with http", "URLs with http", Exit.OK),
    (signature_removed_from_answers, "tus_headers", "without Tus-Resumable", "without Tus-Resumable", Exit.OK),
    (head_blocked, "tus_headers", "with 405: uploads can't be resumed", "HEAD of a new upload", Exit.OK),
    (delete_blocked, "tus_headers", "blocks DELETE (405)", "blocks DELETE", Exit.OK),
    (creation_refused, "tus_headers", "no bucket", "creation of an upload is refused", Exit.OK),
    (patch_and_its_override_blocked, "body_limit", "and POST with X-HTTP", "No upload possible", Exit.NO_SERVER),
    (tus_hidden, "tus", "does not answer as a tus server (405)", "No upload possible", Exit.NO_SERVER),
    (packs_fail, "packs", "packs are answered with 500", "packs are answered with 500", Exit.OK),
    (lookups_fail, "lookup", "the lookup is answered with 500", "the lookup is answered with 500", Exit.OK),
    (patch_blocked, "body_limit", "blocks PATCH (403)", "blocks PATCH", Exit.OK),
    (bodies_limited, "body_limit", "refuses requests of 2.0 MiB (413), 1.0 MiB pass", "a proxy refuses", Exit.OK),
    (bodies_limited_in_batch_mode, "body_limit", "2.0 MiB (413), 1.0 MiB pass", "a proxy refuses", Exit.OK),
    (bodies_limited_at_a_tus_endpoint, "body_limit", "2.0 MiB (413), 1.0 MiB pass", "a proxy refuses", Exit.OK),
    (websockets_blocked, "websocket", "answered with 403", "blocks websockets (proxy?)", Exit.OK),
    (websockets_off, "websocket", "no websocket at /socket.io/ (404)", "long polling", Exit.OK),
    (socket_io_off, "long_polling", "no Socket.IO at /socket.io/", "progress is polled: the server has no", Exit.OK),
    (slow, "polling", "slow polling", "responses are slow", Exit.OK),
    (rate_limit, "rate_limit", "accepts requests again in", "the rate limit is used up", Exit.OK),
    (rate_limit_for_long, "rate_limit", "longer than uploads wait", "rate limit is used up", Exit.RETRY_MAY_HELP),
    (few_calls_left, "rate_limit", "9 calls of 10 left", "nearly used up", Exit.OK),
    (session_expired, "session", UNKNOWN, "the session has expired", Exit.OK),
    (clock_ahead, "clock", "the local clock is ahead of", "clock skew of 3:00:", Exit.OK),
    (clock_behind, "clock", "the local clock is behind", "clock skew of 2", Exit.OK),
    (unavailable, "health", "503: it is overloaded or under", "503", Exit.RETRY_MAY_HELP),
    (crashing, "health", "500: it has an internal error", "500", Exit.RETRY_MAY_HELP),
    (overloaded, "load", "2 of 5 requests failed", "the server is overloaded", Exit.OK),
    (api_unavailable, "polling", "overloaded or down", "503", Exit.RETRY_MAY_HELP),
    (api_hanging, "polling", "requests to /api get no response", "though /health does", Exit.NO_SERVER),
    (hanging, "health", "it is overloaded or hangs", "does not answer", Exit.NO_SERVER),
    (token_refused, "token", "refuses the token (401 INVALID_TOKEN)", "refuses the token", Exit.OK),
    (token_wanted, "polling", "requires a token (401 UNAUTHORIZED)", "requires a token", Exit.NOT_AUTHORISED),
    (guarded, "polling", "requires a token (401 UNAUTHORIZED)", "requires a token", Exit.NOT_AUTHORISED),
    (guarded_against_us, "polling", "refuses the token (401 INVALID_TOKEN)", "refuses the token", Exit.NOT_AUTHORISED),
    (guarded_session, "session", "requires a token (401 UNAUTHORIZED)", "requires a token", Exit.NOT_AUTHORISED),
    (
        connections_used_up,
        "websocket",
        "accepts no more connections from this address (429)",
        "no more connections",
        Exit.OK,
    ),
    (slow_disk, "disk", "slow disk here", "slow disk here", Exit.OK),
    (stalling_disk, "disk", "ms to sync a write", "slow disk here", Exit.OK),
    (disk_read_only, "disk", "can't be written", "can't be written", Exit.USAGE),
    (state_dir_too_long, "disk", "can't be written: File name too long", "can't be written", Exit.USAGE),
    (home_read_only, "disk", "can't be resumed: the state directory", "can't be resumed", Exit.OK),
    (journal_damaged, "disk", "can't be read", "the journal", Exit.OK),
]


@pytest.mark.parametrize(
    ("trouble", "name", "cause", "verdict", "code"), BROKEN, ids=[row[0].__name__ for row in BROKEN]
)
def test_doctor_names_the_broken_step_and_its_cause(
    trouble: Callable[[World], str],
    name: str,
    cause: str,
    verdict: str,
    code: Exit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step, cause, verdict and fix are named; the steps that work pass."""
    with ExitStack() as stack:
        world = World(stack, tmp_path, monkeypatch)
        url = trouble(world)
        began = time.monotonic()
        report = doctor(url, context=world.context, **world.settings)
        took = time.monotonic() - began
    found = step(report, name)
    assert cause in found.finding.message
    assert found.finding.hint.endswith(".")
    assert verdict in report.summary
    assert report.exit_code is code
    assert found.verdict is (Verdict.WARNING if code is Exit.OK else Verdict.FAIL)
    assert report.calls <= 7
    assert took < PATIENCE
    blamed = {result.id for result in report.results if result.verdict in (Verdict.WARNING, Verdict.FAIL)}
    assert blamed <= {name, *BESIDE.get(trouble.__name__, ())}
    if code is not Exit.OK:
        assert report.summary.startswith("No upload possible: ")
    if trouble is websockets_blocked:
        assert found.finding.details == {"http_status": 403, "answered_by": "1.1 gate"}
        assert found.finding.hint.startswith("Let every proxy and firewall before 127.0.0.1:")


BESIDE = {
    "slow": ("load", "polling"),
    "socket_io_off": ("websocket",),
    "connections_used_up": ("long_polling",),
}
"""Troubles that show at more than one step."""

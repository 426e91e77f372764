"""No answer makes the client send the token or a `--header` value to another host."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Peer, ScriptedServer

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.packs import LookedUp
from uploader_cli.core.terms import Terms
from uploader_cli.settings import Header, Settings
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.http_client import HttpClient
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.protocols.machine import Ask, Create
from uploader_cli.transfer.requests_session import make_session
from uploader_cli.transfer.upload_calls import UploadCalls, upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRETS: dict[str, Any] = {"token": "sesame", "header": (Header("X-Key", "h4ckme"),)}
FORMS = {
    "another port": "http://{there}/x",
    "a backslash": "http://{there}\\@{home}/x",  # the standard library reads `home`, urllib3 dials `there`
    "a user": "http://{home}@{there}/x",
    "a control character": "http://{there}\\\t@{home}/x",
}


class Hosts:
    """The server of the settings, whose answers point to `where`, and another host, which notes what it is sent."""

    def __init__(self, stack: contextlib.ExitStack, form: str) -> None:
        self.sent: list[dict[str, str]] = []
        self.asked: list[dict[str, str]] = []
        self.there = stack.enter_context(ScriptedServer(self._there))
        self.home = stack.enter_context(ScriptedServer(self._home))
        self.where = form.format(there=f"127.0.0.1:{self.there.port}", home=f"127.0.0.1:{self.home.port}")
        self.api = Api(Settings(server=self.home.url, retries=0, **SECRETS), lambda _event: None, Stop())
        self.api.resume_session("session", "secret-of-the-session-sesame")
        stack.callback(self.api.close)

    def tus(self, endpoint: str) -> UploadCalls:
        return upload_calls(self.api, Terms(tus=Capabilities(endpoint)))

    def _there(self, peer: Peer) -> None:
        while True:
            self.sent.append(peer.request()[1])
            peer.answer(200, Tus_Resumable="1.0.0", Upload_Offset="0", Location="/next")

    def _home(self, peer: Peer) -> None:
        while True:
            line, headers, _ = peer.request()
            self.asked.append(headers)
            if line.startswith("POST /files/"):
                peer.answer(201, Tus_Resumable="1.0.0", Location=self.where)
            elif "/moved" in line:
                peer.answer(307, Location=self.where, Set_Cookie="session=c00kie; Path=/")
            else:
                offers: dict[str, Any] = {
                    "tus": {"endpoint": self.where, "version": "1.0.0"},
                    "packs": {"endpoint": self.where, "maxFiles": 9, "maxBytes": 9, "maxFileSize": 9},
                    "lookup": {"endpoint": self.where, "maxFiles": 9},
                }
                peer.answer(200, offers)


@pytest.fixture(params=FORMS)
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        yield Hosts(stack, FORMS[request.param])


def location_of_an_upload(hosts: Hosts) -> None:
    client = hosts.tus(f"{hosts.home.url}/files/")
    client.head(client.ask(Create(1, metadata={"sessionId": "session"})).url)


def redirected_upload(hosts: Hosts) -> None:
    hosts.tus(f"{hosts.home.url}/files/").head(f"{hosts.home.url}/moved")


def redirected_endpoint(hosts: Hosts) -> None:
    hosts.tus(f"{hosts.home.url}/moved").ask(Create(1, metadata={"sessionId": "session"}))
    assert hosts.asked[0]["x-session-secret"].endswith("sesame")


def offered_tus_endpoint(hosts: Hosts) -> None:
    if (offered := hosts.api.health().tus) is not None:
        hosts.tus(offered.endpoint).ask(Create(1, metadata={"sessionId": "session"}))


def offered_packs(hosts: Hosts) -> None:
    if (offered := hosts.api.health().packs) is not None:
        hosts.api.ask(Ask("GET", f"{offered.endpoint}/key", "session", {}), None)


def offered_lookup(hosts: Hosts) -> None:
    if (offered := hosts.api.health().lookup) is not None:
        hosts.api.lookup(offered, [LookedUp("personal", "a", 1)])


def location_of_a_stored_file(hosts: Hosts) -> None:
    hosts.api.health()
    with pytest.raises(errors.ProtocolError):
        hosts.api.stored(hosts.where)


def bytes_of_a_stored_file(hosts: Hosts) -> None:
    hosts.api.health()
    assert not hosts.api.read_back(hosts.where, lambda _piece: None)


def redirected_realtime_call(hosts: Hosts) -> None:
    with make_session(hosts.api, Sockets()) as session:
        session.get(f"{hosts.home.url}/moved", headers=hosts.api.authorization(), timeout=9)


MAY_ASK = (location_of_an_upload, redirected_upload, redirected_endpoint)
"""Ways on which another host is asked, without credentials; on no other way it is asked at all."""


@pytest.mark.parametrize(
    "way",
    [
        *MAY_ASK,
        offered_tus_endpoint,
        offered_packs,
        offered_lookup,
        location_of_a_stored_file,
        bytes_of_a_stored_file,
        redirected_realtime_call,
    ],
)
def test_another_host_gets_neither_token_nor_headers(hosts: Hosts, way: Callable[[Hosts], None]) -> None:
    with contextlib.suppress(errors.ProtocolError):
        way(hosts)
    assert hosts.asked[0]["authorization"] == "Bearer sesame"
    assert hosts.asked[0]["x-key"] == "h4ckme"
    assert not [value for headers in hosts.sent for value in headers.values() if value.endswith(("sesame", "h4ckme"))]
    assert bool(hosts.sent) is (way in MAY_ASK and hosts.where.endswith(f"//127.0.0.1:{hosts.there.port}/x"))


@pytest.mark.parametrize("call", ["request", "stream"])
def test_credentials_of_a_caller_do_not_leave_the_server_of_the_settings(hosts: Hosts, call: str) -> None:
    """Even where a caller passes them, and after the server has set a cookie."""
    http = HttpClient(Settings(server=hosts.home.url, **SECRETS))
    http.request("GET", f"{hosts.home.url}/moved")
    own = {"authorization": "Bearer sesame", "Cookie": "session=c00kie", "X-Request-ID": "mine", "Range": "bytes=0-"}
    own["X-Session-Secret"] = "secret-of-the-session"
    with contextlib.suppress(errors.NetworkError):
        if call == "request":
            http.request("GET", hosts.where, headers=own)
        else:
            with http.stream(hosts.where, own):
                pass
    http.close()
    for headers in hosts.sent:
        assert not {"authorization", "cookie", "x-request-id", "x-key", "x-session-secret"} & set(headers)
        assert headers["range"] == "bytes=0-"
    assert hosts.sent

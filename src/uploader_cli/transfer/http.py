"""HTTP for the rest of the package: one call, one answer, errors of our own tree. The only import of `requests`."""

from __future__ import annotations

import itertools
import os
import platform
import secrets
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests import exceptions as rex
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from uploader_cli.core.events import CallMade
from uploader_cli.core.tus import trusts
from uploader_cli.errors import ConnectFailed, ConnectionLost, TimedOut, UsageError
from uploader_cli.transfer.wire import Body, Sockets, pool_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from uploader_cli.settings import Settings

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
BLOCK = 1 << 20
"""Bytes read from a body at a time: urllib3's 16 KiB halve the throughput."""
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Where a machine's users expect certificates to be named for all programs; `--ca-bundle` outranks them."""
REQUEST_ID = "X-Request-ID"
KEEPALIVE = ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)
"""A peer that is gone is noticed after a minute, however long its answer may take."""


class RequestIds:
    """Ids of HTTP calls, by which a line of the client's log is found in the server's; usable from any thread."""

    def __init__(self, run: str = "", tell: Callable[[CallMade], None] = lambda _call: None) -> None:
        """`run` begins each id; without one it is random."""
        self._run = run or secrets.token_hex(8)
        self._numbers = itertools.count(1)  # its `next` is one step for all threads
        self.tell = tell

    def new(self) -> str:
        """Return an id that no call had before."""
        return f"{self._run}-{next(self._numbers):06d}"

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with an id for the call; one that they have already stays."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}


def shown(url: str) -> str:
    """Return `url` as a log may hold it: neither query nor user, which may carry secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: status, headers (any case), and its JSON body (None where it is none)."""

    status: int
    headers: Mapping[str, str]
    body: object
    url: str
    request_id: str = ""
    """The `X-Request-ID` that was sent; empty where none was."""

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300


class Payload(Body, Protocol):
    """A body with its type, that knows whether all of it is out."""

    content_type: str

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""


class Http:
    """One client: a few kept-alive connections with the settings' TLS, proxy and headers."""

    def __init__(self, settings: Settings, ids: RequestIds | None = None) -> None:
        """No connection is made yet. `ids` gives each call its id."""
        self.sockets = Sockets()
        self.session = make_session(settings, self.sockets, ids)
        self._own_headers = tuple(settings.headers)

    def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        body: Payload | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float = READ_TIMEOUT,
        stranger: bool = False,
    ) -> Answer:
        """Send one request; no retry, no redirect followed. A `stranger` does not get the headers of `--header`.

        Raise `ConnectFailed`, `ConnectionLost`, `TimedOut` (their `body_sent` says whether the whole request was
        out), and whatever `body.check` or `body.read` raises.
        """
        sent: dict[str, str | None] = dict.fromkeys(self._own_headers) if stranger else {}
        sent |= headers or {}
        if body is not None:
            sent["Content-Type"] = body.content_type
        try:
            response = self.session.request(
                method,
                url,
                json=json,
                data=cast("Any", body),
                headers=sent,
                timeout=(CONNECT_TIMEOUT, read_timeout),
                allow_redirects=False,
            )
        except (rex.MissingSchema, rex.InvalidSchema, rex.InvalidURL) as error:
            raise UsageError(f"--server: {url} is no URL that can be reached: {error}") from error
        except (rex.RequestException, OSError) as error:
            raise _network_error(error, url, body_sent=body.through if body is not None else True) from error
        name = response.request.headers.get(REQUEST_ID, "")
        return Answer(response.status_code, response.headers, _json(response), url, name)

    @contextmanager
    def stream(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """`GET url`: the answer without its body, and the body in pieces. Raise as `request` does, in between too."""
        try:
            with self.session.get(
                url, headers=dict(headers), stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), allow_redirects=False
            ) as response:
                yield Answer(response.status_code, response.headers, None, url), response.iter_content(BLOCK)
        except (rex.RequestException, OSError) as error:
            raise _network_error(error, url, body_sent=True) from error

    def shut(self) -> None:
        """End every running call at once, from another thread."""
        self.sockets.shut()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def make_session(settings: Settings, sockets: Sockets, ids: RequestIds | None = None) -> requests.Session:
    """Make a `requests` session with the settings' certificates, proxy and headers, for the realtime channel too."""
    session = _Session(settings.target_url, ids or RequestIds())
    session.trust_env = False  # looked up once, here: each request would cost 120 µs
    environment = requests.utils.get_environ_proxies(settings.target_url) if not settings.proxy else {}
    session.proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else dict(environment)
    trusted = settings.ca_bundle or next(filter(None, map(os.environ.get, CA_VARIABLES)), None)
    session.verify = str(trusted) if trusted else True
    if settings.insecure:  # the run warns of it once, in its own words
        session.verify = False
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if settings.client_cert:
        session.cert = str(settings.client_cert)
    session.headers["User-Agent"] = f"uploader ({platform.system()})"
    session.headers.update(dict(settings.headers))
    adapter = _Adapter(sockets)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Session(requests.Session):
    """Give each call that goes to the server its id, and report all of them.

    Redirects are not followed: custom headers would go along to any host.
    """

    def __init__(self, home: str, ids: RequestIds) -> None:
        super().__init__()
        self._home, self._ids = home, ids

    def send(self, request: requests.PreparedRequest, **how: Any) -> requests.Response:
        """Send one call. An id that it has already stays: `--header` gave it, or the realtime channel."""
        url = request.url or ""
        if REQUEST_ID not in request.headers and trusts(self._home, url):
            request.headers[REQUEST_ID] = self._ids.new()
        began, status, error = time.monotonic(), None, None
        try:
            response = super().send(request, **how)
            status = response.status_code
        except BaseException as failure:
            error = _why(failure) or type(failure).__name__
            raise
        finally:
            took, name = round(time.monotonic() - began, 6), request.headers.get(REQUEST_ID)
            carries = not isinstance(request.body, bytes | str | None)
            self._ids.tell(CallMade(request.method or "", shown(url), name, status, took, error, carries))
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - their signature
        return None


class _Adapter(HTTPAdapter):
    def __init__(self, sockets: Sockets) -> None:
        self._pools = pool_classes(sockets)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, blocksize=BLOCK, socket_options=_socket_options())
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, blocksize=BLOCK, socket_options=_socket_options())
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _socket_options() -> list[tuple[int, int, int]]:
    import socket

    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in KEEPALIVE:
        number = getattr(socket, name, None)
        if number is not None:
            options.append((socket.IPPROTO_TCP, number, value))
    return options


def _network_error(error: Exception, url: str, *, body_sent: bool) -> Exception:
    """Our error for one of requests', urllib3's or the socket's."""
    where = _where(url)
    if isinstance(error, rex.SSLError):
        untrusted = "name the authority's certificate with --ca-bundle; --insecure gives up the protection"
        hint = untrusted if _has(error, ssl.SSLCertVerificationError) else "does the server speak TLS there?"
        failed = ConnectFailed(f"no secure connection to {where}: {_why(error)}", hint=hint)
        failed.retryable = _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
        return failed
    if isinstance(error, rex.ProxyError):
        return ConnectFailed(f"the proxy did not connect to {where}: {_why(error)}", hint="check --proxy")
    refused = _has(error, NewConnectionError)
    if refused or isinstance(error, rex.ConnectTimeout):
        return ConnectFailed(f"no connection to {where}: {_why(error)}", hint="is the server running there?")
    if _has(error, Urllib3Timeout, TimeoutError):
        what = "did not answer in time" if body_sent else "stopped taking bytes"
        return TimedOut(f"{where} {what}", body_sent=body_sent)
    if isinstance(error, rex.ChunkedEncodingError | rex.ContentDecodingError):
        return ConnectionLost(f"the answer of {where} broke off", body_sent=True)
    return ConnectionLost(f"the connection to {where} broke: {_why(error)}", body_sent=body_sent)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and everything it was made of: its arguments, reasons and causes, outermost first."""
    chain = [error]
    for item in chain:
        inner = (*item.args, getattr(item, "reason", None), item.__cause__, item.__context__)
        chain.extend(x for x in inner if isinstance(x, BaseException) and not any(x is known for known in chain))
    return chain


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(item, kinds) for item in _chain(error))


def _why(error: BaseException) -> str:
    """The operating system's words where there are any, else those of the innermost error, on one line."""
    chain = _chain(error)
    system = next((item.strerror for item in chain if isinstance(item, OSError) and item.strerror), None)
    return " ".join((system or str(chain[-1])).split())[:200]


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _json(response: requests.Response) -> object:
    """The body as JSON, or None: errors may come with an empty body or HTML."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def redirect_target(answer: Answer) -> str | None:
    """Return where a 3xx answer points, absolute; None for nonsense."""
    location = answer.headers.get("Location")
    try:
        return urljoin(answer.url, location) if location and 300 <= answer.status < 400 else None
    except ValueError:
        return None

"""HTTP for the rest of the package: one call, one answer, errors of our own tree. The only import of `requests`.

Calls go through the adapter of a `requests` session, not through the session: it would double the CPU time of a small
call.
"""

from __future__ import annotations

import itertools
import json as jsonlib
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
from requests.cookies import get_cookie_header
from requests.structures import CaseInsensitiveDict
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
ROUTES = 64
"""URLs of which the headers are remembered."""
KEEPALIVE = ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)
"""A peer that is gone is noticed after a minute, however long its answer may take."""


class RequestIds:
    """What the clients of a run share, in any threads: ids of calls, reports of them, and the round trip.

    By its id a line of the client's log is found in the server's.
    """

    round_trip: float | None = None
    """Seconds of the fastest call without a body so far, connecting excluded; None before the first."""

    def __init__(self, run: str = "", tell: Callable[[CallMade], None] = lambda _call: None) -> None:
        """`run` begins each id; without one it is random."""
        self._run = run or secrets.token_hex(8)
        self._numbers = itertools.count(1)  # its `next` is one step for all threads
        self.tell = tell

    def new(self) -> str:
        """Return an id that no call had before."""
        return f"{self._run}-{next(self._numbers):06d}"

    def answered(self, seconds: float) -> None:
        """Take the time from a request without a body to its answer."""
        if self.round_trip is None or seconds < self.round_trip:
            self.round_trip = seconds

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with an id for the call; one that they have already stays."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}

    @contextmanager
    def reporting(self, method: str, url: str, headers: Mapping[str, str], *, carries: bool) -> Iterator[_Report]:
        """Report the call that is made meanwhile; `carries` is True where its body is streamed."""
        report, began, error = _Report(), time.monotonic(), None
        try:
            yield report
        except BaseException as failure:
            error = _why(failure) or type(failure).__name__
            raise
        finally:
            took = round(time.monotonic() - began, 6)
            self.tell(CallMade(method, shown(url), headers.get(REQUEST_ID), report.status, took, error, carries))


class _Report:
    """What a report of a finished call needs."""

    status: int | None = None


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


@dataclass(frozen=True, slots=True)
class _Route:
    """What all requests to a URL share. `ours` is True for the server itself."""

    prepared: requests.PreparedRequest
    ours: bool


class Http:
    """One client: a few kept-alive connections with the settings' TLS, proxy and headers."""

    def __init__(self, settings: Settings, ids: RequestIds | None = None) -> None:
        """No connection is made yet. `ids` gives each call its id."""
        self.ids = ids or RequestIds()
        self.sockets = Sockets(self.ids.answered)
        self.session = make_session(settings, self.sockets, self.ids)
        self._home = settings.target_url
        self._own_headers = frozenset(name.lower() for name in dict(settings.headers))
        self._routes: dict[str, _Route] = {}

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
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = body.content_type
        data: Payload | bytes | None = body
        if json is not None:
            sent["Content-Type"] = "application/json"
            data = jsonlib.dumps(json, allow_nan=False).encode()
        try:
            route = self._route(url)
            sent = self._headers(route, sent, stranger=stranger)
            return self._exchange(method, route, sent, data, read_timeout)
        except (rex.MissingSchema, rex.InvalidSchema, rex.InvalidURL) as error:
            raise UsageError(f"--server: {url} is no URL that can be reached: {error}") from error
        except (rex.RequestException, OSError) as error:
            raise _network_error(error, url, body_sent=body.through if body is not None else True) from error

    def _route(self, url: str) -> _Route:
        """Return what requests to `url` share. Raise what `requests` raises for a URL."""
        route = self._routes.get(url)
        if route is None:
            prepared = self.session.prepare_request(requests.Request("GET", url))
            if "Cookie" not in self.session.headers:
                prepared.headers.pop("Cookie", None)  # each call adds those of its moment
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[url] = _Route(prepared, trusts(self._home, prepared.url or url))
        return route

    def _exchange(
        self, method: str, route: _Route, headers: dict[str, str], data: Payload | bytes | None, read_timeout: float
    ) -> Answer:
        """Make one call as the session would, with headers that are complete."""
        session, url = self.session, route.prepared.url or ""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method, url, cast("Any", data)
        prepared.headers = CaseInsensitiveDict(headers)
        if data is not None or method in ("POST", "PATCH"):
            prepared.headers["Content-Length"] = str(len(data or b""))
        with self.ids.reporting(
            method, url, headers, carries=data is not None and not isinstance(data, bytes)
        ) as report:
            response = session.get_adapter(url).send(
                prepared,
                stream=True,
                timeout=(CONNECT_TIMEOUT, read_timeout),
                verify=session.verify or False,
                cert=session.cert,
                proxies=session.proxies,
            )
            report.status = response.status_code
            if response.cookies:
                session.cookies.update(response.cookies)
            body = _json(response.content)  # all of it is read: the connection is free for the next call
        return Answer(response.status_code, response.headers, body, url, headers.get(REQUEST_ID, ""))

    def _headers(self, route: _Route, own: dict[str, str], *, stranger: bool) -> dict[str, str]:
        """Return all headers of a call; its `own` outrank those of the session, whatever their case."""
        without = {name.lower() for name in own}
        if stranger:
            without |= self._own_headers
        headers = {name: value for name, value in route.prepared.headers.items() if name.lower() not in without} | own
        if self.session.cookies and "Cookie" not in headers:
            cookie = get_cookie_header(self.session.cookies, route.prepared)  # type: ignore[no-untyped-call]
            headers |= {"Cookie": cookie} if cookie else {}
        return self.ids.added(headers) if route.ours else headers

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
        carries = not isinstance(request.body, bytes | str | None)
        with self._ids.reporting(request.method or "", url, request.headers, carries=carries) as report:
            response = super().send(request, **how)
            report.status = response.status_code
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - their signature
        return None


class _Adapter(HTTPAdapter):
    def __init__(self, sockets: Sockets) -> None:
        self._pools = pool_classes(sockets)
        self._last: tuple[str, Any] = ("", None)
        """The origin of the last request, and its pool."""
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the pool of the last request where this one goes to the same origin."""
        parts = urlsplit(request.url or "")
        origin = f"{parts.scheme}://{parts.netloc}"
        known, pool = self._last
        if known != origin or pool.pool is None:
            pool = super().get_connection_with_tls_context(request, *args, **kwargs)
            self._last = origin, pool
        return pool

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
    if isinstance(error, rex.ProxyError):
        return ConnectFailed(f"the proxy did not connect to {where}: {_why(error)}", hint="check --proxy")
    if isinstance(error, rex.SSLError):
        untrusted = "name the authority's certificate with --ca-bundle; --insecure gives up the protection"
        hint = untrusted if _has(error, ssl.SSLCertVerificationError) else "does the server speak TLS there?"
        failed = ConnectFailed(f"no secure connection to {where}: {_why(error)}", hint=hint)
        failed.retryable = _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
        return failed
    if _has(error, NewConnectionError) or isinstance(error, rex.ConnectTimeout):
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


def _json(content: bytes) -> object:
    """The body as JSON, or None: errors may come with an empty body or HTML."""
    if not content:
        return None
    try:
        return jsonlib.loads(content)
    except (ValueError, RecursionError):
        return None


def redirect_target(answer: Answer) -> str | None:
    """Return where a 3xx answer points, absolute; None for nonsense."""
    location = answer.headers.get("Location")
    try:
        return urljoin(answer.url, location) if location and 300 <= answer.status < 400 else None
    except ValueError:
        return None

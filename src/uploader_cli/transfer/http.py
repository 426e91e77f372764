"""HTTP calls with errors of this package. The only import of `requests`.

Calls use a session's adapter directly: the session doubles the CPU time of a small call.
"""

from __future__ import annotations

import itertools
import json as jsonlib
import math
import os
import platform
import re
import secrets
import socket
import ssl
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import HTTPException, RemoteDisconnected
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests import exceptions as rex
from requests.adapters import HTTPAdapter
from requests.cookies import get_cookie_header
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from uploader_cli import errors
from uploader_cli.core.events import CallMade
from uploader_cli.core.names import escaped
from uploader_cli.core.protocol import error_sentence, parse_http_date, whole
from uploader_cli.core.tus import trusts
from uploader_cli.named_files import check_input
from uploader_cli.settings import mask, remember_user
from uploader_cli.transfer.wire import Sockets, pool_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.bodies import Body

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
BLOCK = 1 << 20  # bytes read from a body at a time: urllib3's 16 KiB halve the throughput
ANSWER_BLOCK = 64 << 10
MOST_ANSWER = 32 << 20  # most bytes of a decompressed answer; stored files may be larger
ANSWER, ANSWER_PER_FILE = 1 << 20, 32 << 10  # most bytes for a call, and for each file that its answer describes
TOKENS, TOKENS_PER_FILE = 8192, 64
"""Most strings, separators and brackets of an answer: each takes up to 100 bytes of memory, and 2 bytes to send."""
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # `--ca-bundle` has precedence
MOST_REASON = 500  # most bytes of a refusal in plain text
BAD_REQUEST, PROXY_AUTHENTICATION = 400, 407
HANDSHAKE_LIMIT = 2.0  # seconds to find out whether a port speaks TLS
REQUEST_ID = "X-Request-ID"
# Codes of certificates that are refused (OpenSSL's `X509_V_ERR_…`); UNTRUSTED: their authority is unknown.
BAD_TIME, BAD_NAME, SELF_SIGNED = {9: "is not valid yet", 10: "has expired"}, (62, 64), 18
UNTRUSTED = (2, 19, 20, 21, 27)
CREDENTIALS = {"authorization", "cookie", "x-request-id", "x-session-secret"}
"""Headers that are not sent to other hosts, as those of `--header`."""
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(  # a lost peer is noticed after a minute
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


class RequestIds:
    """Request ids, reports of calls and the round trip, shared by the clients of a run."""

    round_trip: float | None = None  # seconds of the fastest call without a body, connecting excluded
    heard = False  # whether an answer shows that the server speaks the scheme of its URL

    def __init__(self, run: str = "", tell: Callable[[CallMade], None] = lambda _call: None) -> None:
        """`run` begins each id; it is random by default."""
        self._run = run or secrets.token_hex(8)
        self._numbers = itertools.count(1)  # `next` is atomic
        self.tell = tell

    def new(self) -> str:
        """Return a unique id."""
        return f"{self._run}-{next(self._numbers):06d}"

    def answered(self, seconds: float) -> None:
        """Record the time from a request without a body to its answer."""
        if self.round_trip is None or seconds < self.round_trip:
            self.round_trip = seconds

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with an id, unless they have one."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: headers, JSON body (else None), and the `X-Request-ID` of the request, if any."""

    status: int
    headers: Mapping[str, str]
    body: object
    url: str
    request_id: str = ""
    sent: int = 0  # bytes of the request's body
    authorized: bool = False  # whether the request had an `Authorization`
    plain: str = ""  # a refusal in plain text, as tus servers give it

    @property
    def sentence(self) -> str:
        """The server's reason for a refusal, on one line, without secrets; empty without one."""
        return mask(error_sentence(self.body) or " ".join(escaped(self.plain).split()))

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300


class Http:
    """A client with persistent connections. Credentials are sent only to the origin of `Settings.trusted_url`."""

    def __init__(self, settings: Settings, ids: RequestIds | None = None) -> None:
        self.request_ids = ids or RequestIds()
        self.sockets = Sockets(self.request_ids.answered)
        self.session = make_session(settings, self.sockets, self.request_ids)
        self.settings = settings
        self._trusted = settings.trusted_url
        # What names the server, and the proxy if there is one: the flag, variable or config key as the user gave it.
        self.option = settings.given_as("upload_url" if settings.upload_url else settings.target_option)
        self.proxy_option = settings.given_as("proxy") if settings.proxy else _proxy_variable(settings.target_url)

    def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float = READ_TIMEOUT,
        files: int = 0,
    ) -> Answer:
        """Send one request, without retries and redirects. Its answer describes at most `files` files.

        Raise `NetworkError` (`body_sent`: the whole request was sent), `ProtocolError` for an answer that is larger
        than that needs (a refusal counts without its body), and what `body.check` and `body.read` raise.
        """
        own, data = dict(headers or {}), cast("Any", body)
        if body is not None:
            own["Content-Type"] = body.content_type
        if json is not None:
            own["Content-Type"] = "application/json"
            data = jsonlib.dumps(json, allow_nan=False).encode()
        try:
            response = self._send(method, url, own, data, read_timeout, files=files)
            content = _parsed(response, TOKENS + TOKENS_PER_FILE * files)
        except (rex.RequestException, OSError) as error:
            raise self._failure(error, url, body) from error
        if response.status_code == PROXY_AUTHENTICATION:
            raise self._no_proxy_password(url)
        if response.status_code == BAD_REQUEST and content is None:
            self._check_scheme(url)
        self.request_ids.heard = True
        answer = _answer(response, content)
        if (
            content is None
            and not answer.ok
            and answer.headers.get("Content-Type", "").lower().startswith("text/plain")
        ):
            return replace(answer, plain=response.content[:MOST_REASON].decode(errors="replace"))
        return answer

    @contextmanager
    def stream(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """`GET url`: yield the answer and an iterator over its body. Raise as `request` does."""
        self.sockets.answer_time = math.inf
        try:
            with self._send("GET", url, headers, None, READ_TIMEOUT, stream=True) as response:
                yield _answer(response, None), response.iter_content(BLOCK)
        except (rex.RequestException, OSError) as error:
            raise self._error(error, url, body_sent=True) from error
        finally:
            del self.sockets.answer_time

    def _send(
        self,
        method: str,
        url: str,
        own: Mapping[str, str],
        data: Any,
        read_timeout: float,
        *,
        stream: bool = False,
        files: int = 0,
    ) -> requests.Response:
        """Make one call as the session would; its `own` headers have precedence."""
        session, request = self.session, _Request()
        request.most = min(ANSWER + ANSWER_PER_FILE * files, MOST_ANSWER)
        request.method, request.url, request.body = method, _dialled(url), data
        request.headers = CaseInsensitiveDict(cast("dict[str, str]", session.headers))
        if not trusts(self._trusted, request.url):
            for name in self.settings.headers:
                request.headers.pop(name, None)
            own = {name: value for name, value in own.items() if name.lower() not in CREDENTIALS}
        elif session.cookies and "Cookie" not in session.headers:
            cookie = get_cookie_header(session.cookies, request)  # type: ignore[no-untyped-call]
            request.headers.update({"Cookie": cookie} if cookie else {})
        request.headers.update(own)
        if data is not None or method in ("POST", "PATCH"):
            request.headers["Content-Length"] = str(len(data or b""))
        response = session.get_adapter(request.url).send(
            request,
            stream=stream,
            timeout=(CONNECT_TIMEOUT, read_timeout),
            verify=session.verify or False,
            cert=session.cert,
            proxies=session.proxies,
        )
        if response.cookies:
            session.cookies.update(response.cookies)
        return response

    def _failure(self, error: Exception, url: str, body: Body | None) -> errors.UploaderError:
        """Return the error of a request, and free what the frames of `error` keep: its body and the answer.

        urllib3 leaves cycles of errors and frames, which the rare garbage collections would keep for long.
        """
        for item in _chain(error):
            traceback.clear_frames(item.__traceback__)
        if body is not None:
            body.close()
        failure = self._error(error, url, body_sent=body.through if body is not None else True)
        if isinstance(failure, errors.ConnectionLost) and not isinstance(failure, errors.TimedOut):
            self._check_scheme(url)
        return failure

    def _error(self, error: Exception, url: str, *, body_sent: bool) -> errors.UploaderError:
        if isinstance(error, rex.MissingSchema | rex.InvalidSchema | rex.InvalidURL):
            return errors.UsageError(f"{self.option}: {url} is no URL that can be reached: {error}")
        where, why = _origin(url), _why(error)
        if isinstance(error, _AnswerTooLarge):
            return errors.ProtocolError(f"the answer of {where} is too large: {error}")
        if "Tunnel connection failed: 407" in why:
            return self._no_proxy_password(url)
        if isinstance(error, rex.ProxyError) and _has_no_tunnel(error):
            why = why.replace("Tunnel connection failed:", "it answered")
            hint = f"check {self.proxy_option}"
            return errors.ConnectFailed(f"the proxy did not connect to {where}: {why}", hint=hint)
        reasons = " ".join(str(getattr(item, "reason", "")) for item in _chain(error))
        if isinstance(error, rex.SSLError) or "CERTIFICATE_REQUIRED" in reasons:  # with TLS 1.3 after the handshake
            cause, hint = self.tls_cause(error, urlsplit(url).hostname or "")
            failed = errors.ConnectFailed(f"no secure connection to {where}: {cause}", hint=hint)
            failed.retryable = _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
            return failed
        no_name = _has(error, socket.gaierror, UnicodeError)
        if _has(error, UnicodeError):  # its words depend on the version of Python
            why = f"{urlsplit(url).hostname} is not a host name"
        if no_name or _has(error, NewConnectionError) or isinstance(error, rex.ConnectTimeout):
            hint = f"check the name in {self.option}" if no_name else "is the server running there?"
            return errors.ConnectFailed(f"no connection to {where}: {why}", hint=hint)
        if _has(error, Urllib3Timeout, TimeoutError):
            what = "did not answer in time" if body_sent else "stopped taking bytes"
            return errors.TimedOut(f"{where} {what}", body_sent=body_sent)
        if isinstance(error, rex.ChunkedEncodingError | rex.ContentDecodingError):
            return errors.ConnectionLost(f"the answer of {where} broke off", body_sent=True)
        if _has(error, HTTPException) and not _has(error, RemoteDisconnected):
            hint = f"check {self.option}: its port, and whether a server for HTTP is there"
            return errors.ConnectionLost(f"the answer of {where} is not HTTP", hint=hint, body_sent=body_sent)
        return errors.ConnectionLost(f"the connection to {where} broke: {why}", body_sent=body_sent)

    def tls_cause(self, error: Exception, host: str) -> tuple[str, str]:
        """Return in words why the handshake with `host` failed, and the fix. Raise `UsageError` for a local file."""
        found = next((item for item in reversed(_chain(error)) if isinstance(item, ssl.SSLError)), ssl.SSLError())
        settings = self.settings
        if found.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
            raise errors.UsageError(f"{_bundle(settings)}: the file contains no certificate", hint="give a PEM file")
        if "PEM lib" in str(found):
            cause = f"{settings.given_as('client_cert')}: the file has no certificate with its key"
            raise errors.UsageError(cause, hint="give a PEM file with both")
        if isinstance(found, ssl.SSLCertVerificationError):
            return self._distrust(found, host)
        reason = (found.reason or "").replace("_", " ").lower()
        if found.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "this port does not speak TLS", f"use http:// in {self.option}, or the port with TLS"
        if "certificate required" in reason or "handshake failure" in reason:
            return "the server may require a client certificate", "give one with --client-cert"
        if "protocol version" in reason or "unsupported protocol" in reason:
            return "the server and this machine have no TLS version in common", "have TLS 1.2 or newer enabled there"
        hint = "check that the server speaks TLS there"
        if "eof" in reason or not reason:
            hint += ", and whether it requires a client certificate (--client-cert)"
            return "the server ended the handshake", hint
        return f"the handshake failed ({reason})", hint

    def _distrust(self, found: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
        if found.verify_code in BAD_TIME:
            cause = f"the server's certificate {BAD_TIME[found.verify_code]}"
            return cause, "have the certificate renewed, or correct this machine's clock"
        if found.verify_code in BAD_NAME:
            return f"the server's certificate is not for {host}", f"use a name of the certificate in {self.option}"
        hint = "name {} with --ca-bundle; --insecure gives up the protection"
        if found.verify_code == SELF_SIGNED:
            return "the server's certificate is self-signed", hint.format("the certificate itself")
        why = "" if found.verify_code in UNTRUSTED else f" ({found.verify_message})"
        where = "" if self.session.verify is True else f": it is not in the file of {_bundle(self.settings)}"
        cause = f"the authority of the server's certificate is unknown{where}{why}"
        return cause, hint.format("the authority's certificate")

    def _no_proxy_password(self, url: str) -> errors.ProxyUnauthorized:
        text = f"the proxy asks for a name and password (407) for {_origin(url)}"
        return errors.ProxyUnauthorized(text, hint=f"put name and password into {self.proxy_option}")

    def _check_scheme(self, url: str) -> None:
        """Raise `ConnectFailed` if `url` is http, nothing was heard from the server yet, and its port speaks TLS."""
        if url.startswith("http://") and not (self.request_ids.heard or self.session.proxies) and _speaks_tls(url):
            secure = _origin(url).replace("http", "https", 1)
            failed = errors.ConnectFailed(f"{_origin(url)}: this port speaks TLS: use https", hint=f"use {secure}")
            failed.retryable = False
            raise failed

    def shut(self) -> None:
        """End every running call, from another thread."""
        self.sockets.shut()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def _answer(response: requests.Response, body: object) -> Answer:
    own = response.request.headers
    known = (own.get(REQUEST_ID, ""), int(own.get("Content-Length", 0)), "Authorization" in own)
    return Answer(response.status_code, response.headers, body, response.request.url or "", *known)


@lru_cache(64)
def _dialled(url: str) -> str:
    """Return `url` as urllib3 uses it. Raise what `requests` raises for a URL."""
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url or ""


def _bundle(settings: Settings) -> str:
    """Return what names the trusted certificates: the option as given, or the environment variable."""
    if settings.ca_bundle:
        return settings.given_as("ca_bundle")
    return next(filter(os.environ.get, CA_VARIABLES), "--ca-bundle")


def _proxy_variable(url: str) -> str:
    """Return the environment variable with the proxy for `url`."""
    name = f"{urlsplit(url).scheme}_proxy"
    names = (name, name.upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "the system's settings")


def make_session(settings: Settings, sockets: Sockets, ids: RequestIds | None = None) -> requests.Session:
    """Make a `requests` session with the settings' certificates, proxy and headers."""
    session = requests.Session()
    # No redirect is followed: the headers of `--header` would go to any host.
    session.get_redirect_target = lambda _answer: None  # type: ignore[assignment, method-assign]
    session.trust_env = False  # looked up once: 120 µs per request otherwise
    environment = requests.utils.get_environ_proxies(settings.target_url) if not settings.proxy else {}
    for url in environment.values():
        with suppress(ValueError):
            remember_user(url)
    session.proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else dict(environment)
    trusted = settings.ca_bundle or next(filter(None, map(os.environ.get, CA_VARIABLES)), None)
    if trusted:
        check_input(Path(trusted), _bundle(settings), directory=True)
    session.verify = str(trusted) if trusted else True
    if settings.insecure:  # the run warns once
        session.verify = False
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if settings.client_cert:
        check_input(settings.client_cert, settings.given_as("client_cert"))
        session.cert = str(settings.client_cert)
    session.headers["User-Agent"] = f"uploader ({platform.system()})"
    session.headers.update(dict(settings.headers))
    adapter = _Adapter(settings.trusted_url, sockets, ids or RequestIds())
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Adapter(HTTPAdapter):
    def __init__(self, home: str, sockets: Sockets, ids: RequestIds) -> None:
        self._home, self._ids = home, ids
        self._pools = pool_classes(sockets)
        self._last: tuple[str, Any] = ("", None)
        super().__init__(max_retries=0)

    def send(self, request: requests.PreparedRequest, stream: bool = False, **how: Any) -> requests.Response:  # type: ignore[override]
        """Send one call. An id from `--header` or the realtime channel stays."""
        url = request.url or ""
        if REQUEST_ID not in request.headers and trusts(self._home, url):
            request.headers[REQUEST_ID] = self._ids.new()
        status = error = None
        began = time.monotonic()
        try:
            response = super().send(request, stream=stream, **how)
            status = response.status_code
            if not stream:
                _read(response, getattr(request, "most", MOST_ANSWER))  # frees the connection
            return response
        except BaseException as failure:
            error = _why(failure) or type(failure).__name__
            raise
        finally:
            took = round(time.monotonic() - began, 6)
            shown = _origin(url) + urlsplit(url).path  # a query may carry secrets
            carries = not isinstance(request.body, bytes | str | None)
            request_id = request.headers.get(REQUEST_ID)
            self._ids.tell(CallMade(request.method or "", shown, request_id, status, took, error, carries))

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the last pool for the same origin."""
        origin = _origin(request.url or "")
        known, pool = self._last
        if known != origin or pool.pool is None:
            pool = super().get_connection_with_tls_context(request, *args, **kwargs)
            self._last = origin, pool
        return pool

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, blocksize=BLOCK, socket_options=SOCKET_OPTIONS)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, blocksize=BLOCK, socket_options=SOCKET_OPTIONS)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


class _Request(requests.PreparedRequest):
    most: int  # bytes of the decompressed answer


class _AnswerTooLarge(rex.RequestException):
    pass


def _read(response: requests.Response, most: int) -> None:
    """Read the whole decompressed body. Beyond `most` bytes raise `_AnswerTooLarge`; a refusal counts without it."""
    pieces, size = [], 0
    for piece in response.iter_content(ANSWER_BLOCK):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            response.close()
            pieces = []
            if response.ok:
                raise _AnswerTooLarge(f"more than {most >> 20} MiB")
            break
    response._content = b"".join(pieces)


def _parsed(response: requests.Response, most: int) -> object:
    """Return the JSON body, None without one. Beyond `most` tokens raise as `_read` does."""
    content = response.content
    if sum(map(content.count, (b",", b"[", b"{"))) > most:  # names may have commas: look closer
        tokens = sum(1 for _ in itertools.islice(_TOKEN.finditer(content), most + 1))
        if tokens > most and response.ok:
            raise _AnswerTooLarge(f"more than {most:,} items")
        if tokens > most:
            return None
    try:
        return cast("object", jsonlib.loads(content)) if content else None
    except (ValueError, RecursionError):
        return None


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[,\[{]', re.DOTALL)  # never tries again: an answer may be made for that


def _speaks_tls(url: str) -> bool:
    """Return whether a TLS handshake succeeds; nothing is sent after it."""
    parts, unverified = urlsplit(url), ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), HANDSHAKE_LIMIT) as plain:
            unverified.wrap_socket(plain, server_hostname=parts.hostname).close()
    except OSError:
        return False
    return True


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error, its arguments, reasons and causes, outermost first.

    Errors of this package are left out: they belong to an earlier call.
    """
    chain = [error]
    for item in chain:
        inner = (*item.args, getattr(item, "reason", None), item.__cause__, item.__context__)
        foreign = [x for x in inner if isinstance(x, BaseException) and not isinstance(x, errors.UploaderError)]
        chain.extend(x for x in foreign if not any(x is known for known in chain))
    return chain


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(item, kinds) for item in _chain(error))


def _has_no_tunnel(error: BaseException) -> bool:
    if _has(error, NewConnectionError, ConnectTimeoutError) or "Tunnel connection failed" in _why(error):
        return True
    return _has(error, ssl.SSLError) and not _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)


def _why(error: BaseException) -> str:
    """Return the operating system's message, else that of the innermost error, on one line."""
    chain = _chain(error)
    system = next((item.strerror for item in chain if isinstance(item, OSError) and item.strerror), None)
    return " ".join((system or str(chain[-1])).split())[:200]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def redirect_target(answer: Answer) -> str | None:
    """Return the absolute target of a 3xx answer; None if invalid."""
    location = answer.headers.get("Location")
    try:
        return urljoin(answer.url, location) if location and 300 <= answer.status < 400 else None
    except ValueError:
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return `Retry-After` in seconds; None if missing or invalid."""
    value = headers.get("Retry-After") or ""
    seconds = whole(value)
    if seconds is not None:
        return float(seconds)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - time.time())

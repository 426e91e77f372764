"""HTTP calls with errors of this package: what goes with a request, where it goes, and what an answer may be."""

from __future__ import annotations

import itertools
import json as jsonlib
import math
import platform
import re
import secrets
import time
import traceback
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

from uploader_cli import errors
from uploader_cli.core.events import CallMade
from uploader_cli.core.origins import origin_of, trusts
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.connection import AnswerTooLarge, BrokenOff, NotReachable, Sockets, intact
from uploader_cli.transfer.dialler import Dialler, Route, dialled
from uploader_cli.transfer.failures import Failures, speaks_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.connection import Fields, OnInterim, Response
    from uploader_cli.transfer.cookies import Cookies

REQUEST_ID = "X-Request-ID"
AS_STORED = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}
"""Headers that ask for a stored file itself: a proxy that compresses answers removes their length, and a cache may have
what the server has lost."""
READ_TIMEOUT = 30.0
REDIRECTS = 3  # most 307 and 308 in a row that are followed, by tus calls only
BLOCK = 1 << 20  # bytes read from a stored file at a time
ANSWER_BLOCK = 64 << 10
MOST_ANSWER = 32 << 20  # most bytes of a decompressed answer; stored files may be larger
ANSWER, ANSWER_PER_FILE = 1 << 20, 32 << 10  # most bytes for a call, and for each file that its answer describes
TOKENS, TOKENS_PER_FILE = 8192, 64
"""Most strings, separators and brackets of an answer: each takes up to 100 bytes of memory, and 2 bytes to send."""
MOST_TEXT = 2000  # most bytes of a refusal in plain text
BAD_REQUEST, PROXY_AUTHENTICATION = 400, 407
CREDENTIALS = {"authorization", "cookie", "x-request-id", "x-session-secret"}
"""Headers that are not sent to other hosts, as those of `--header`."""
TRANSPORT_ERRORS = (OSError, HTTPException)
"""What is raised for requests that fail."""
_CANONICAL = {name.lower(): name for name in ("Authorization", "Cookie", "Host", REQUEST_ID)}


class Received(NamedTuple):
    """An answer whose body is still to be read, decoded. Reading it raises `BrokenOff`, or a `TimeoutError`."""

    status: int
    headers: Fields
    pieces: Iterator[bytes]


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
        return f"{self._run}-{next(self._numbers):06d}"

    def answered(self, seconds: float) -> None:
        if self.round_trip is None or seconds < self.round_trip:
            self.round_trip = seconds

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with an id, unless they have one."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}

    def report(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        began: float,
        status: int | None,
        error: BaseException | None = None,
        body: object = None,
    ) -> None:
        """Report a call that `began` at a time of `time.monotonic`; a `body` that is not in memory is that of files."""
        took = round(time.monotonic() - began, 6)
        shown = origin_of(url) + urlsplit(url).path  # a query may carry secrets
        words = None if error is None else errors.why(error) or type(error).__name__
        carries = not isinstance(body, bytes | str | None)
        self.tell(CallMade(method, shown, headers.get(REQUEST_ID) or None, status, took, words, carries))


class HttpClient:
    """A client with persistent connections. Credentials are sent only to the origin of `Settings.trusted_url`."""

    def __init__(self, settings: Settings, ids: RequestIds | None = None) -> None:
        self.request_ids = ids or RequestIds()
        self.sockets = Sockets(self.request_ids.answered)
        self.dialler = Dialler(settings, self.sockets)
        self.failures = Failures(settings, self.dialler.ca_option, are_own=self.dialler.verify is not True)
        self.settings, self.option = settings, self.failures.option
        usual = {"User-Agent": f"uploader ({platform.system()})", "Accept-Encoding": "gzip, deflate", "Accept": "*/*"}
        usual["Connection"] = "keep-alive"
        own = {_CANONICAL.get(name.lower(), name): value for name, value in settings.headers.items()}
        self._usual, self.headers = usual, merged(usual, own)
        self._origins: dict[str, tuple[bool, dict[str, str]]] = {}  # whether trusted; the headers of all requests there
        self._cookies: Cookies | None = None

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
        on_interim: OnInterim | None = None,
    ) -> Answer:
        """Send one request, without retries and redirects. Its answer describes at most `files` files.

        `on_interim` gets the interim answers (`connection.answer`). Raise `NetworkError` (`body_sent`: the whole
        request was sent), `ProtocolError` for an answer that is larger than that needs (a refusal counts without its
        body), and what `body.checkpoint` and `body.read` raise.
        """
        own, data = dict(headers or {}), cast("bytes | Body | None", body)
        if body is not None:
            own["Content-Type"] = body.content_type
        if json is not None:
            own["Content-Type"] = "application/json"
            data = jsonlib.dumps(json, allow_nan=False).encode()
        if data is not None or method in ("POST", "PATCH"):
            own["Content-Length"] = str(len(data or b""))
        url, route, sent = self._described(url, own)
        most, tokens = min(ANSWER + ANSWER_PER_FILE * files, MOST_ANSWER), TOKENS + TOKENS_PER_FILE * files
        began, status = time.monotonic(), None
        try:
            with self.exchange(method, url, route, sent, data, read_timeout, on_interim=on_interim) as received:
                status, fields = received.status, received.headers
                content = _read(received.pieces, most, status)
            parsed = _parsed(content, tokens, status)
        except BaseException as error:
            self.request_ids.report(method, url, sent, began, status, error, data)
            if isinstance(error, TRANSPORT_ERRORS):
                raise self._failure(error, url, body, time.monotonic() - began) from error
            raise
        self.request_ids.report(method, url, sent, began, status, body=data)
        if "Set-Cookie" in fields:
            self._keep_cookies(url, fields)
        if status == PROXY_AUTHENTICATION:
            raise self.failures.no_proxy_password(url)
        if status == BAD_REQUEST and parsed is None:
            self._check_scheme(url)
        self.request_ids.heard = True
        base = self.settings.target_url
        return _answer(status, fields, url, base, sent, parsed, _text(content) if parsed is None else "")

    @contextmanager
    def stream(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """`GET url`: yield the answer and an iterator over its body. Raise as `request` does."""
        url, route, sent = self._described(url, headers)
        began, status = time.monotonic(), None
        self.sockets.answer_time = math.inf
        try:
            with self.exchange("GET", url, route, sent, None, READ_TIMEOUT, block=BLOCK) as received:
                status = received.status
                self.request_ids.report("GET", url, sent, began, status)
                yield _answer(status, received.headers, url, self.settings.target_url, sent), received.pieces
        except BaseException as error:
            if status is None:
                self.request_ids.report("GET", url, sent, began, status, error)
            if isinstance(error, TRANSPORT_ERRORS):
                seconds = time.monotonic() - began
                raise self.failures.of(error, url, seconds=seconds, body_sent=True) from error
            raise
        finally:
            del self.sockets.answer_time

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        route: Route,
        headers: Mapping[str, str],
        data: bytes | Body | None,
        timeout: float,
        *,
        block: int = ANSWER_BLOCK,
        on_interim: OnInterim | None = None,
    ) -> Iterator[Received]:
        """Send a request as it is given, and yield its answer, read in pieces of at most `block` bytes."""
        with self.dialler.connection(route) as connection:
            connection.write(method, route.target(url), headers, data)
            response = connection.answer(method, timeout, on_interim)
            yield Received(response.status, response.headers, _decoded(response, block))
            if not response.isclosed():
                connection.close()

    def connect(self, url: str) -> None:
        """Connect, so that the next request finds a connection. That request reports what fails here."""
        with suppress(*TRANSPORT_ERRORS, errors.UploaderError):
            _, route, _ = self._described(url, {})
            with self.dialler.connection(route):
                pass

    def _described(self, url: str, own: Mapping[str, str]) -> tuple[str, Route, dict[str, str]]:
        """Return the URL as it is dialled, the way there, and all headers; the `own` of a call have precedence."""
        try:
            address = dialled(url)
            route = self.dialler.route(address)
        except NotReachable as error:
            raise errors.UsageError(f"{self.option}: {url} is no URL that can be reached: {error}") from error
        if route.origin not in self._origins:
            trusted = trusts(self.settings.trusted_url, f"{route.origin}/")
            self._origins[route.origin] = trusted, merged(route.headers, self.headers if trusted else self._usual)
        trusted, first = self._origins[route.origin]
        if not trusted:
            return address, route, merged(first, {n: v for n, v in own.items() if n.lower() not in CREDENTIALS})
        if self._cookies is not None and "Cookie" not in first:
            first = first | self._cookies.header(address)
        sent = merged(first, own)
        if REQUEST_ID not in sent:
            sent[REQUEST_ID] = self.request_ids.new()
        return address, route, sent

    def _keep_cookies(self, url: str, fields: Fields) -> None:
        from uploader_cli.transfer.cookies import Cookies

        self._cookies = self._cookies or Cookies()
        self._cookies.keep(url, fields)

    def _failure(self, error: BaseException, url: str, body: Body | None, seconds: float) -> errors.UploaderError:
        """Return the error of a request, and free what the frames of `error` keep: its body and the answer.

        Errors and frames may be cycles, which the rare garbage collections would keep for long.
        """
        for item in errors.chain(error):
            traceback.clear_frames(item.__traceback__)
        if body is not None:
            body.close()
        sent = body.through if body is not None else True
        failure = self.failures.of(error, url, seconds=seconds, body_sent=sent)
        if isinstance(failure, errors.ConnectionLost) and not isinstance(failure, errors.TimedOut):
            self._check_scheme(url)
        return failure

    def _check_scheme(self, url: str) -> None:
        """Raise `ConnectFailed` if `url` is http, nothing was heard from the server yet, and its port speaks TLS."""
        may_ask = url.startswith("http://") and not (self.sockets.are_shut or self.dialler.proxies)
        if may_ask and not self.request_ids.heard and speaks_tls(url):
            secure = origin_of(url).replace("http", "https", 1)
            failed = errors.ConnectFailed(f"{origin_of(url)}: this port speaks TLS: use https", hint=f"use {secure}")
            failed.retryable = False
            raise failed

    def shut(self) -> None:
        self.sockets.shut()

    def close(self) -> None:
        self.dialler.close()


def merged(base: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of both; those of `own` have precedence, whatever their case."""
    names = {name.lower() for name in own}
    return {**{name: value for name, value in base.items() if name.lower() not in names}, **own}


def _answer(
    status: int,
    fields: Fields,
    url: str,
    base: str,
    sent: Mapping[str, str],
    body: object = None,
    plain: str = "",
) -> Answer:
    known = (sent.get(REQUEST_ID, ""), int(sent.get("Content-Length", 0)), "Authorization" in sent)
    return Answer(status, fields, body, url, *known, plain if not 200 <= status < 300 else "", base, time.time())


def _text(content: bytes) -> str:
    """Return a body that is plain text; empty for a page, for JSON that was not parsed, and for other bytes."""
    try:
        return "" if content.lstrip()[:1] in (b"<", b"{", b"[") else content[:MOST_TEXT].decode()
    except UnicodeDecodeError:
        return ""


def _decoded(response: Response, size: int) -> Iterator[bytes]:
    """Yield the decoded body in pieces of at most `size` bytes. Raise `BrokenOff`, or `TimeoutError`."""
    if "Content-Encoding" not in response.headers:
        return intact(response.pieces(size))
    from uploader_cli.transfer.by_urllib3 import decoded

    return intact(decoded(response, size))


def _read(pieces: Iterator[bytes], most: int, status: int) -> bytes:
    """Return a whole body. Beyond `most` bytes raise `AnswerTooLarge`; a refusal counts without it, or with a part."""
    read, size = [], 0
    try:
        for piece in pieces:
            read.append(piece)
            size += len(piece)
            if size > most:
                raise AnswerTooLarge(f"more than {most >> 20} MiB")
    except (AnswerTooLarge, BrokenOff, TimeoutError) as error:
        if status < 400:
            raise
        return b"" if isinstance(error, AnswerTooLarge) else b"".join(read)
    return b"".join(read)


def _parsed(content: bytes, most: int, status: int) -> object:
    """Return the JSON of a body, None without one. Beyond `most` tokens raise as `_read` does."""
    if sum(map(content.count, (b",", b"[", b"{"))) > most:  # names may have commas: look closer
        tokens = sum(1 for _ in itertools.islice(_TOKEN.finditer(content), most + 1))
        if tokens > most and status < 400:
            raise AnswerTooLarge(f"more than {most:,} items")
        if tokens > most:
            return None
    try:
        return cast("object", jsonlib.loads(content)) if content else None
    except (ValueError, RecursionError):
        return None


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[,\[{]', re.DOTALL)  # never tries again: an answer may be made for that

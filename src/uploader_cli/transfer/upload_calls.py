"""How the calls of resumable uploads are sent: redirects, credentials, patience, and what a run learns of the server.

What tus says is in `protocols.tus_dialect`, what the IETF's draft says in `protocols.ietf_dialect`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import unknown_upload
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.confirmation import OUTAGES, Reading, reading_of
from uploader_cli.core.protocol import whole
from uploader_cli.transfer.answers import Answer, answer_error
from uploader_cli.transfer.http_client import AS_STORED, READ_TIMEOUT, REDIRECTS
from uploader_cli.transfer.protocols.dialect import LOCKED, Exchange, Known, Request, Server, Unusable
from uploader_cli.transfer.protocols.ietf_dialect import IetfDialect
from uploader_cli.transfer.protocols.machine import Append, Create, Locate, Position
from uploader_cli.transfer.protocols.tus_dialect import TusDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.capabilities import Capabilities
    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.protocols.dialect import Dialect
    from uploader_cli.transfer.protocols.machine import Call

SHORT_ANSWER = 256 << 10  # most bytes of a file's content that are read though only its length is wanted


def ignore(*_interim: object) -> None:
    """Ignore an interim answer."""


class UploadCalls:
    """Call an endpoint of resumable uploads; each thread has its own object.

    Upload URLs may be on another host: no credentials are sent there, and nothing at all from https to http
    (docs/resumable-uploads.md). Each call raises `NetworkError`, `AnswerError` by status, and `ProtocolError`.
    """

    def __init__(self, api: Api, terms: Terms, dialect: Dialect, chunk: ChunkSize | None = None) -> None:
        """It shares the connections, token and rate limit of `api`; `chunk` gets the limits of requests."""
        self._api, self._terms, self._dialect, self._chunk = api, terms, dialect, chunk
        self._own = Known()  # what this thread knows

    @property
    def endpoint(self) -> str:
        return self._dialect.server.endpoint

    @property
    def body_type(self) -> str:
        """The Content-Type of a chunk."""
        return self._dialect.body_type

    @property
    def has_created(self) -> bool:
        """Whether the server has created an upload in this run."""
        return self._api.has_created.is_set()

    def options(self) -> Capabilities:
        """Return what the server says that it can do.

        Raise `Unauthorized` for 401, after which a new token may help, and as `reach` does.
        """
        answer = self._answer(self._dialect.options())
        if not answer.ok and answer_error(answer).outage:
            self.reach()
        if answer.status == 401:
            raise self._dialect.refusal(answer)
        capabilities, known = self._dialect.capabilities(answer, self._known)
        self._learn(known)
        return capabilities

    def head(self, url: str) -> Position:
        """Return the server's offset. Raise `UploadGone` if it does not have the upload."""
        return self.ask(Locate(url))

    def read_last(self, url: str, size: int) -> Reading:
        """Ask for the last byte of a file of `size` bytes. Raise for what may pass: `NetworkError`, 429, a gateway.

        A short answer is read to its end. To close its connection costs more, and Node.js 20 may exit with an error if
        a connection closes just when an answer ends.
        """
        headers = {**self._api.authorization(), **AS_STORED} | ({"Range": f"bytes={size - 1}-"} if size else {})
        with self._api.stream(url, headers) as (answer, pieces):
            if answer.status in (429, *OUTAGES):
                raise answer_error(answer)
            reason = next(pieces, b"").decode("latin-1") if answer.status == 400 else ""
            length, total = answer.headers.get("Content-Length"), answer.headers.get("Content-Range", "")
            known = whole(length), whole(total.rpartition("/")[2])
            if known[0] is not None and known[0] <= SHORT_ANSWER:
                for _ in pieces:
                    pass
            return reading_of(answer.status, size, length=known[0], total=known[1], reason=reason)

    def reach(self) -> None:
        """Ask for an upload that does not exist. Raise `ServerFault` if a gateway answers in place of the server."""
        answer = self._answer(self._dialect.of_upload("HEAD", unknown_upload(self.endpoint)))
        if not answer.ok and (error := answer_error(answer)).outage:
            raise error

    def delete(self, url: str) -> None:
        """Delete an upload."""
        answer = self._answer(self._dialect.of_upload("DELETE", url))
        if not answer.ok:
            raise self._dialect.refusal(answer)

    def discard(self, url: str) -> None:
        """Delete an upload that has no complete file. Where that fails it expires."""
        with suppress(errors.AnswerError, errors.NetworkError, errors.ProtocolError):
            self.delete(url)

    def ask(self, call: Call, body: Body | None = None, on_url: Callable[[str], object] = ignore) -> Position:
        """Send the requests of a call until an answer tells the position. A chunk, its `body`, may be sent twice.

        `on_url` gets the URLs of a new upload that the server sends before its answer. Raise `SessionLost` for an
        unknown or ended session, `NotAnUploadServer` for a first answer that no upload server gives, `UploadGone` if
        the server does not have the upload.
        """
        dialect, announced, exchange = self._dialect, set[str](), Exchange(call, posts=self._own.posts)
        while True:
            answer = self._send(dialect.request(exchange), body, partial(self._announced, announced, on_url))
            if announced:
                exchange = replace(exchange, announced=frozenset(announced))
            self._learn(dialect.learned(exchange, answer, self._known))
            if (warning := dialect.lacks(exchange, answer)) is not None:
                self._api.warn_once(WarningCode.PROTOCOL, warning)
            came = dialect.judged(exchange, answer, self._known, body.sent if body is not None else 0)
            if isinstance(call, Create) and not self._api.has_created.is_set():
                self._api.has_created.set()
            if isinstance(came, Position):
                return came
            if isinstance(came, Unusable):
                for url in came.urls:
                    self.discard(url)
                raise came.error
            exchange, body = came, body if isinstance(came.call, Append) else None
            if body is not None:
                body.rewind()

    def _announced(
        self,
        urls: set[str],
        on_url: Callable[[str], object],
        asked: str,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        """Learn from an interim answer; add the URL of a new upload to `urls`."""
        known, url = self._dialect.interim(asked, status, headers, self._known)
        self._learn(known)
        if url is not None:
            urls.add(url)
            on_url(url)

    @property
    def _known(self) -> Known:
        """What is known of the server; the threads of a run share whether it takes creations and PATCH."""
        return replace(self._own, created=self._api.has_created.is_set(), patched=self._api.has_patched.is_set())

    def _learn(self, known: Known) -> None:
        if self._chunk is not None and known.limits != self._own.limits:
            self._chunk.restrict(known.limits.least, known.limits.most)
        if known.created and not self._api.has_created.is_set():  # to set it again costs more
            self._api.has_created.set()
        if known.patched and not self._api.has_patched.is_set():
            self._api.has_patched.set()
        self._own = known

    def _answer(self, request: Request) -> Answer:
        """Send a request that has no body, and return its answer. Raise `Locked` for a status that means that."""
        answer = self._send(request)
        if answer.status in self._dialect.server.retry_status:
            raise self._dialect.refusal(answer, LOCKED)
        return answer

    def _patience(self, request: Request) -> float:
        """Return the seconds to wait for an answer: as usual, or longer where the request completes an upload.

        Then a server may run a hook for minutes, and refuse the file at its end. Where only this answer tells whether
        the file is stored, it is waited for as long as the connection lives (`dialler.SOCKET_OPTIONS`), at most
        `--finish-timeout`. Nothing asks for the offset meanwhile: some servers end the request then.
        """
        if request.completes and not self._terms.tells_stored:
            return self._api.settings.finish_timeout
        return READ_TIMEOUT if request.timeout is None else request.timeout

    def _send(
        self,
        request: Request,
        body: Body | None = None,
        on_interim: Callable[[str, int, Mapping[str, str]], None] = ignore,
    ) -> Answer:
        """Send one request and follow 307 and 308, with its method and body.

        `on_interim` gets URL, status and headers of each interim answer to a request without a body.
        """
        method, url = request.method, request.url
        headers = {**request.headers, **self._api.may_write(request.session)}
        timeout = self._patience(request)
        if body is not None:
            body.content_type = request.body_type
        for _ in range(REDIRECTS + 1):
            own = {**self._api.authorization(), **headers}
            try:
                answer = self._api.request(
                    method,
                    url,
                    headers=own,
                    body=body,
                    read_timeout=timeout,
                    on_interim=partial(on_interim, url),
                )
            except errors.ConnectFailed as error:
                self._check_port(url, error)
                raise
            if not self._dialect.is_signed(answer):
                self._check_port(url)
            self._api.budget.note(answer.headers)
            target = answer.headers.get("Location") if answer.status in (307, 308) else None
            if not target:
                return answer
            url = self._dialect.server.at(url, target)
            if body is not None:
                body.rewind()
        raise errors.ProtocolError(f"{self.endpoint} redirects too often, last to {url}")

    def _check_port(self, url: str, cause: Exception | None = None) -> None:
        """Raise `ProtocolError` if `url` has the endpoint's host without its port, which is a mistake of a proxy."""
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        if ours.port and not theirs.port and (ours.scheme, ours.hostname) == (theirs.scheme, theirs.hostname):
            raise errors.ProtocolError(
                f"the server's Location points to {url}: its proxy drops the port"
                " (nginx: proxy_set_header Host $http_host)"
            ) from cause


def upload_calls(api: Api, terms: Terms, chunk: ChunkSize | None = None) -> UploadCalls:
    """Return the calls of resumable uploads; `chunk` is adapted to the limits that the server announces."""
    endpoint = api.settings.target_url if terms.tus is None else terms.tus.endpoint
    server = Server(endpoint, terms, api.server, api.option, tuple(api.settings.retry_status))
    is_ietf = terms.tus is not None and terms.tus.ietf
    return UploadCalls(api, terms, IetfDialect(server) if is_ietf else TusDialect(server), chunk)

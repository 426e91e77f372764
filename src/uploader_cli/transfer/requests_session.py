"""Sessions of `requests`, through the connections of a `Dialler`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from uploader_cli.core.origins import trusts
from uploader_cli.transfer.cookies import Cookies
from uploader_cli.transfer.dialler import Dialler
from uploader_cli.transfer.http_client import REQUEST_ID

if TYPE_CHECKING:
    from uploader_cli.transfer.connection import Response, Sockets
    from uploader_cli.transfer.http_client import HttpClient, RequestIds


class _Answer(urllib3.HTTPResponse):
    def __init__(self, answer: Response, connection: Any, held: ExitStack) -> None:
        known: dict[str, Any] = {"original_response": answer, "reason": answer.reason, "preload_content": False}
        super().__init__(answer, answer.headers, answer.status, answer.version, connection=connection, **known)
        self._held = held

    def release_conn(self) -> None:
        """Let the next call have the connection."""
        self._held.close()


class _Adapter(HTTPAdapter):
    def __init__(self, dialler: Dialler, home: str, ids: RequestIds) -> None:
        self._dialler, self._home, self._ids = dialler, home, ids
        super().__init__()

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """Send one call. An id from `--header` or the realtime channel stays."""
        method, url, began = request.method or "", request.url or "", time.monotonic()
        if REQUEST_ID not in request.headers and trusts(self._home, url):
            request.headers[REQUEST_ID] = self._ids.new()
        status = error = None
        try:
            answer = self._answer(request, timeout)
            status = answer.status
            return self.build_response(request, answer)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._ids.report(method, url, request.headers, began, status, error, request.body)

    def _answer(self, request: requests.PreparedRequest, timeout: float | None) -> _Answer:
        """Return an answer that holds its connection until it is read or closed."""
        route, body = self._dialler.route(request.url or ""), request.body
        with ExitStack() as held:
            try:
                connection = held.enter_context(self._dialler.connection(route))
                data = body.encode() if isinstance(body, str) else body
                headers = {**route.headers, **request.headers}
                connection.write(request.method or "", route.target(request.url or ""), headers, data)
                response = connection.answer(request.method or "", timeout)
            except TimeoutError as error:
                raise requests.Timeout(error, request=request) from error
            except (OSError, HTTPException) as error:
                raise requests.ConnectionError(error, request=request) from error
            return _Answer(response, connection, held.pop_all())

    def close(self) -> None:
        self._dialler.close()


def make_session(client: HttpClient, sockets: Sockets) -> requests.Session:
    """Make a session with connections of its own, on `sockets`, and the headers of `client`, for Socket.IO."""
    session = requests.Session()
    # No redirect is followed: the headers of `--header` would go to any host.
    session.get_redirect_target = lambda _answer: None  # type: ignore[assignment, method-assign]
    session.trust_env = False
    session.cookies = Cookies()  # type: ignore[assignment]  # any jar will do
    dialler = Dialler(client.settings, sockets)
    session.proxies, session.verify, session.cert = dialler.proxies, dialler.verify, dialler.cert
    session.headers.update(client.headers)
    adapter = _Adapter(dialler, client.settings.trusted_url, client.request_ids)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session

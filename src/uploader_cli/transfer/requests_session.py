"""Sessions of `requests`, through the connections of a `Dialler`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from uploader_cli.core.origins import trusts
from uploader_cli.transfer.cookies import Cookies
from uploader_cli.transfer.dialler import Dialler
from uploader_cli.transfer.request_ids import REQUEST_ID

if TYPE_CHECKING:
    from uploader_cli.transfer.connection import Sockets
    from uploader_cli.transfer.http_client import HttpClient
    from uploader_cli.transfer.request_ids import RequestIds


class _Adapter(HTTPAdapter):
    def __init__(self, dialler: Dialler, home: str, ids: RequestIds) -> None:
        self._dialler, self._home, self._ids = dialler, home, ids
        super().__init__()

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        return self._dialler.route(request.url or "").pool

    def cert_verify(self, *_: Any) -> None:
        """Leave the TLS options as the dialler has set them."""

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """Add the header that `http.client` would add."""
        request.headers.setdefault("Host", self._dialler.route(request.url or "").headers["Host"])

    def send(self, request: requests.PreparedRequest, *args: Any, **how: Any) -> requests.Response:
        """Send one call. An id from `--header` or the realtime channel stays."""
        method, url, began = request.method or "", request.url or "", time.monotonic()
        if REQUEST_ID not in request.headers and trusts(self._home, url):
            request.headers[REQUEST_ID] = self._ids.new()
        status = error = None
        try:
            response = super().send(request, *args, **how)
            status = response.status_code
            return response
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._ids.report(method, url, request.headers, began, status, error, request.body)

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

"""The side of `requests`, which makes the calls of the session API; imported at the first of them.

Its requests go through the connections of a `Dialler`, as those of files do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from uploader_cli.core.origins import trusts
from uploader_cli.transfer.cookies import Cookies
from uploader_cli.transfer.dialler import Dialler, NotReachable
from uploader_cli.transfer.request_ids import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.connection import Sockets
    from uploader_cli.transfer.request_ids import RequestIds


def dialled(url: str) -> str:
    """Return `url` as urllib3 uses it, without a fragment. Raise `NotReachable` with the words of `requests`."""
    request = requests.PreparedRequest()
    try:
        request.prepare_url(url, None)
    except requests.RequestException as error:
        raise NotReachable(str(error)) from error
    if not (request.url or "").lower().startswith(("http://", "https://")):
        raise NotReachable(f"No connection adapters were found for {url!r}")
    return (request.url or "").partition("#")[0]


class Adapter(HTTPAdapter):
    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        super().__init__()

    def call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> requests.Response:
        """Send one request; its answer is still to be read."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, body
        request.headers = CaseInsensitiveDict(headers)
        limits = (self._dialler.connect_timeout, timeout)
        return self.send(request, stream=True, timeout=limits, proxies=self._dialler.proxies)

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        return self._dialler.route(request.url or "").pool

    def cert_verify(self, *_: Any) -> None:
        """Leave the TLS options as the dialler has set them."""

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """Add the header that `http.client` would add."""
        request.headers.setdefault("Host", self._dialler.route(request.url or "").headers["Host"])

    def close(self) -> None:
        self._dialler.close()


class _Reporting(Adapter):
    """An adapter for a session that others use."""

    def __init__(self, dialler: Dialler, home: str, ids: RequestIds) -> None:
        self._home, self._ids = home, ids
        super().__init__(dialler)

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


def make_session(settings: Settings, headers: Mapping[str, str], sockets: Sockets, ids: RequestIds) -> requests.Session:
    """Make a session for the realtime channel that sends `headers` with all calls."""
    session = requests.Session()
    # No redirect is followed: the headers of `--header` would go to any host.
    session.get_redirect_target = lambda _answer: None  # type: ignore[assignment, method-assign]
    session.trust_env = False
    session.cookies = Cookies()  # type: ignore[assignment]  # any jar will do
    dialler = Dialler(settings, sockets)
    session.proxies, session.verify, session.cert = dialler.proxies, dialler.verify, dialler.cert
    session.headers.update(headers)
    adapter = _Reporting(dialler, settings.trusted_url, ids)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session

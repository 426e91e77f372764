"""What urllib3 does: TLS, ways through proxies, and compressed answers.

Imported where one of these is needed: the import takes longer than a small upload.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as Urllib3Timeout
from urllib3.util.proxy import connection_requires_http_tunnel

from uploader_cli.core.origins import origin_of
from uploader_cli.errors import chain
from uploader_cli.extras import need
from uploader_cli.transfer.connection import (
    SOCKET_OPTIONS,
    NoProxy,
    NotConnected,
    NotReachable,
    NotSecured,
    Response,
    dial,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from urllib3.connectionpool import HTTPConnectionPool

    from uploader_cli.transfer.connection import Sockets


_SOCKS = ("socks",)
"""The modules of the extra of this name."""


class _Dialling:
    """A connection of urllib3 that is known to `sockets` from its first packet on."""

    sockets: Sockets
    dialling: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        way = cast("HTTPConnection", self)
        made = dial((way._dns_host, way.port), way.timeout, self.sockets)  # noqa: SLF001
        # A duplicate: the TLS handshake uses another object, unknown until its end.
        self.dialling = made.dup()
        self.sockets.opened(self.dialling)
        return made

    def response_class(self, sock: Any, method: str | None = None) -> Response:
        """Return the answer of a proxy, which ends in time; `http.client` calls this as a class."""
        return Response(sock, method, cast("HTTPConnection", self).timeout, self.sockets.answer_time)


def make_manager(proxy: str | None, tls: Mapping[str, str], sockets: Sockets) -> urllib3.PoolManager:
    """Make what finds the ways to all origins of a scheme. Raise `NotReachable` where the proxy's URL is none."""
    how: dict[str, Any] = {"socket_options": SOCKET_OPTIONS, **tls}
    manager = urllib3.PoolManager(**how) if proxy is None else _proxied(proxy, how)
    bases: dict[str, type[HTTPConnectionPool]] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {name: _pool_class(kind, sockets) for name, kind in bases.items()}
    return manager


def _pool_class(kind: type[HTTPConnectionPool], sockets: Sockets) -> type[HTTPConnectionPool]:
    own: dict[str, object] = {"sockets": sockets}
    base: Any = kind.ConnectionCls
    if base not in (HTTPConnection, HTTPSConnection):
        own["_new_conn"] = base._new_conn  # SOCKS  # noqa: SLF001
    return type(kind.__name__, (kind,), {"ConnectionCls": type(base.__name__, (_Dialling, base), own)})


def _proxied(proxy: str, how: dict[str, Any]) -> urllib3.PoolManager:
    """Return a manager for a proxy, made by `requests`, which knows users and SOCKS."""
    from requests import RequestException
    from requests.adapters import HTTPAdapter

    if proxy.startswith("socks"):
        need("socks", _SOCKS, f"the proxy {origin_of(proxy)}", "PySocks")
    try:
        if not urlsplit(proxy).hostname:
            raise NotReachable("Please check proxy URL. It is malformed and could be missing the host.")
        return cast("urllib3.PoolManager", HTTPAdapter().proxy_manager_for(proxy, **how))
    except (RequestException, ValueError) as error:
        raise NotReachable(str(error)) from error


def needs_tunnel(pool: HTTPConnectionPool, scheme: str) -> bool:
    """Return whether the proxy of a pool, if it has one, connects to a server of `scheme`, and reads no request."""
    return connection_requires_http_tunnel(pool.proxy, pool.proxy_config, scheme)


def connected(pool: HTTPConnectionPool, timeout: float, *, tunnels: bool) -> socket.socket:
    """Connect to the server of a pool, by its proxy if it has one. Raise `NoProxy`, `NotSecured`, `NotConnected`."""
    way: Any = pool._new_conn()  # noqa: SLF001
    way.timeout = timeout
    try:
        with as_ours():
            if tunnels:
                pool._prepare_proxy(way)  # noqa: SLF001
            else:
                way.connect()
    except BaseException as error:
        way.close()
        if way.proxy is not None and not way.has_connected_to_proxy and isinstance(error, OSError | HTTPException):
            raise NoProxy("no connection through the proxy") from error
        if isinstance(error, ssl.SSLError):
            raise NotSecured("no handshake") from error
        raise
    finally:
        if way.dialling is not None:
            way.dialling.close()
    return cast("socket.socket", way.sock)


@contextmanager
def as_ours() -> Iterator[None]:
    """Raise errors of urllib3, and of `requests`, as those of our connections, which they cause."""
    try:
        yield
    except (OSError, HTTPException, HTTPError) as error:
        found, told = chain(error), cast("BaseException", error)
        for theirs, ours in _KINDS.items():
            if any(isinstance(item, theirs) for item in found):
                inner, told = told, ours(str(error))
                told.__cause__ = inner
        if told is not error:
            raise told from told.__cause__
        if isinstance(error, HTTPError):
            raise OSError(str(error)) from error
        raise


_KINDS: dict[tuple[type[BaseException], ...], type[OSError]] = {
    (Urllib3Timeout,): TimeoutError,
    (NewConnectionError, ConnectTimeoutError): NotConnected,
    (SSLError,): NotSecured,
    (ProxyError,): NoProxy,
}
"""Innermost first."""


def decoded(response: Any, size: int) -> Iterator[bytes]:
    """Yield the decoded body of a `Response`, or of an answer of urllib3, in pieces.

    Raise `TimeoutError`, or another `OSError`.
    """
    if isinstance(response, Response):
        known: dict[str, Any] = {"original_response": response, "reason": response.reason, "preload_content": False}
        response = urllib3.HTTPResponse(response, response.headers, response.status, response.version, **known)
    with as_ours():
        yield from response.stream(size, decode_content=True)

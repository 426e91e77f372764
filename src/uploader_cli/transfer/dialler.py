"""Where connections lead: the proxy, certificates and CA options of the settings and the environment.

The only import of urllib3's pools, which make the connections.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.proxy import connection_requires_http_tunnel

from uploader_cli.extras import need
from uploader_cli.named_files import check_input
from uploader_cli.settings import remember_user
from uploader_cli.transfer.connection import PersistentConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.connectionpool import HTTPConnectionPool

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.connection import Sockets

_PLAIN = re.compile(
    r"https?://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::(?:(?:[1-5]\d|6[0-4])\d{3}|[1-9]\d{0,3}))?"
    r"(?:/(?!\.)[\w~!$&'()*+,;=:@.-]*)+(?:\?[\w~!$&'()*+,;=:@./?-]*)?",
    re.ASCII,
)
"""URLs that `requests` would not change."""
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # `--ca-bundle` has precedence
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(  # a lost peer is noticed after a minute, also where sent bytes were not acknowledged
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 60_000),
        )
        if hasattr(socket, name)
    ),
]


class NotReachable(ValueError):
    """No request can be sent to a URL: it is no URL for HTTP, or the proxy for it is none."""


@dataclass(frozen=True, slots=True)
class Route:
    """How an origin is reached: what is put before the path in a request, and headers for all requests."""

    origin: str
    pool: HTTPConnectionPool
    prefix: str
    headers: dict[str, str]
    tunnels: bool

    def target(self, url: str) -> str:
        """Return what a request names for `url`."""
        return self.prefix + url[len(self.origin) :]


class Dialler:
    """The connections of one client, as proxy, certificates and CA options of the settings and environment have it."""

    connect_timeout = 10.0

    def __init__(self, settings: Settings, sockets: Sockets) -> None:
        """Raise `UsageError` for a certificate file that is not there."""
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
        self.proxies = proxies or _environment_proxies(settings.target_url)
        trusted = settings.ca_bundle or next(filter(None, map(os.environ.get, CA_VARIABLES)), None)
        if trusted:
            check_input(Path(trusted), ca_option(settings), directory=True)
        self.verify = not settings.insecure and (str(trusted) if trusted else True)
        if settings.insecure:  # the run warns once
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if settings.client_cert:
            check_input(settings.client_cert, settings.given_as("client_cert"))
        self.cert = str(settings.client_cert) if settings.client_cert else None
        self._sockets = sockets
        self._routes: dict[str, Route] = {}
        self._managers: dict[str, urllib3.PoolManager] = {}

    @cached_property
    def tls(self) -> dict[str, str]:
        """The TLS options of urllib3; by default the authorities of `certifi`, as in `requests`."""
        options = {"cert_reqs": "CERT_REQUIRED" if self.verify else "CERT_NONE"}
        if self.verify is True:
            import certifi

            options["ca_certs"] = certifi.where()
        elif self.verify:
            options["ca_cert_dir" if os.path.isdir(self.verify) else "ca_certs"] = self.verify
        return options | ({"cert_file": self.cert} if self.cert else {})

    def proxy(self, scheme: str) -> str | None:
        url = self.proxies.get(scheme) or self.proxies.get("all")
        return url if not url or "://" in url else f"http://{url}"

    def route(self, url: str) -> Route:
        """Return the way to the origin of `url`. Raise `NotReachable`."""
        origin = url[: url.index("/", len("https://"))]
        route = self._routes.get(origin)
        if route is None or route.pool.pool is None:  # urllib3 keeps ten pools
            route = self._routes[origin] = self._find(origin)
        return route

    def _find(self, origin: str) -> Route:
        parts = urlsplit(origin)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        headers = {"Host": f"[{host}]" if ":" in host else host}
        if port not in (None, {"http": 80, "https": 443}[parts.scheme]):
            headers["Host"] += f":{port}"
        pool = self.manager(parts.scheme).connection_from_host(parts.hostname, port, parts.scheme)
        tunnels = connection_requires_http_tunnel(pool.proxy, pool.proxy_config, parts.scheme)
        if pool.proxy is None or tunnels:
            return Route(origin, pool, "", headers, tunnels)
        prefix = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return Route(origin, pool, prefix, headers | dict(pool.proxy_headers), tunnels)

    def manager(self, scheme: str) -> urllib3.PoolManager:
        proxy = self.proxy(scheme)
        if scheme not in self._managers:
            tls = self.tls if scheme == "https" or (proxy or "").startswith("https:") else {}
            how: dict[str, Any] = {"socket_options": SOCKET_OPTIONS, **tls}
            manager = urllib3.PoolManager(maxsize=10, **how) if proxy is None else _proxied(proxy, how)
            bases: dict[str, type[HTTPConnectionPool]] = manager.pool_classes_by_scheme
            manager.pool_classes_by_scheme = {name: self._pool_class(kind) for name, kind in bases.items()}
            self._managers[scheme] = manager
        return self._managers[scheme]

    def _pool_class(self, kind: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        own: dict[str, object] = {"sockets": self._sockets}
        base: Any = kind.ConnectionCls
        if base not in (HTTPConnection, HTTPSConnection):
            own["_new_conn"] = base._new_conn  # SOCKS  # noqa: SLF001
        bases = (PersistentConnection,) if base is HTTPConnection else (PersistentConnection, base)
        return type(kind.__name__, (kind,), {"ConnectionCls": type(base.__name__, bases, own)})

    @contextmanager
    def connection(self, route: Route) -> Iterator[PersistentConnection]:
        """Yield a connection, dialled where none is idle. After an error it is closed."""
        connection: Any = route.pool._get_conn()  # noqa: SLF001
        try:
            if connection.is_closed:
                connection.timeout = self.connect_timeout
                if route.tunnels:
                    route.pool._prepare_proxy(connection)  # noqa: SLF001
                else:
                    connection.connect()
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            route.pool._put_conn(connection)  # noqa: SLF001

    def close(self) -> None:
        for manager in self._managers.values():
            manager.clear()
        self._routes.clear()


def ca_option(settings: Settings) -> str:
    """Return what names the trusted certificates: the option as given, or the environment variable."""
    if settings.ca_bundle:
        return settings.given_as("ca_bundle")
    return next(filter(os.environ.get, CA_VARIABLES), "--ca-bundle")


def dialled(url: str) -> str:
    """Return `url` as urllib3 uses it, without a fragment. Raise `NotReachable` with the words of `requests`."""
    return url if _PLAIN.fullmatch(url) else _prepared(url)


@lru_cache(64)
def _prepared(url: str) -> str:
    from requests import PreparedRequest, RequestException

    request = PreparedRequest()
    try:
        request.prepare_url(url, None)
    except RequestException as error:
        raise NotReachable(str(error)) from error
    if not (request.url or "").lower().startswith(("http://", "https://")):
        raise NotReachable(f"No connection adapters were found for {url!r}")
    return (request.url or "").partition("#")[0]


def _environment_proxies(url: str) -> dict[str, str]:
    """Return the proxies of the environment; none for a `url` that `no_proxy` excepts."""
    from urllib.request import getproxies

    if not getproxies():
        return {}
    from requests.utils import get_environ_proxies

    proxies: dict[str, str] = dict(get_environ_proxies(url))
    for proxy in proxies.values():
        with suppress(ValueError):
            remember_user(proxy)
    return proxies


def _proxied(proxy: str, how: dict[str, Any]) -> urllib3.PoolManager:
    """Return a manager for a proxy, made by `requests`, which knows users and SOCKS."""
    from requests import RequestException
    from requests.adapters import HTTPAdapter

    if proxy.startswith("socks"):
        need("socks", f"the proxy {urlsplit(proxy).scheme}://{urlsplit(proxy).netloc.rpartition('@')[2]}", "PySocks")
    try:
        if not urlsplit(proxy).hostname:
            raise NotReachable("Please check proxy URL. It is malformed and could be missing the host.")
        return cast("urllib3.PoolManager", HTTPAdapter().proxy_manager_for(proxy, **how))
    except (RequestException, ValueError) as error:
        raise NotReachable(str(error)) from error

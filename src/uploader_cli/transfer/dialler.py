"""Where connections lead: the proxy, certificates and CA options of the settings and the environment."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uploader_cli.core.masking import remember_user
from uploader_cli.core.origins import origin_of
from uploader_cli.named_files import check_input
from uploader_cli.transfer.connection import Connection, NotReachable, dial

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from urllib3 import PoolManager
    from urllib3.connectionpool import HTTPConnectionPool

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.connection import Sockets

_PLAIN = re.compile(
    r"https?://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::(?:(?:[1-5]\d|6[0-4])\d{3}|[1-9]\d{0,3}))?"
    r"(?:/(?!\.)[\w~!$&'()*+,;=:@.-]*)+(?:\?[\w~!$&'()*+,;=:@./?-]*)?",
    re.ASCII,
)
"""URLs that `requests` would not change."""
PORTS = {"http": 80, "https": 443}
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # `--ca-bundle` has precedence
MOST_ROUTES = 10  # origins to which connections are kept


@dataclass(frozen=True, slots=True)
class Route:
    """How an origin is reached: what is put before the path in a request, headers for all requests, connections."""

    origin: str
    address: tuple[str, int]
    headers: dict[str, str]
    prefix: str = ""
    pool: HTTPConnectionPool | None = None  # what connects, unless that is without TLS and proxy
    tunnels: bool = False
    idle: list[Connection] = field(default_factory=list)

    def target(self, url: str) -> str:
        """Return what a request names for `url`."""
        return self.prefix + url[len(self.origin) :]

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()


class Dialler:
    """The connections of one client, as proxy, certificates and CA options of the settings and environment have it."""

    connect_timeout = 10.0

    def __init__(self, settings: Settings, sockets: Sockets) -> None:
        """Raise `UsageError` for a certificate file that is not there."""
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
        self.proxies = proxies or _environment_proxies(settings.target_url)
        self.ca_option = _ca_option(settings)
        trusted = settings.ca_bundle or next(filter(None, map(os.environ.get, CA_VARIABLES)), None)
        if trusted:
            check_input(Path(trusted), self.ca_option, directory=True)
        self.verify = not settings.insecure and (str(trusted) if trusted else True)
        if settings.client_cert:
            check_input(settings.client_cert, settings.given_as("client_cert"))
        self.cert = str(settings.client_cert) if settings.client_cert else None
        self._sockets = sockets
        self._routes: dict[str, Route] = {}
        self._managers: dict[str, PoolManager] = {}

    @cached_property
    def _tls(self) -> dict[str, str]:
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
        if route is None:
            if len(self._routes) == MOST_ROUTES:
                self._routes.pop(next(iter(self._routes))).close()
            route = self._routes[origin] = self._find(origin)
        return route

    def _find(self, origin: str) -> Route:
        parts = urlsplit(origin)
        address = parts.hostname or "", parts.port or PORTS[parts.scheme]
        host = address[0].rstrip(".")
        headers = {"Host": f"[{host}]" if ":" in host else host}
        if address[1] != PORTS[parts.scheme]:
            headers["Host"] += f":{address[1]}"
        if parts.scheme == "http" and self.proxy("http") is None:
            return Route(origin, address, headers)
        from uploader_cli.transfer.by_urllib3 import needs_tunnel

        pool = self._manager(parts.scheme).connection_from_host(*address, parts.scheme)
        tunnels = needs_tunnel(pool, parts.scheme)
        if pool.proxy is None or tunnels:
            return Route(origin, address, headers, "", pool, tunnels)
        return Route(origin, address, headers | dict(pool.proxy_headers), origin_of(origin), pool)

    def _manager(self, scheme: str) -> PoolManager:
        from uploader_cli.transfer.by_urllib3 import make_manager

        if scheme not in self._managers:
            proxy = self.proxy(scheme)
            tls = self._tls if scheme == "https" or (proxy or "").startswith("https:") else {}
            self._managers[scheme] = make_manager(proxy, tls, self._sockets)
        return self._managers[scheme]

    @contextmanager
    def connection(self, route: Route) -> Iterator[Connection]:
        """Yield a connection, dialled where none is idle. After an error it is closed."""
        connection = None
        with suppress(IndexError):  # another thread may have it
            connection = route.idle.pop()
        if connection is None or not connection.is_idle:
            if connection is not None:
                connection.close()
            connection = Connection(self._dial(route), self._sockets)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            route.idle.append(connection)

    def _dial(self, route: Route) -> socket.socket:
        if route.pool is None:
            return dial(route.address, self.connect_timeout, self._sockets)
        from uploader_cli.transfer.by_urllib3 import connected

        return connected(route.pool, self.connect_timeout, tunnels=route.tunnels)

    def close(self) -> None:
        for route in self._routes.values():
            route.close()
        self._routes.clear()


def _ca_option(settings: Settings) -> str:
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

"""What trusted proxies forward: `X-Forwarded-For`, `-Host`, `-Proto` and `-Prefix`; the server's own address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from uploader_server.addresses import is_address, parsed_address

PREFIX = re.compile(r"(/[\w.~-]+)+")  # a path that is the same with and without percent-encoding
HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?", re.ASCII)
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto")
"""Headers of a proxy. One that is not trusted may have received the request in another scheme."""


class Proxies:
    def __init__(self, addresses: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(address) for address in addresses]

    def include(self, address: str) -> bool:
        parsed = parsed_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_scope(self, scope: Scope) -> Scope:
        """Return the scope with client address, host and `prefix` from a trusted proxy, whose address is `peer`.

        `origin` is the server's own as the client knows it, empty where a proxy does not tell the scheme.
        """
        client, given = scope.get("client"), Headers(scope=scope)
        if not self._networks or not client or not self.include(str(client[0])):
            direct = scope.get("http_version") != "1.0" and not any(name in given for name in FORWARDED)
            return {**scope, "origin": _origin(given, scope.get("scheme", "") if direct else "")}
        # Each proxy appends its client; only addresses appended by trusted proxies count.
        forwarded = reversed(_values(scope, "x-forwarded-for"))
        address = next((name for name in forwarded if not self.include(name)), "")
        host = _values(scope, "x-forwarded-host")[-1:]
        headers = scope["headers"]
        if host:
            headers = [*(pair for pair in headers if pair[0] != b"host"), (b"host", host[0].encode("latin-1"))]
        actual = (address if is_address(address) else client[0], client[1])
        prefix = "".join(Headers(scope=scope).getlist("x-forwarded-prefix")[-1:]).rstrip("/")
        known = prefix if PREFIX.fullmatch(prefix) else ""
        scope = {**scope, "peer": client, "client": actual, "headers": headers, "prefix": known}
        return {**scope, "origin": _origin(Headers(scope=scope), "".join(_values(scope, "x-forwarded-proto")[-1:]))}


def _origin(headers: Headers, scheme: str) -> str:
    """Return the origin of the server, empty without a `scheme` of HTTP. A page's own origin has the right scheme."""
    host, page = headers.get("host", ""), headers.get("origin", "")
    if page in (f"http://{host}", f"https://{host}"):
        return page
    return f"{scheme}://{host}" if scheme in ("http", "https") and HOST.fullmatch(host) else ""


def located(send: Send, origin: str, prefix: str) -> Send:
    """Return a `send` that puts `prefix` before the paths in `Location` and `Content-Location`.

    `Location` also gets the `origin`: some clients join it to the endpoint themselves.
    """

    async def send_prefixed(message: Message) -> None:
        if message["type"] == "http.response.start":
            before = {b"location": f"{origin}{prefix}".encode(), b"content-location": prefix.encode()}
            headers = [(k, before.get(k, b"") + v if v.startswith(b"/") else v) for k, v in message["headers"]]
            message = {**message, "headers": headers}
        await send(message)

    return send_prefixed


def _values(scope: Scope, name: str) -> list[str]:
    values = ",".join(Headers(scope=scope).getlist(name)).split(",")
    return [value.strip() for value in values if value.strip()]

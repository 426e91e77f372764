"""What trusted proxies forward: `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Prefix`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

PREFIX = re.compile(r"(/[\w.~-]+)+")  # a path that is the same with and without percent-encoding
LOCATIONS = (b"location", b"content-location")


class Proxies:
    def __init__(self, addresses: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(address) for address in addresses]

    def include(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_scope(self, scope: Scope) -> Scope:
        """Return the scope with the client address, host and `prefix` from a trusted proxy, whose address is `peer`."""
        client = scope.get("client")
        if not self._networks or not client or not self.include(str(client[0])):
            return scope
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
        return {**scope, "peer": client, "client": actual, "headers": headers, "prefix": known}


def prefixed(send: Send, prefix: str) -> Send:
    """Return a `send` that puts `prefix` before the paths in `Location` and `Content-Location`."""

    async def send_prefixed(message: Message) -> None:
        if message["type"] == "http.response.start":
            before = prefix.encode()
            headers = [(k, before + v if k in LOCATIONS and v.startswith(b"/") else v) for k, v in message["headers"]]
            message = {**message, "headers": headers}
        await send(message)

    return send_prefixed


def _values(scope: Scope, name: str) -> list[str]:
    values = ",".join(Headers(scope=scope).getlist(name)).split(",")
    return [value.strip() for value in values if value.strip()]


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed  # IPv4 on a socket of both families


def network(address: str) -> str:
    """Return what counts as one address: the /64 network of an IPv6 address, else the address."""
    parsed = _parsed(address) if ":" in address else None
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def is_address(text: str) -> bool:
    return _parsed(text) is not None

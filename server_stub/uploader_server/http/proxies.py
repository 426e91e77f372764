"""Client addresses behind trusted proxies: `X-Forwarded-For` and `X-Forwarded-Host`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope


class Proxies:
    """Addresses and networks of trusted proxies."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(address) for address in addresses]

    def include(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client_scope(self, scope: Scope) -> Scope:
        """Return the scope with the forwarded client address and host; `peer` is then the proxy's address."""
        client = scope.get("client")
        if not self._networks or not client or not self.include(str(client[0])):
            return scope
        forwarded = ",".join(_values(scope, b"x-forwarded-for"))
        # Each proxy appends its client; only addresses appended by trusted proxies count.
        address = next((name for name in reversed(_split(forwarded)) if not self.include(name)), "")
        host = _split(",".join(_values(scope, b"x-forwarded-host")))[-1:]
        headers = scope["headers"]
        if host:
            headers = [*(pair for pair in headers if pair[0] != b"host"), (b"host", host[0].encode("latin-1"))]
        actual = (address if is_address(address) else client[0], client[1])
        return {**scope, "peer": client, "client": actual, "headers": headers}


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def is_address(text: str) -> bool:
    """Return whether the text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

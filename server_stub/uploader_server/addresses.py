"""IP addresses of clients."""

from __future__ import annotations

import ipaddress


def parsed_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, or None for another text."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed  # IPv4 on a socket of both families


def network(address: str) -> str:
    """Return what counts as one address: the /64 network of an IPv6 address, else the address."""
    parsed = parsed_address(address) if ":" in address else None
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def is_address(text: str) -> bool:
    return parsed_address(text) is not None

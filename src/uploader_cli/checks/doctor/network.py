"""Check the name and port of the first hop, which is the proxy if there is one."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING

from uploader_cli.checks.doctor.configuration import named_proxy
from uploader_cli.checks.doctor.context import ANSWER_LIMIT
from uploader_cli.checks.doctor.findings import Finding, failed, fine

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context

ASK_DNS = "Check the name for typos, and this machine's DNS server or VPN."
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def dns(context: Context) -> Finding:
    """Resolve the name of the first hop."""
    host, port = context.next_hop
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        option = "--proxy" if context.proxy else "--server"
        why = getattr(error, "strerror", None) or "not a host name"
        return failed(
            f"the host name {host} is unknown ({why})",
            f"Check the name in {option} for typos, and this machine's DNS server or VPN.",
        )
    context.addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
    if context.addresses == [host]:
        return fine(f"{host} is an address", addresses=context.addresses)
    shown = ", ".join(context.addresses[:3]) + (" …" if len(context.addresses) > 3 else "")
    return fine(f"{host} is {shown}", addresses=context.addresses)


def tcp(context: Context) -> Finding:
    """Connect to the first hop, trying all its addresses within the time limit."""
    port = context.next_hop.port
    until = time.monotonic() + ANSWER_LIMIT
    problem: OSError = TimeoutError()
    for place, address in enumerate(context.addresses):
        left = (until - time.monotonic()) / (len(context.addresses) - place)
        began = time.perf_counter()
        try:
            with socket.create_connection((address, port), timeout=max(0.1, left)):
                context.connect_ms = (time.perf_counter() - began) * 1000
        except OSError as error:
            problem = error
        else:
            return fine(f"port {port} of {address} is open", address=address, port=port)
    return _closed(context, problem)


def _closed(context: Context, problem: OSError) -> Finding:
    where, what = context.next_hop, named_proxy(context)
    option = "--proxy" if context.proxy else "--server"
    if isinstance(problem, ConnectionRefusedError):
        own = "" if context.proxy else " (`uploader serve` listens on 8005)"
        return failed(
            f"port {where.port} of {where.host} is closed: nothing listens there",
            f"Start {what}, or correct the port in {option}{own}.",
            port=where.port,
        )
    if isinstance(problem, TimeoutError):
        return failed(
            f"no answer from port {where.port} of {where.host} within {ANSWER_LIMIT:.0f} s: a firewall drops the "
            "packets, or the host is down",
            f"Allow outgoing TCP to port {where.port} of {where.host}, or use a proxy with --proxy.",
            port=where.port,
        )
    if problem.errno in _UNREACHABLE:
        return failed(
            f"there is no route to {where.host} ({problem.strerror})",
            "Check this machine's network, and the VPN if the server is behind one.",
            port=where.port,
        )
    words = problem.strerror or str(problem) or type(problem).__name__
    return failed(f"no connection to {where}: {words}", f"Check the host and port in {option}.", port=where.port)

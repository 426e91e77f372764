"""Steps before any request: the settings, the proxy, and the name and port of the first hop."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING

from uploader_cli.checks.doctor.context import ANSWER_LIMIT, address_of
from uploader_cli.checks.result import Finding, check, failed, passed, warning
from uploader_cli.settings.layers import DEFAULT

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context

ASK_DNS = "Check the name for typos, and this machine's DNS server or VPN."
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


@check("settings", "settings")
def settings(context: Context) -> Finding:
    """Report the source of the server's URL, and read the token. Raises `UsageError`."""
    given = context.settings
    source = given.sources.get("server", DEFAULT)
    context.token = given.bearer()
    token = "withheld" if given.token_withheld else "present" if context.token else "none"
    cause = f"{given.server} from {source}; token: {token}"
    details = {"server": given.server, "source": str(source), "layer": str(source.layer), "token": token}
    if given.token_withheld:
        return warning(
            f"the token is withheld: only {source}, in the working directory, names {given.server}",
            "Set the server with --server, UPLOADER_SERVER or in your user config to send the token.",
            **details,
        )
    if given.insecure and context.secure:
        return warning(
            f"certificates are not verified (--insecure): {cause}",
            "Use --ca-bundle with the authority's certificate instead of --insecure.",
            **details,
        )
    return passed(cause, **details)


@check("proxy", "proxy", required=False)
def proxy(context: Context) -> Finding:
    """Report the proxy of --proxy or the environment, as an upload would use it."""
    scheme, proxies = "https" if context.secure else "http", context.http.session.proxies
    context.proxy = proxies.get(scheme) or proxies.get("all")
    if not context.proxy:
        return passed("none", proxy=None)
    where = str(address_of(context.proxy))
    if context.settings.proxy:
        source = str(context.settings.sources.get("proxy", "--proxy"))
    else:
        names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
        source = next((name for name in names if os.environ.get(name)), "the system")
    return passed(f"{where}, from {source}", proxy=where, source=source)


@check("dns", "DNS")
def dns(context: Context) -> Finding:
    """Resolve the name of the first hop."""
    host, port = context.next_hop
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a host name"
        hint = f"Check the name in {_option(context)} for typos, and this machine's DNS server or VPN."
        return failed(f"the host name {host} is unknown ({why})", hint)
    context.addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
    if context.addresses == [host]:
        return passed(f"{host} is an address", addresses=context.addresses)
    shown = ", ".join(context.addresses[:3]) + (" …" if len(context.addresses) > 3 else "")
    return passed(f"{host} is {shown}", addresses=context.addresses)


@check("tcp", "TCP", rests_on="dns")
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
            return passed(f"port {port} of {address} is open", address=address, port=port)
    return failed(*_closed(context, problem), port=port)


def _closed(context: Context, problem: OSError) -> tuple[str, str]:
    """Return why no address accepts connections, and the fix."""
    where = context.next_hop
    if isinstance(problem, ConnectionRefusedError):
        what, own = ("the proxy", "") if context.proxy else ("the server", " (`uploader serve` listens on 8005)")
        cause = f"port {where.port} of {where.host} is closed: nothing listens there"
        return cause, f"Start {what}, or correct the port in {_option(context)}{own}."
    if isinstance(problem, TimeoutError):
        silence = f"no answer from port {where.port} of {where.host} within {ANSWER_LIMIT:.0f} s"
        hint = f"Allow outgoing TCP to port {where.port} of {where.host}, or use a proxy with --proxy."
        return f"{silence}: a firewall drops the packets, or the host is down", hint
    if problem.errno in _UNREACHABLE:
        cause = f"there is no route to {where.host} ({problem.strerror})"
        return cause, "Check this machine's network, and the VPN if the server is behind one."
    words = problem.strerror or str(problem) or type(problem).__name__
    return f"no connection to {where}: {words}", f"Check the host and port in {_option(context)}."


def _option(context: Context) -> str:
    return "--proxy" if context.proxy else "--server"

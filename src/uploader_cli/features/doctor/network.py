"""Steps before any request: the settings, the proxy, the name and port of the first hop, and TLS."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, RemoteDisconnected
from typing import Any, cast

from uploader_cli.errors import chain, why
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Finding, check, failed, passed, sentence, skipped, warning
from uploader_cli.features.doctor.context import RESPONSE_LIMIT, DoctorContext, address_of
from uploader_cli.settings import OPTIONS
from uploader_cli.transfer.failures import BAD_NAME
from uploader_cli.transfer.http_client import TRANSPORT_ERRORS

ASK_DNS = "Check the name for typos, and this machine's DNS server or VPN."
DAY = 86_400.0
EXPIRES_SOON = 14  # days before the expiry of a certificate that cause a warning
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


@check("settings", "settings")
def settings(context: DoctorContext) -> Finding:
    """Report the source of the server's URL, and read the token. Raises `UsageError`."""
    given = context.settings
    source = given.source(given.target_option)
    context.token = given.bearer()
    token = "withheld" if given.token_withheld else "present" if context.token else "none"
    cause = f"{given.target_url} from {source}; token: {token}"
    details = {"server": given.target_url, "source": str(source), "layer": str(source.layer), "token": token}
    if given.token_withheld:
        cause = f"the token is withheld: only {source}, in the working directory, names {given.target_url}"
        variable = OPTIONS[given.target_option].variable
        hint = f"Set the server with {context.option}, {variable} or in your user config to send the token."
        return warning(cause, hint, **details)
    if given.insecure and context.secure:
        cause = f"certificates are not verified (--insecure): {cause}"
        return warning(cause, "Use --ca-bundle with the authority's certificate instead of --insecure.", **details)
    return passed(cause, **details)


@check("proxy", "proxy")
def proxy(context: DoctorContext) -> Finding:
    """Report the proxy of --proxy or the environment, as an upload would use it."""
    context.proxy = context.http.dialler.proxy("https" if context.secure else "http")
    if not context.proxy:
        return passed("none", proxy=None)
    source = context.http.failures.proxy_option
    try:
        context.next_hop = address_of(context.proxy)
    except ValueError as error:
        return failed(f"{source} is no URL of a proxy: {error}", f"Correct {source}, or unset it.", exit=Exit.USAGE)
    where = str(context.next_hop)
    return passed(f"{where}, from {source}", proxy=where, source=source)


@check("dns", "DNS", rests_on="proxy")
def dns(context: DoctorContext) -> Finding:
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
def tcp(context: DoctorContext) -> Finding:
    """Connect to the first hop, trying all its addresses within the time limit."""
    port = context.next_hop.port
    until = time.monotonic() + RESPONSE_LIMIT
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


def _closed(context: DoctorContext, problem: OSError) -> tuple[str, str]:
    where = context.next_hop
    if isinstance(problem, ConnectionRefusedError):
        what, own = ("the proxy", "") if context.proxy else ("the server", " (`uploader serve` listens on 8005)")
        own = "" if context.settings.tus_endpoint else own
        cause = f"port {where.port} of {where.host} is closed: nothing listens there"
        return cause, f"Start {what}, or correct the port in {_option(context)}{own}."
    if isinstance(problem, TimeoutError):
        port = f"port {where.port} of {where.host}"
        seconds = f"{RESPONSE_LIMIT:.0f} s"
        cause = f"no answer from {port} within {seconds}: a firewall drops the packets, or the host is down"
        return cause, f"Allow outgoing TCP to {port}, or use a proxy with --proxy."
    if problem.errno in _UNREACHABLE:
        cause = f"there is no route to {where.host} ({problem.strerror})"
        return cause, "Check this machine's network, and the VPN if the server is behind one."
    words = problem.strerror or str(problem) or type(problem).__name__
    return f"no connection to {where}: {words}", f"Check the host and port in {_option(context)}."


def _option(context: DoctorContext) -> str:
    return context.http.failures.proxy_option if context.proxy else context.option


@check("tls", "TLS", rests_on="tcp")
def tls(context: DoctorContext) -> Finding:
    """Connect as an upload does: with its proxy, authorities, client certificate and name of the server."""
    if not context.secure:
        return skipped("because the server's URL is http: nothing is encrypted")
    if context.proxy and context.proxy.startswith("https://"):
        return skipped("because it is inside the TLS connection to the proxy")
    try:
        with _secured(context) as sock:
            return _accepted(sock)
    except TRANSPORT_ERRORS as error:
        return _refused(context, error)


@contextmanager
def _secured(context: DoctorContext, *, names: bool = True) -> Iterator[ssl.SSLSocket]:
    """Yield a new connection, which is not kept. Without `names` the certificate may be for another name."""
    dialler = context.http.dialler
    route = dialler.route(f"{context.settings.target_url}/")
    if not names:
        cast("Any", route.pool).assert_hostname = False
    try:
        with dialler.connection(route) as connection:
            yield cast("ssl.SSLSocket", connection.sock)
    finally:
        dialler.close()


def _refused(context: DoctorContext, error: Exception) -> Finding:
    server, failures = context.server, context.http.failures
    secure = next((one for one in reversed(chain(error)) if isinstance(one, ssl.SSLError)), None)
    if isinstance(secure, ssl.SSLCertVerificationError):
        if secure.verify_code in BAD_NAME:
            return _of_another_name(context)
        cause, hint = failures.tls_cause(secure, server.host)
        return failed(cause, sentence(hint))
    if secure is not None:
        cause, hint = failures.tls_cause(secure, server.host)
        return failed(f"no TLS with {server}: {cause}", sentence(hint))
    cause = "no answer" if any(isinstance(one, TimeoutError) for one in chain(error)) else why(error)
    if context.proxy:
        _, refusal, said = cause.partition("Tunnel connection failed: ")
        if refusal:
            cause = f"it answered '{said}'"
        elif any(isinstance(one, HTTPException) for one in chain(error)):
            closed = any(isinstance(one, RemoteDisconnected) for one in chain(error))
            cause = "it closed the connection" if closed else f"its answer is not HTTP: {cause}"
        cause = f"the proxy does not connect to {server}: {cause}"
        if said.startswith("407"):
            return failed(cause, f"Put name and password into {failures.proxy_option}.")
        return failed(cause, f"Let the proxy allow CONNECT to port {server.port}, or use another one with --proxy.")
    cause = f"the TLS handshake with {server} failed: {cause}"
    return failed(cause, f"Check that the server uses TLS on this port, else use http:// in {context.option}.")


def _of_another_name(context: DoctorContext) -> Finding:
    listed: list[str] = []
    with suppress(*TRANSPORT_ERRORS), _secured(context, names=False) as sock:
        listed = _names(dict(sock.getpeercert() or {}))
    shown = ", ".join(listed[:4]) or "other names"
    cause = f"the TLS name does not match: the certificate is for {shown}, not for {context.server.host}"
    hint = f"Use one of these names in {context.option}, or get a certificate for this one."
    return failed(cause, hint, names=listed)


def _accepted(secured: ssl.SSLSocket) -> Finding:
    version = secured.version() or "TLS"
    certificate: dict[str, Any] = dict(secured.getpeercert() or {})
    if not certificate:  # --insecure
        return passed(f"{version}, certificate not verified", version=version)
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / DAY)
    fields = {key: value for group in certificate.get("issuer", ()) for key, value in group}
    issuer = str(fields.get("organizationName") or fields.get("commonName") or "an unnamed authority")
    details = {"version": version, "issuer": issuer, "names": _names(certificate), "days_left": days}
    if days < EXPIRES_SOON:
        cause = f"the certificate expires in {days} days: by {issuer}, {version}"
        hint = "Renew the server's certificate before then: afterwards no upload is possible."
        return warning(cause, hint, **details)
    return passed(f"{version}, certificate by {issuer}, valid for {days} days", **details)


def _names(certificate: dict[str, Any]) -> list[str]:
    return [str(value) for _, value in certificate.get("subjectAltName", ())]

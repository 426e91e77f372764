"""Check TLS to the server: its certificate, names and expiry."""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from uploader_cli.checks.doctor.context import ANSWER_LIMIT
from uploader_cli.checks.doctor.findings import Detail, Finding, failed, fine, skipped, warning
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context

DAY = 86_400.0
SOON = 14
"""Days before the expiry of a certificate that cause a warning."""
WRONG_NAME = (62, 64)
"""OpenSSL's codes (x509_vfy.h): the certificate is for other host names or IP addresses."""
NOT_YET, EXPIRED = 9, 10


class _ProxyRefused(OSError):
    pass


def tls(context: Context) -> Finding:
    """Do a handshake with the authorities, client certificate and name that an upload uses."""
    if not context.secure:
        return skipped("because the server's URL is http: nothing is encrypted")
    if context.proxy and context.proxy.startswith("https://"):
        return skipped("because it is inside the TLS connection to the proxy")
    host = context.server.host
    try:
        with _tunnel(context) as raw, _ssl_context(context).wrap_socket(raw, server_hostname=host) as secured:
            return _accepted(context, secured)
    except ssl.SSLCertVerificationError as error:
        return _distrusted(context, error)
    except ssl.SSLError as error:
        return _no_tls(context, error)
    except _ProxyRefused as error:
        return failed(
            f"the proxy does not connect to {context.server}: {error}",
            f"Let the proxy allow CONNECT to port {context.server.port}, or use another one with --proxy.",
        )
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or "the connection was closed"
        return failed(
            f"the TLS handshake with {context.server} failed: {why}",
            "Check that the server uses TLS on this port, else use http:// in --server.",
        )


def _tunnel(context: Context) -> socket.socket:
    """Connect to the server, through the proxy if there is one."""
    raw = socket.create_connection(context.next_hop, timeout=ANSWER_LIMIT)
    if not context.proxy:
        return raw
    lines = [f"CONNECT {context.server} HTTP/1.1", f"Host: {context.server}"]
    parts = urlsplit(context.proxy)
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    try:
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            piece = raw.recv(4096)
            if not piece:
                break
            head += piece
        said = head.partition(b"\r\n")[0].decode("latin-1")
        if said.split(" ")[1:2] != ["200"]:
            raise _ProxyRefused(f"it answered {said.partition(' ')[2]!r}" if said else "it closed the connection")
    except BaseException:
        raw.close()
        raise
    return raw


def _ssl_context(context: Context, *, names: bool = True) -> ssl.SSLContext:
    """Return the TLS settings of `requests`, which has certificate authorities of its own."""
    asked: Any = SimpleNamespace()
    session = make_session(context.settings, Sockets())
    adapter: Any = session.get_adapter(context.settings.server)
    adapter.cert_verify(asked, context.settings.server, session.verify, session.cert)
    session.close()
    trust = ssl.create_default_context(
        cafile=getattr(asked, "ca_certs", None), capath=getattr(asked, "ca_cert_dir", None)
    )
    if asked.cert_reqs == "CERT_NONE" or not names:
        trust.check_hostname = False
    if asked.cert_reqs == "CERT_NONE":
        trust.verify_mode = ssl.CERT_NONE
    if getattr(asked, "cert_file", None):
        trust.load_cert_chain(asked.cert_file, getattr(asked, "key_file", None))
    return trust


def _accepted(context: Context, secured: ssl.SSLSocket) -> Finding:
    version = secured.version() or "TLS"
    certificate: dict[str, Any] = dict(secured.getpeercert() or {})
    if not certificate:  # --insecure
        return fine(f"{version}, certificate not verified", version=version)
    until = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = int((until - context.wall()) / DAY)
    issuer = _named(certificate.get("issuer", ()))
    details: dict[str, Detail] = {
        "version": version,
        "issuer": issuer,
        "names": names_of(certificate),
        "days_left": days,
    }
    if days < SOON:
        return warning(
            f"the certificate expires in {days} days: by {issuer}, {version}",
            "Renew the server's certificate before then: afterwards no upload is possible.",
            **details,
        )
    return fine(f"{version}, certificate by {issuer}, valid for {days} days", **details)


def _distrusted(context: Context, error: ssl.SSLCertVerificationError) -> Finding:
    host, words = context.server.host, error.verify_message
    match error.verify_code:
        case code if code in WRONG_NAME:
            listed = _names(context)
            shown = ", ".join(listed[:4]) or "other names"
            return failed(
                f"the TLS name does not match: the certificate is for {shown}, not for {host}",
                "Use one of these names in --server, or get a certificate for this one.",
                names=listed,
            )
        case code if code in (EXPIRED, NOT_YET):
            return failed(
                f"the certificate {'has expired' if code == EXPIRED else 'is not valid yet'} ({words})",
                "Renew the server's certificate, or correct this machine's clock.",
            )
        case _:
            given = context.settings.ca_bundle
            known = f" in {Path(given).name} (--ca-bundle)" if given else ""
            return failed(
                f"the TLS authority is unknown{known}: the certificate of {host} is not trusted ({words})",
                "Give the authority's certificate with --ca-bundle FILE; --insecure disables the protection.",
            )


def _no_tls(context: Context, error: ssl.SSLError) -> Finding:
    reason = (error.reason or "").replace("_", " ").lower()
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return failed(
            f"port {context.server.port} of {context.server.host} does not use TLS",
            "Use http:// in --server, or the port with TLS.",
        )
    if "certificate required" in reason or "handshake failure" in reason:
        return failed(
            f"the server refused the TLS handshake ({reason}): it may require a client certificate",
            "Give one with --client-cert FILE.",
        )
    return failed(f"no TLS with {context.server}: {reason or error}", "Check the scheme and the port in --server.")


def _names(context: Context) -> list[str]:
    """Return the names in the certificate, from a second handshake without the check of names."""
    try:
        with _tunnel(context) as raw, _ssl_context(context, names=False).wrap_socket(raw) as secured:
            return names_of(dict(secured.getpeercert() or {}))
    except OSError:
        return []


def names_of(certificate: dict[str, Any]) -> list[str]:
    """Return the host names and addresses of a certificate."""
    return [str(value) for _, value in certificate.get("subjectAltName", ())]


def _named(parts: Any) -> str:
    fields = {key: value for group in parts for key, value in group}
    return str(fields.get("organizationName") or fields.get("commonName") or "an unnamed authority")

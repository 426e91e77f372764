"""Why a request failed, in words, and the fix: exceptions of the libraries as errors of this package."""

from __future__ import annotations

import os
import socket
import ssl
from http.client import HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uploader_cli import errors
from uploader_cli.core.origins import origin_of
from uploader_cli.transfer.connection import AnswerTooLarge, BrokenOff, NoProxy, NotConnected, NotSecured

if TYPE_CHECKING:
    from uploader_cli.settings import Settings

HANDSHAKE_LIMIT = 2.0  # seconds to find out whether a port speaks TLS
# Codes of certificates that are refused (OpenSSL's `X509_V_ERR_…`); UNTRUSTED: their authority is unknown.
BAD_TIME, BAD_NAME, SELF_SIGNED = {9: "is not valid yet", 10: "has expired"}, (62, 64), 18
NOTABLE = 1.0  # seconds of a failed connection from which the message has them
UNTRUSTED = (2, 19, 20, 21, 27)


class Failures:
    """Errors of requests, in terms of the options that the user has given."""

    def __init__(self, settings: Settings, authorities: str, *, are_own: bool) -> None:
        """`authorities` names the option for trusted certificates, which `are_own` if they are those of a file."""
        self._settings, self._authorities, self._are_own = settings, authorities, are_own
        # What names the server, and the proxy if there is one: the flag, variable or config key as the user gave it.
        self.option = settings.given_as("upload_url" if settings.upload_url else settings.target_option)
        self.proxy_option = settings.given_as("proxy") if settings.proxy else _proxy_variable(settings.target_url)

    def of(self, error: BaseException, url: str, *, seconds: float, body_sent: bool) -> errors.UploaderError:
        """Return the error of a request to `url`, which took `seconds`; `body_sent`: all of it was sent."""
        if (lack := next(filter(None, map(errors.exhausted, errors.chain(error))), None)) is not None:
            return lack
        where, cause = origin_of(url), errors.why(error)
        if isinstance(error, AnswerTooLarge):
            return errors.ProtocolError(f"the answer of {where} is too large: {error}")
        if "Tunnel connection failed: 407" in cause:
            return self.no_proxy_password(url)
        through_proxy = _has(error, NoProxy)
        if through_proxy and _has_no_tunnel(error):
            cause = cause.replace("Tunnel connection failed:", "it answered")
            hint = f"check {self.proxy_option}"
            return errors.ConnectFailed(f"the proxy did not connect to {where}: {cause}", hint=hint)
        reasons = " ".join(str(getattr(item, "reason", "")) for item in errors.chain(error))
        handshake = _has(error, NotSecured) and not through_proxy
        if handshake or "CERTIFICATE_REQUIRED" in reasons:  # with TLS 1.3 after the handshake
            cause, hint = self.tls_cause(error, urlsplit(url).hostname or "")
            failed = errors.ConnectFailed(f"no secure connection to {where}: {cause}", hint=hint)
            failed.retryable = _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
            return failed
        no_name = _has(error, socket.gaierror, UnicodeError)
        if _has(error, UnicodeError):  # its words depend on the version of Python
            cause = f"{urlsplit(url).hostname} is not a host name"
        if no_name or _has(error, NotConnected):
            hint = f"check the name in {self.option}" if no_name else "is the server running there?"
            took = f" after {seconds:.1f} s" if seconds >= NOTABLE else ""
            return errors.ConnectFailed(f"no connection to {where}{took}: {cause}", hint=hint)
        if _has(error, TimeoutError):
            what = "did not answer in time" if body_sent else "stopped taking bytes"
            return errors.TimedOut(f"{where} {what}", body_sent=body_sent)
        if isinstance(error, BrokenOff):
            return errors.ConnectionLost(f"the answer of {where} broke off", body_sent=True)
        if _has(error, HTTPException) and not _has(error, RemoteDisconnected):
            hint = f"check {self.option}: its port, and whether a server for HTTP is there"
            return errors.ConnectionLost(f"the answer of {where} is not HTTP", hint=hint, body_sent=body_sent)
        return errors.ConnectionLost(f"the connection to {where} broke: {cause}", body_sent=body_sent)

    def tls_cause(self, error: BaseException, host: str) -> tuple[str, str]:
        """Return in words why the handshake with `host` failed, and the fix. Raise `UsageError` for a local file."""
        found = next((item for item in reversed(errors.chain(error)) if isinstance(item, ssl.SSLError)), ssl.SSLError())
        settings = self._settings
        if found.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
            raise errors.UsageError(f"{self._authorities}: the file contains no certificate", hint="give a PEM file")
        if "PEM lib" in str(found):
            cause = f"{settings.given_as('client_cert')}: the file has no certificate with its key"
            raise errors.UsageError(cause, hint="give a PEM file with both")
        if isinstance(found, ssl.SSLCertVerificationError):
            return self._distrust(found, host)
        reason = (found.reason or "").replace("_", " ").lower()
        if found.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "this port does not speak TLS", f"use http:// in {self.option}, or the port with TLS"
        if "certificate required" in reason or "handshake failure" in reason:
            return "the server may require a client certificate", "give one with --client-cert"
        if "protocol version" in reason or "unsupported protocol" in reason:
            return "the server and this machine have no TLS version in common", "have TLS 1.2 or newer enabled there"
        hint = "check that the server speaks TLS there"
        if "eof" in reason or not reason:
            hint += ", and whether it requires a client certificate (--client-cert)"
            return "the server ended the handshake", hint
        return f"the handshake failed ({reason})", hint

    def _distrust(self, found: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
        if found.verify_code in BAD_TIME:
            cause = f"the server's certificate {BAD_TIME[found.verify_code]}"
            return cause, "have the certificate renewed, or correct this machine's clock"
        if found.verify_code in BAD_NAME:
            return f"the server's certificate is not for {host}", f"use a name of the certificate in {self.option}"
        hint = "name {} with --ca-bundle; --insecure gives up the protection"
        if found.verify_code == SELF_SIGNED:
            return "the server's certificate is self-signed", hint.format("the certificate itself")
        said = "" if found.verify_code in UNTRUSTED else f" ({found.verify_message})"
        where = f": it is not in the file of {self._authorities}" if self._are_own else ""
        cause = f"the authority of the server's certificate is unknown{where}{said}"
        return cause, hint.format("the authority's certificate")

    def no_proxy_password(self, url: str) -> errors.ProxyUnauthorized:
        text = f"the proxy asks for a name and password (407) for {origin_of(url)}"
        return errors.ProxyUnauthorized(text, hint=f"put name and password into {self.proxy_option}")


def _proxy_variable(url: str) -> str:
    name = f"{urlsplit(url).scheme}_proxy"
    names = (name, name.upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "the system's settings")


def speaks_tls(url: str) -> bool:
    """Return whether a TLS handshake succeeds; nothing is sent after it."""
    parts, unverified = urlsplit(url), ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), HANDSHAKE_LIMIT) as plain:
            unverified.wrap_socket(plain, server_hostname=parts.hostname).close()
    except OSError:
        return False
    return True


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(item, kinds) for item in errors.chain(error))


def _has_no_tunnel(error: BaseException) -> bool:
    if _has(error, NotConnected) or "Tunnel connection failed" in errors.why(error):
        return True
    return _has(error, ssl.SSLError) and not _has(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)

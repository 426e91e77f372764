"""Steps before any request: the sources of the settings, and the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.doctor.context import address_of
from uploader_cli.checks.doctor.findings import Finding, fine, warning
from uploader_cli.settings import DEFAULT
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context


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
    return fine(cause, **details)


def proxy(context: Context) -> Finding:
    """Report the proxy of --proxy or the environment, as an upload would use it."""
    session = make_session(context.settings, Sockets())
    scheme = "https" if context.secure else "http"
    context.proxy = session.proxies.get(scheme) or session.proxies.get("all")
    session.close()
    if not context.proxy:
        return fine("none", proxy=None)
    where = address_of(context.proxy)
    if context.settings.proxy:
        source = str(context.settings.sources.get("proxy", "--proxy"))
    else:
        names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
        source = next((name for name in names if context.environment.get(name)), "the system")
    return fine(f"{where}, from {source}", proxy=str(where), source=source)


def named_proxy(context: Context) -> str:
    """Return `the proxy` or `the server`, for messages about the first hop."""
    return "the proxy" if context.proxy else "the server"

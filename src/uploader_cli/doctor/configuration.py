"""What is known before anything is sent: where the settings come from, and whether a proxy is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.doctor.context import address_of
from uploader_cli.doctor.findings import Finding, fine, warning
from uploader_cli.settings.layers import DEFAULT
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from uploader_cli.doctor.context import Context


def settings(context: Context) -> Finding:
    """Where the server's URL comes from, and the token, which is read here. Raises `UsageError`."""
    given = context.settings
    source = given.sources.get("server", DEFAULT)
    context.token = given.bearer()
    token = "withheld" if given.token_withheld else "present" if context.token else "none"
    cause = f"{given.server} from {source}; token: {token}"
    details = {"server": given.server, "source": str(source), "layer": str(source.layer), "token": token}
    if given.token_withheld:
        return warning(
            f"the token is withheld: only {source}, in the working directory, names {given.server}",
            "Name the server yourself, with --server, UPLOADER_SERVER or in your own config, and it gets the token.",
            **details,
        )
    if given.insecure and context.secure:
        return warning(
            f"certificates are not checked (--insecure): {cause}",
            "Name the authority's certificate with --ca-bundle instead of --insecure.",
            **details,
        )
    return fine(cause, **details)


def proxy(context: Context) -> Finding:
    """The proxy that calls go through, by --proxy or by the environment, as the upload finds it."""
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
    """`the proxy` or `the server`, for sentences about the first hop."""
    return "the proxy" if context.proxy else "the server"

"""What the bundled server needs."""

from uploader_cli import extras

_MODULES = ("uploader_server", "starlette", "granian", "multipart", "jwt", "prometheus_client")


def need_server(user: str) -> None:
    """Raise `UsageError` if `user` needs the bundled server, and a package of it is not installed."""
    extras.need("server", _MODULES, user, "the bundled server")

"""The packages that `serve`, `demo` and the pytest plugin need beyond the client's."""

from importlib.util import find_spec

from uploader_cli.errors import UsageError

_PACKAGES = ("uploader_server", "starlette", "granian", "multipart", "jwt", "prometheus_client")


def need_server_extra(user: str) -> None:
    """Raise `UsageError` with the pip command if the bundled server's packages are not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        from importlib.metadata import requires  # takes 20 ms

        lines = (line.partition(";") for line in requires("uploader-cli") or ())
        extra = [f"'{name.strip()}'" for name, _, mark in lines if "extra == 'server'" in mark.replace('"', "'")]
        raise UsageError(
            f"{user} needs the bundled server, which is not installed (no {', '.join(missing)})",
            hint=f"pip install {' '.join(extra)}",
        )

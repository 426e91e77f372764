"""The extras: packages that few runs need, and that a plain installation lacks."""

from collections.abc import Iterable
from importlib.util import find_spec

from uploader_cli.errors import UsageError


def need(extra: str, modules: Iterable[str], user: str, what: str) -> None:
    """Raise `UsageError` with the pip command if `user` needs `what`, and modules of `extra` are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        from importlib.metadata import requires  # takes 20 ms

        lines = (line.partition(";") for line in requires("uploader-cli") or ())
        packages = [f"'{name.strip()}'" for name, _, mark in lines if f"extra == '{extra}'" in mark.replace('"', "'")]
        raise UsageError(
            f"{user} needs {what}, which is not installed (extra {extra}: no {', '.join(missing)})",
            hint=f"pip install {' '.join(packages)}",
        )

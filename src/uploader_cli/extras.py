"""The optional parts of this package, which few runs need, and the packages that some of them need.

No other module imports an optional part: it is loaded by its name, where an option or a command asks for it.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from uploader_cli.errors import UsageError

REPORTS = {
    "json": (".json", "report.formats:as_json"),
    "csv": (".csv", "report.formats:as_csv"),
    "junit": (".xml", "report.junit:as_junit"),
    "markdown": (".md", "report.markdown:as_markdown"),
    "html": (".html", "report.html:as_html"),
    "sha256": (".sha256", "report.formats:as_sha256"),
}
"""The formats of `--report`: the suffix that selects it, and the part that writes it."""
PARTS = {
    "plots": "report.terminal:rows_of",  # `report show`
    **{f"report {kind}": part for kind, (_, part) in REPORTS.items()},
}
"""Each part: a module of this package, and what it provides, as in an entry point."""

_PACKAGES = {
    "server": ("uploader_server", "starlette", "granian", "multipart", "jwt", "prometheus_client"),
    "dask": ("distributed", "cryptography"),
}
"""The packages of the extras, which a plain installation lacks; that of any other has the name of the extra."""


def load(name: str) -> Any:
    """Return an optional part, which is imported now."""
    module, _, provided = PARTS[name].partition(":")
    found = import_module(f"uploader_cli.{module}")
    return getattr(found, provided) if provided else found


def installed(extra: str) -> bool:
    """Return whether all packages of an extra are installed."""
    return not _missing(extra)


def _missing(extra: str) -> list[str]:
    return [name for name in _PACKAGES.get(extra, (extra,)) if find_spec(name) is None]


def need(extra: str, user: str, what: str) -> None:
    """Raise `UsageError` with the pip command if `user` needs `what`, and packages of `extra` are not installed."""
    missing = _missing(extra)
    if missing:
        from importlib.metadata import requires  # takes 20 ms

        lines = (line.partition(";") for line in requires("uploader-cli") or ())
        packages = [f"'{name.strip()}'" for name, _, mark in lines if f"extra == '{extra}'" in mark.replace('"', "'")]
        raise UsageError(
            f"{user} needs {what}, which is not installed (extra {extra}: no {', '.join(missing)})",
            hint=f"pip install {' '.join(packages)}",
        )

"""The values of the options."""

from __future__ import annotations

import re

from uploader_cli.settings import values

_PLACE = re.compile(r"local:[1-9][0-9]{0,3}|dask(\+tls)?://[^/@\s]+:[0-9]{1,5}")

seconds = values.seconds(zero=False)


def place(raw: object) -> str | None:
    """Parse where an import runs: `local:4`, `dask://HOST:PORT` or `dask+tls://HOST:PORT`; `none` for nowhere."""
    if raw == "none":
        return None
    written = str(raw).strip().rstrip("/")
    if not _PLACE.fullmatch(written):
        hint = "write local:4 for four processes of this machine, or dask://scheduler:8786 for a Dask cluster"
        raise values.Invalid(f"must be local:N or dask://HOST:PORT, not {raw!r}", hint=hint)
    return written

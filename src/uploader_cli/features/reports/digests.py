"""Write the digests of a report as a list for `sha256sum`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from uploader_cli.report.formats import local_path, stored
from uploader_cli.report.recorder import Spool


def as_sha256(_head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield a line of `sha256sum` for each file on the server, with its path as selected."""
    for row in stored(spool):
        if checksum := row.get("checksum"):
            name = local_path(row)
            written = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            mark = "\\" if written != name else ""
            yield f"{mark}{checksum.removeprefix('sha256:')}  {written}\n"

"""Upload files with tuspy, one after the other: `python -m benchmarks.tuspy_client ENDPOINT LIST`."""

from __future__ import annotations

import sys
from pathlib import Path

from tusclient.client import TusClient

CHUNK = 8 << 20
"""Bytes: tuspy reads a whole chunk into memory, so that its default (all) is no use for large files."""


def main() -> None:
    endpoint, listed = sys.argv[1:]
    client = TusClient(endpoint)
    for path in Path(listed).read_text().splitlines():
        client.uploader(path, chunk_size=CHUNK, metadata={"filename": Path(path).name}).upload()


if __name__ == "__main__":
    main()

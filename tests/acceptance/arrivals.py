"""What arrives at a server, by its access log: when, and how many bytes of files."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CARRIERS = {("POST", "/api/upload/files/"), ("PATCH", "/api/upload/files/"), ("POST", "/api/upload/batch")}
"""Method and beginning of the path of what may carry files."""


def log_to(log: Path) -> tuple[str, ...]:
    """Return the options of a server that writes this log."""
    return "--access-log", str(log), "--access-log-format", "json"


class Arrivals:
    """The requests with bytes of files in the log of a server with the options of `log_to`."""

    def __init__(self, log: Path) -> None:
        self.first = float("inf")
        """When the first of them came, in seconds since the epoch."""
        self.requests = self.bytes = 0
        with log.open(encoding="utf-8") as lines:
            for line in lines:
                self._note(json.loads(line))

    def _note(self, entry: dict[str, Any]) -> None:
        carries = any(entry["method"] == method and entry["path"].startswith(path) for method, path in CARRIERS)
        if carries and entry["bytesIn"]:
            self.requests += 1
            self.bytes += entry["bytesIn"]
            self.first = min(self.first, datetime.fromisoformat(entry["time"]).timestamp())

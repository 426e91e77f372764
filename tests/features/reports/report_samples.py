"""Reports of runs, written for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OUTCOMES = {"✓": "completed", "✗": "failed", "■": "cancelled", "=": "skipped", "-": "skipped"}


def rows(words: str) -> list[dict[str, Any]]:
    """`a✓ b✗ c■ d= e-`: completed, failed, cancelled, skipped as present, skipped for its type."""
    out = []
    for number, word in enumerate(words.split()):
        row = {"file": number, "path": word[:-1], "size": 10, "outcome": OUTCOMES[word[-1]], "attempts": 1}
        if word[-1] == "✗":
            row |= {"code": "network", "message": "gone", "retryable": True}
        if row["outcome"] == "skipped":
            row["reason"] = "present" if word[-1] == "=" else "type"
        out.append(row)
    return out


def write(directory: Path, run: str, words: str, at: int = 1, **head: Any) -> str:
    """Write the report of a run that ended at `at` o'clock, and return its name; keywords go into its head."""
    files = head.pop("files", None) or rows(words)
    counts = {name: sum(row["outcome"] == name for row in files) for name in set(OUTCOMES.values())}
    document = {
        "format": "uploader-report",
        "v": 1,
        "run": run,
        "resumed_from": None,
        "server": "http://x",
        "category": "personal",
        "shard": None,
        "started": "2026-01-01T00:00:00.000Z",
        "finished": f"2026-01-01T{at:02}:00:00.000Z",
        "exit_code": 0,
        "counts": {"selected": len(files), **counts},
        "selection_complete": True,
        **head,
        "files": files,
    }
    (directory / f"{run}.json").write_text(json.dumps(document))
    return f"{run}.json"

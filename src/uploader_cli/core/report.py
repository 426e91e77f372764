"""What is said of a whole run: the head of every report, and all of the one that a command of the user's is given."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uploader_cli.core import events as ev
    from uploader_cli.core.state import ProgressState

FORMAT, VERSION = "uploader-report", 1
_BROKEN_OFF = 1
"""The exit code of a run that ended by a bug of ours."""


def report_head(
    state: ProgressState,
    outcome: ev.RunFinished | None,
    *,
    run: str,
    category: str | None,
    shard: str | None,
    started: str,
    finished: str,
) -> dict[str, Any]:
    """The report without its files; fit for JSON. Times of day are RFC 3339, `outcome` is None for a run that broke.

    `category` is None where the server knows none, `shard` where the run was the whole.
    """
    return {
        "format": FORMAT,
        "v": VERSION,
        "run": run,
        "server": state.server,
        "category": category,
        "shard": shard,
        "started": started,
        "finished": finished,
        "ok": outcome.ok if outcome is not None else False,
        "exit_code": outcome.exit_code if outcome is not None else _BROKEN_OFF,
        "counts": {
            "selected": state.selected,
            "completed": state.completed,
            "failed": state.failed,
            "skipped": state.skipped,
            "cancelled": state.cancelled,
        },
        "bytes": state.completed_bytes,
        "seconds": outcome.seconds if outcome is not None else None,
        "rate": outcome.rate if outcome is not None else None,
        "channel": asdict(outcome.channel) if outcome is not None else None,
        "peak_rss": outcome.peak_rss if outcome is not None else None,
    }

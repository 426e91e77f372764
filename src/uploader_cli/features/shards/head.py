"""What the head of a report says of shards."""

from __future__ import annotations

from typing import Any

from uploader_cli.settings import Settings

TOTALS = ("all_shards",)


def of_run(settings: Settings) -> dict[str, Any]:
    return {"shard": parsed(settings) if settings.shard is not None else None}


def parsed(settings: Settings) -> dict[str, int]:
    """Return `2/4`, the value of `--shard`, as index and count."""
    index, _, count = str(settings.shard).partition("/")
    return {"index": int(index), "count": int(count)}


def is_valid(head: dict[str, Any]) -> bool:
    whole, shard = head.get("all_shards"), head.get("shard")
    return (whole is None or _has(whole, "files")) and (shard is None or _has(shard, "index", "count"))


def words(head: dict[str, Any]) -> str:
    shard = head.get("shard")
    return f"shard {shard['index']} of {shard['count']}" if shard else ""


def _has(value: Any, *names: str) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), int) for name in names)

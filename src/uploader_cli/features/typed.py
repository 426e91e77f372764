"""What features add to classes of the library, for type checkers; written by docs/cli_options.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uploader_cli.features.analysis.fields import Analysed
from uploader_cli.features.then.fields import Removed


class Added:
    """The fields of events and receipts."""

    removed: Removed | None
    moved_to: str | None


class AddedResult:
    """The fields of `Result`."""

    analyses: tuple[Analysed, ...]
    analysis_file: str


@dataclass(frozen=True, kw_only=True)
class AddedOptions:
    """The options, as fields of `Settings`."""

    watch: bool = False
    settle: float = 10.0
    result_url: str | None = None
    result_done: tuple[Any, ...] = ()
    result_failed: tuple[Any, ...] = ()
    result_link: str | None = None
    result_timeout: float = 1800.0
    then: Any = None
    then_unverified: bool = False
    dry_run: bool = False
    preset: Any = None
    shard: str | None = None
    on: str | None = None
    cluster_timeout: float = 60.0
    task_timeout: float = 300.0
    metrics_file: Path | None = None
    on_failure: Any = None
    analyze: Literal["none", "content", "fusion", "music"] = "none"
    analysis_to: Path | None = None

"""The types of the options of `Settings` as keywords of the library; written by docs/cli_options.py."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal, TypeAlias, TypedDict

from uploader_cli.settings.values import ChunkRule, Header, Metadata, Moment, ReportFile

Text: TypeAlias = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The fields of `Settings`; None stands for the default."""

    profile: str | None
    from_file: Text | None
    from_format: Literal["auto", "plain", "nul", "csv", "jsonl"] | None
    null: bool | None
    lenient: bool | None
    name: str | None
    include: Text | Iterable[Text] | None
    exclude: Text | Iterable[Text] | None
    exclude_from: Text | Iterable[Text] | None
    min_size: int | str | None
    max_size: int | str | None
    newer_than: Moment | str | None
    shard: str | None
    follow_links: bool | None
    check_first: bool | None
    dest: str | None
    if_exists: Literal["rename", "fail"] | None
    resend: bool | None
    skip_existing: bool | None
    trust_receipts: bool | None
    watch: bool | None
    settle: float | str | None
    then: str | None
    then_unverified: bool | None
    dry_run: bool | None
    on: str | None
    cluster_timeout: float | str | None
    task_timeout: float | str | None
    protocol: Literal["auto", "batch", "tus", "ietf"] | None
    preset: str | None
    metadata: Text | Metadata | Iterable[Text | Metadata] | None
    jobs: int | str | None
    chunk_size: int | str | None
    chunk_rule: ChunkRule | str | None
    retry_status: Text | int | Iterable[Text | int] | None
    id_header: str | None
    place: Text | Iterable[Text] | None
    allowed_names: str | None
    empty_files: bool | None
    empty_at_creation: bool | None
    bytes_at_creation: bool | None
    parts: bool | None
    part_metadata: bool | None
    checksum_compared: bool | None
    result_url: str | None
    result_done: Text | Iterable[Text] | None
    result_failed: Text | Iterable[Text] | None
    result_link: str | None
    result_timeout: float | str | None
    checksum: Literal["auto", "none", "crc32c", "sha1", "sha256"] | None
    pack: bool | None
    limit_rate: int | str | None
    retries: int | str | None
    finish_timeout: float | str | None
    deadline: float | str | None
    fail_fast: bool | None
    resend_unknown: bool | None
    verify: bool | None
    digest: bool | None
    resume: bool | None
    cancel_on_interrupt: bool | None
    state_dir: Text | None
    json: bool | None
    progress: Literal["auto", "live", "plain", "none"] | None
    quiet: bool | None
    verbose: int | str | None
    log_file: Text | None
    log_level: Literal["debug", "info", "warning", "error"] | None
    report: Text | ReportFile | Iterable[Text | ReportFile] | None
    failed_to: Text | None
    links: Text | None
    metrics_file: Text | None
    on_failure: str | None
    server: str | None
    tus_endpoint: str | None
    upload_url: str | None
    max_wait: float | str | None
    wait_for_server: float | str | None
    stall: float | str | None
    warn_latency: float | str | None
    warn_error_rate: float | str | None
    proxy: str | None
    token: str | None
    token_file: Text | None
    token_command: str | None
    session_secret: str | None
    header: Text | Header | Iterable[Text | Header] | None
    ca_bundle: Text | None
    client_cert: Text | None
    insecure: bool | None
    category: Literal["personal", "scenic"] | None
    analyze: Literal["none", "content", "fusion", "music"] | None
    analysis_to: Text | None


FEATURE_OF = {
    "analysis_to": "analysis",
    "analyze": "analysis",
    "cluster_timeout": "fleet",
    "dry_run": "plan",
    "metrics_file": "metrics",
    "on": "fleet",
    "on_failure": "on_failure",
    "preset": "presets",
    "result_done": "processing",
    "result_failed": "processing",
    "result_link": "processing",
    "result_timeout": "processing",
    "result_url": "processing",
    "settle": "folder",
    "shard": "shards",
    "task_timeout": "fleet",
    "then": "then",
    "then_unverified": "then",
    "watch": "folder",
}
"""The options of features, also of those that are not there, and their features."""
FEATURE_OF_COMMAND: dict[str, str] = {
    "check": "check",
    "demo": "demo",
    "doctor": "doctor",
    "import": "fleet",
    "judge": "tester",
    "presets": "presets",
    "report": "reports",
    "serve": "demo",
    "smoke": "smoke",
}
"""Their commands."""
FEATURE_OF_ACTION: dict[str, str] = {
    "merge": "shards",
}
"""Their actions of `uploader report`."""
FEATURE_OF_FORMAT: dict[str, str] = {
    ".html": "reports",
    ".md": "reports",
    ".sha256": "reports",
    ".xml": "reports",
    "html": "reports",
    "junit": "reports",
    "markdown": "reports",
    "sha256": "reports",
}
"""Their formats of reports, by the name and by the suffix."""
FEATURE_OF_SOURCES = "urls"
"""The one that reads files at URLs."""

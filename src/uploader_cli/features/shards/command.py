"""`uploader report merge`: combine several reports, and find what is missing."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from uploader_cli import __version__, signals
from uploader_cli.errors import UsageError
from uploader_cli.features.reports.read import Report
from uploader_cli.features.reports.show import MORE_SPACE, named_outputs
from uploader_cli.features.shards.merge import Merge
from uploader_cli.render.words import plural, safe, size
from uploader_cli.report.formats import as_json
from uploader_cli.report.recorder import Notices, Spool, write_all
from uploader_cli.report.run_files import settled


def merge(files: Sequence[str], reports: Sequence[str], failed_to: str | None, *, json: bool, quiet: bool) -> int:
    """Combine the reports in `files`; return 0 if each file is on the server and none is missing, else as for a run."""
    files_to_write = named_outputs(reports, failed_to)
    found = [Report.open(Path(name)) for name in files]
    try:
        with signals.unwinding(), closing(Spool()) as spool:
            merged = Merge(spool)
            for report in found:
                merged.add(report)
            head = merged.head(__version__)
            notices = Notices()
            write_all(files_to_write, head, spool, notices)
            if json:
                for piece in as_json(head, spool):
                    sys.stdout.write(piece)
    except sqlite3.Error as error:
        raise UsageError(f"no space to combine the reports: {error}", hint=MORE_SPACE) from error
    if not quiet or head["exit_code"]:
        sys.stderr.write("".join(f"{safe(line)}\n" for line in _summary(head, merged.twice)))
    return settled(head["exit_code"], [notices])


def _summary(head: dict[str, Any], twice: Sequence[str]) -> Iterator[str]:
    counts = head["counts"]
    there = counts["completed"] + head["skips"].get("present", 0) + head["skips"].get("receipt", 0)
    wanted = there + counts["failed"] + counts["cancelled"] + head["skips"].get("fail_fast", 0)
    glyph, runs = "✓" if head["ok"] else "✗", plural(len(head["runs"]), "run")
    yield f"{glyph} {there:,} of {plural(wanted, 'file')} on the server, {size(head['bytes'])} sent, in {runs}"
    for name in ("failed", "cancelled", "skipped"):
        if counts[name]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in head["skips"].items())
            yield f"  {counts[name]:,} {name}" + (f": {reasons}" if name == "skipped" else "")
    for sentence in head["missing"]:
        yield f"✗ missing: {sentence}"
    if head["in_several_shards"]:
        yield f"! {plural(head['in_several_shards'], 'file')} in more than one shard, counted once:"
        yield from (f"    {path}" for path in twice)
        if head["in_several_shards"] > len(twice):
            yield f"    … and {head['in_several_shards'] - len(twice):,} more"
    if head["exit_code"]:
        yield f"  exit code {head['exit_code']}: {head['exit'].replace('_', ' ')}"

"""Combine several reports into one: each file once, and which files are missing.

A file is identified by its destination and path. The latest report of a file counts, except one of a run that did not
decide: it was interrupted before the file, or skipped it for another reason than that it was present.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from uploader_cli.core.events import FailureCode
from uploader_cli.exit_status import Exit, of_failure, worst
from uploader_cli.features.reports.read import Report
from uploader_cli.report.document import OUTCOMES, REPORT_FORMAT, REPORT_VERSION, word
from uploader_cli.report.recorder import Row, Spool

FILES_NAMED = 20  # maximum files in several shards listed
_PLACE = ("server", "category", "dest")
_OF_A_RUN = ("run", "resumed_from", *_PLACE, "shard", "all_shards", "started", "finished", "exit_code", "counts")
"""The fields of each run in a combined report."""


@dataclass(slots=True)
class Merge:
    """Combines reports in `spool`."""

    spool: Spool
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)  # the first paths that were in more than one shard
    in_several: int = 0
    _files: int = 0
    _incomplete: dict[str, str] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Add a report, with all its runs if it is a combined one. Raises sqlite3.Error."""
        heads = report.head.get("runs") or [report.head]
        self.runs.update({head["run"]: {name: head.get(name) for name in _OF_A_RUN} for head in heads})
        self._note_incomplete(report.head)
        for row in report.rows():
            self._take({"run": report.head.get("run"), **row})

    def head(self, version: str) -> dict[str, Any]:
        """Return the head of the combined report, after all reports were added."""
        counts: Counter[str] = Counter()
        skips: Counter[str] = Counter()
        code = Exit.OK
        confirmed = selected = renamed = 0
        for row in self.spool.rows():
            counts[row["outcome"]] += 1
            selected += row.get("size") or 0
            if row["outcome"] == "completed":
                confirmed += row.get("size") or 0
                renamed += "stored_as" in row
            elif row["outcome"] == "skipped":
                skips[str(row.get("reason"))] += 1
            code = worst((code, _code(row)))
        missing = [*_absent_shards(self.runs.values()), *_differences(self.runs.values()), *self._incomplete_runs()]
        if missing:
            code = worst((code, Exit.RETRY_MAY_HELP))
        runs = sorted(self.runs.values(), key=lambda run: str(run["finished"]))
        places = {(run["server"], run["category"], run["dest"]) for run in runs}
        server, category, dest = places.pop() if len(places) == 1 else (None, None, None)
        started = min(str(run["started"]) for run in runs)
        return {
            "format": REPORT_FORMAT,
            "v": REPORT_VERSION,
            "version": version,
            "run": None,
            "server": server,
            "category": category,
            "dest": dest,
            "shard": None,
            "started": started,
            "finished": runs[-1]["finished"],
            "ok": code == Exit.OK,
            "exit_code": int(code),
            "exit": word(code),
            "counts": {"selected": counts.total(), **{name: counts[name] for name in OUTCOMES}},
            "skips": dict(sorted(skips.items())),
            "renamed": renamed,
            "bytes": confirmed,
            "selected_bytes": selected,
            "seconds": _seconds(started, str(runs[-1]["finished"])),
            "in_several_shards": self.in_several,
            "missing": missing,
            "runs": runs,
        }

    def _take(self, row: Row) -> None:
        run = self.runs.get(row["run"], {})
        place = [run.get("server"), run.get("category"), run.get("dest"), row.get("destination")]
        key = json.dumps([*place, row.get("path_b64"), row["path"]])
        before = self._known(key)
        if before is None:
            self.spool.put({**row, "file": self._files}, key)
            self._files += 1
            return
        self._note_twice(row, before)
        if self._outranks(row, before):
            self.spool.put({**row, "file": before["file"]}, key)

    def _known(self, key: str) -> Row | None:
        """Return the row of a file in an earlier report; None without one."""
        found: Iterator[tuple[str]] = self.spool.execute("SELECT row FROM files WHERE key = ?", key)
        return next((json.loads(text) for (text,) in found), None)

    def _outranks(self, row: Row, before: Row) -> bool:
        if _decides(row) != _decides(before):
            return _decides(row)
        if row["run"] == before["run"]:
            return False  # selected twice
        if {row["outcome"], before["outcome"]} == {"completed", "skipped"}:
            return bool(row["outcome"] == "completed")  # it has more details
        ends = [str(self.runs.get(one["run"], {}).get("finished")) for one in (row, before)]
        return ends[0] >= ends[1]

    def _note_twice(self, row: Row, before: Row) -> None:
        """Count a file in different shards; runs of the same shard, or without shards, may share files."""
        shards = [self.runs.get(one["run"], {}).get("shard") for one in (row, before)]
        if row["run"] != before["run"] and all(shards) and shards[0] != shards[1]:
            self.in_several += 1
            if len(self.twice) < FILES_NAMED:
                self.twice.append(row["path"])

    def _note_incomplete(self, head: dict[str, Any]) -> None:
        if head.get("runs"):
            return
        counts = head["counts"]
        unreported = counts.get("selected", 0) - sum(counts.get(name, 0) for name in OUTCOMES)
        if head.get("selection_complete") is False:
            self._incomplete[head["run"]] = "it ended before all files were found"
        elif unreported > 0:
            self._incomplete[head["run"]] = f"it does not report {unreported:,} files"

    def _incomplete_runs(self) -> list[str]:
        """Return the runs that lack files, unless another one resumes them, or is a later run of the same shard."""
        out = []
        complete = [run for name, run in self.runs.items() if name not in self._incomplete]
        for name, why in self._incomplete.items():
            run = self.runs[name]
            if not any(_follows(other, run) for other in complete):
                shard = run["shard"]
                which = f"run {name}" + (f" (shard {shard['index']} of {shard['count']})" if shard else "")
                out.append(f"{which}: {why}")
        return out


def _decides(row: Row) -> bool:
    """Return True where a row decides whether the file is on the server."""
    return row["outcome"] in ("completed", "failed") or row.get("reason") in ("present", "receipt")


def _code(row: Row) -> Exit:
    if row["outcome"] == "failed":
        known = row.get("code") in set(FailureCode)
        code = FailureCode(row["code"]) if known else FailureCode.PROTOCOL
        return of_failure(code, retryable=bool(row.get("retryable")))
    left = row["outcome"] == "cancelled" or row.get("reason") == "fail_fast"
    return Exit.RETRY_MAY_HELP if left else Exit.OK


def _follows(other: dict[str, Any], run: dict[str, Any]) -> bool:
    same_shard = run["shard"] is not None and other["shard"] == run["shard"]
    later = str(other["finished"]) > str(run["finished"])
    return other["resumed_from"] == run["run"] or (same_shard and later)


def _absent_shards(runs: Iterable[dict[str, Any]]) -> list[str]:
    there: dict[int, set[int]] = {}
    for run in runs:
        if run["shard"] is not None:
            there.setdefault(run["shard"]["count"], set()).add(run["shard"]["index"])
    out = []
    for count, found in sorted(there.items()):
        absent = [index for index in range(1, count + 1) if index not in found]
        if absent:
            out.append(f"no report of {_shards(absent)} of {count}")
    if len(there) > 1:
        out.append(f"the reports are of different numbers of shards: {' and '.join(map(str, sorted(there)))}")
    return out


def _differences(runs: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield how the commands of shards differ: by their files, or by their destination."""
    latest = sorted((run for run in runs if run["shard"] is not None), key=lambda run: str(run["finished"]))
    shards = {(run["shard"]["count"], run["shard"]["index"]): run for run in latest}
    for count in sorted({run["shard"]["count"] for run in latest}):
        first, *others = [run for (of, _), run in sorted(shards.items()) if of == count]
        for run in others:
            one, other = (f"shard {each['shard']['index']}" for each in (first, run))
            for name in _PLACE:
                if run[name] != first[name]:
                    yield f"{one} and {other} of {count} have another {name}: {first[name]} and {run[name]}"
            known = [each["all_shards"] for each in (first, run)]
            if None not in known and known[0] != known[1]:
                files = " and ".join(f"{each['files']:,}" for each in known)
                yield f"{one} and {other} of {count} are parts of different selections, of {files} files"


def _shards(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:FILES_NAMED])) + (" …" if len(indices) > FILES_NAMED else "")
    return f"shard {shown}" if len(indices) == 1 else f"shards {shown}"


def _seconds(started: str, finished: str) -> float | None:
    try:
        return round((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds(), 3)
    except (ValueError, TypeError):
        return None

"""The content of reports as JSON values: the head, and a row for each file that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from uploader_cli.core import events as ev
from uploader_cli.core.incidents import Incident
from uploader_cli.core.metrics import LATENCIES
from uploader_cli.core.names import escaped, portable, rfc3339
from uploader_cli.core.origins import concealed
from uploader_cli.core.protocol import utf8
from uploader_cli.core.state import ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.feature import features
from uploader_cli.settings import Settings

REPORT_FORMAT, REPORT_VERSION = "uploader-report", 1
OUTCOMES = ("completed", "failed", "skipped", "cancelled")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report says about a run that is not in its state. `started` is in unix seconds.

    `category` is None at a server without categories, `dest` without `--dest`, `resumed_from` for a new one. `added`
    are fields of features.
    """

    run: str
    version: str
    started: float
    category: str | None = None
    dest: str | None = None
    resumed_from: str | None = None
    added: Mapping[str, Any] = field(default_factory=dict)


class Head(Protocol):
    """A module of a feature about its fields of a report's head (`Feature.head`)."""

    TOTALS: tuple[str, ...]
    """Those that the parts of a selection tell at its end (`Part.totals`)."""

    def of_run(self, settings: Settings) -> dict[str, Any]:
        """Return those that the settings of a run tell."""


def heads() -> list[Head]:
    """Return what features have for heads of reports."""
    return [feature.load(feature.head) for feature in features() if feature.head]


def added_by(settings: Settings) -> dict[str, Any]:
    """Return the fields of features in the head that the settings of a run tell."""
    return {name: value for head in heads() for name, value in head.of_run(settings).items()}


def report_head(state: ProgressState, facts: RunFacts, finished: float) -> dict[str, Any]:
    """Return the report without its files; `finished` is in unix seconds, times in the report are RFC 3339.

    A state without an outcome is that of a run that ended with an exception.
    """
    ended = ev.as_fields(state.outcome) if state.outcome is not None else {"ok": False, "exit_code": int(Exit.BUG)}
    return {
        "format": REPORT_FORMAT,
        "v": REPORT_VERSION,
        "version": facts.version,
        "run": facts.run,
        "resumed_from": facts.resumed_from,
        "server": state.server,
        "protocol": state.protocol,
        "category": facts.category,
        "dest": facts.dest,
        **facts.added,
        "started": rfc3339(facts.started),
        "finished": rfc3339(finished),
        "ok": ended["ok"],
        "exit_code": ended["exit_code"],
        "exit": word(ended["exit_code"]),
        "counts": {name: getattr(state, name) for name in ("selected", *OUTCOMES)},
        "skips": {str(why): n for why, n in sorted(state.skips.items()) if why is not ev.SkipReason.NOT_TRIED},
        "renamed": state.renamed,
        "bytes": state.completed_bytes,
        "selected_bytes": state.selected_bytes,
        "selection_complete": not state.walking,
        **{name: state.of_all.get(name) for head in heads() for name in head.TOTALS},
        "sessions": state.sessions_done,
        "seconds": ended.get("seconds"),
        "rate": ended.get("rate"),
        "channel": ended.get("channel"),
        "peak_rss": ended.get("peak_rss"),
        "bottleneck": state.bottleneck,
        "metrics": ended.get("metrics"),
        "timeline": {"step": state.timeline.step, "bytes": state.timeline.bytes, "files": state.timeline.files},
        "latency_histogram": {"bounds_ms": list(LATENCIES), "counts": state.measures.latency.histogram(LATENCIES)},
        "incidents": {
            "total": state.incidents.total,
            "kept": [_incident(item, facts.started - state.started) for item in state.incidents.kept],
        },
        "trouble": escaped(state.trouble) or None,
        "warnings": [{"code": str(warning.code), "text": escaped(warning.text)} for warning in state.warnings],
    }


def word(code: int) -> str:
    """Return the word for an exit code, as `retry_may_help`."""
    return Exit(code).name.lower()


def _incident(incident: Incident, origin: float) -> dict[str, Any]:
    """Format an incident; `origin` is the run clock's zero in unix seconds."""
    return {
        "kind": str(incident.kind),
        "ts": rfc3339(origin + incident.began),
        "seconds": None if incident.ended is None else round(incident.ended - incident.began, 3),
        "ending": None if incident.ending is None else str(incident.ending),
        "times": incident.times,
        "text": escaped(incident.text),
    }


def row_of(end: ev.FileEnded, dest: str | None = None) -> dict[str, Any]:
    """Return a file's row as JSON values: unknown ones are omitted, an undecodable path is also given in base64.

    `relative_path` is that below `dest`, so that a list of the same files works with the same options.
    """
    out: dict[str, Any] = {}
    for name in end.__struct_fields__:
        value = getattr(end, name)
        if value is not None or name == "size":
            out[name] = str(value) if isinstance(value, StrEnum) else value
    if end.relative_path is not None:
        out["relative_path"] = utf8(end.relative_path.removeprefix(f"{dest}/") if dest else end.relative_path)
    return portable(out)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for readers of a report: of an upload URL only the origin."""
    return row | {"upload_url": concealed(row["upload_url"])} if "upload_url" in row else row

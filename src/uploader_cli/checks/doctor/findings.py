"""The findings of steps and the report, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

Detail = str | int | float | bool | None | list[str]


class Status(StrEnum):
    """The status of a step: `failed` prevents uploads, a `warning` only impairs them."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of a step: its cause, and what to do about it. `exit` is the exit code of a failure."""

    status: Status
    cause: str
    remedy: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)
    exit: Exit = Exit.OK


def fine(cause: str, **details: Detail) -> Finding:
    """Return a finding without problems; `cause` describes what was found."""
    return Finding(Status.OK, cause, details=details)


def warning(cause: str, remedy: str, **details: Detail) -> Finding:
    """Return a finding that impairs uploads."""
    return Finding(Status.WARNING, cause, remedy, details)


def failed(cause: str, remedy: str, exit: Exit = Exit.NO_SERVER, **details: Detail) -> Finding:  # noqa: A002
    """Return a finding that prevents uploads."""
    return Finding(Status.FAILED, cause, remedy, details, exit)


def skipped(because: str) -> Finding:
    """Return the finding of a skipped step."""
    return Finding(Status.SKIPPED, because)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a step; `ms` is its duration. `blocked_by` is the title of a failed step."""

    id: str
    title: str
    ms: float
    finding: Finding
    blocked_by: str = ""

    @property
    def status(self) -> Status:
        """The status of the finding."""
        return self.finding.status

    def as_json(self) -> dict[str, object]:
        """Return the step for `--json`."""
        found = self.finding
        return {
            "id": self.id,
            "title": self.title,
            "status": str(found.status),
            "ms": round(self.ms, 1),
            "cause": found.cause,
            "remedy": found.remedy,
            "details": dict(found.details),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All results. `api_calls` are the requests that count towards a rate limit (docs/protocol.md section 3.11)."""

    server: str
    steps: tuple[Result, ...]
    verdict: str
    exit_code: Exit
    api_calls: int
    ms: float

    @property
    def ok(self) -> bool:
        """True if uploads will work."""
        return self.exit_code is Exit.OK

    @property
    def status(self) -> Status:
        """The overall status: ok only without warnings and failures."""
        if not self.ok:
            return Status.FAILED
        return Status.WARNING if any(step.status is Status.WARNING for step in self.steps) else Status.OK

    def as_json(self) -> dict[str, object]:
        """Return the report for `--json`."""
        return {
            "server": self.server,
            "ok": self.ok,
            "verdict": self.verdict,
            "exit_code": int(self.exit_code),
            "api_calls": self.api_calls,
            "ms": round(self.ms, 1),
            "steps": [step.as_json() for step in self.steps],
        }

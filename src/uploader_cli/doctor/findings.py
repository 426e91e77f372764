"""What a step finds, and what all of them come to, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

Detail = str | int | float | bool | None | list[str]


class Status(StrEnum):
    """How a step ended. `failed` means that no upload is possible; what only makes one worse is a `warning`."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step found: the cause in words, and one concrete thing to do. `exit` is what a failure asks for."""

    status: Status
    cause: str
    remedy: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)
    exit: Exit = Exit.OK


def fine(cause: str, **details: Detail) -> Finding:
    """All is well; `cause` says what was seen."""
    return Finding(Status.OK, cause, details=details)


def warning(cause: str, remedy: str, **details: Detail) -> Finding:
    """Uploads work, but worse than they could."""
    return Finding(Status.WARNING, cause, remedy, details)


def failed(cause: str, remedy: str, exit: Exit = Exit.NO_SERVER, **details: Detail) -> Finding:  # noqa: A002
    """No upload is possible."""
    return Finding(Status.FAILED, cause, remedy, details, exit)


def skipped(because: str) -> Finding:
    """Not looked at."""
    return Finding(Status.SKIPPED, because)


@dataclass(frozen=True, slots=True)
class Result:
    """One step as it is reported; `ms` is the time that it took. `blocked_by` is the title of a step that failed."""

    id: str
    title: str
    ms: float
    finding: Finding
    blocked_by: str = ""

    @property
    def status(self) -> Status:
        """How it ended."""
        return self.finding.status

    def as_json(self) -> dict[str, object]:
        """The step as `--json` shows it."""
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
    """All steps and what they come to. `api_calls` were counted by a server that counts (wire contract 3.11)."""

    server: str
    steps: tuple[Result, ...]
    verdict: str
    exit_code: Exit
    api_calls: int
    ms: float

    @property
    def ok(self) -> bool:
        """True where uploads will work."""
        return self.exit_code is Exit.OK

    @property
    def status(self) -> Status:
        """The whole in one word: ok only where no step has anything to complain of."""
        if not self.ok:
            return Status.FAILED
        return Status.WARNING if any(step.status is Status.WARNING for step in self.steps) else Status.OK

    def as_json(self) -> dict[str, object]:
        """The report as `--json` shows it."""
        return {
            "server": self.server,
            "ok": self.ok,
            "verdict": self.verdict,
            "exit_code": int(self.exit_code),
            "api_calls": self.api_calls,
            "ms": round(self.ms, 1),
            "steps": [step.as_json() for step in self.steps],
        }

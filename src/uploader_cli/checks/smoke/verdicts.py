"""The outcomes of a check, and the report, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uploader_cli.exit_status import Exit, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Verdict(StrEnum):
    """How a check ended.

    `fail`: the server violates the protocol. `error`: the check could not finish (no response, 503). `skipped`: it
    would prove nothing (a check that it needs failed, or there is no token). `not_run`: no requests were left.
    `not_offered`: the server lacks an optional feature.
    """

    PASS = "pass"  # noqa: S105 - not a password
    WARNING = "warning"
    FAIL = "fail"
    ERROR = "error"
    NOT_OFFERED = "not_offered"
    SKIPPED = "skipped"
    NOT_RUN = "not_run"

    @property
    def words(self) -> str:
        """The verdict for display."""
        return self.value.replace("_", " ")


class Violation(Exception):
    """The server violates the protocol: `expected` and `got` are about `what`. `corrupt`: stored bytes differ."""

    def __init__(self, what: str, *, expected: str, got: str, corrupt: bool = False) -> None:
        super().__init__(what)
        self.expected, self.got, self.corrupt = expected, got, corrupt


class Doubtful(Exception):
    """The requirement is met, but something is wrong."""


class NotOffered(Exception):
    """The server does not offer the feature; the message tells how that shows."""


class Needless(Exception):
    """The check would prove nothing here; the message tells why."""


class Prevented(Exception):
    """A precondition of the check failed: it is skipped if one of the checks `by` failed, else it fails itself.

    Its cause may be the `Violation` to report then.
    """

    def __init__(self, why: str, *by: str) -> None:
        super().__init__(why)
        self.by = by


class OutOfCalls(Exception):
    """No requests are left, by the budget or the server's rate limit."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check. `seconds` is its duration, `calls` its counted requests."""

    id: str
    description: str
    required: bool
    verdict: Verdict
    message: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    """What to do next, for an error."""
    means: str = ""
    """The consequence for users, with a failure only."""
    seconds: float = 0.0
    calls: int = 0
    blocked_by: str = ""
    """The ID of the failed check that blocks this one."""
    corrupt: bool = False
    """Whether stored bytes differ from those sent."""

    def counts(self, *, strict: bool) -> bool:
        """Return True if this result makes the run fail."""
        match self.verdict:
            case Verdict.PASS | Verdict.NOT_OFFERED | Verdict.SKIPPED:
                return False
            case Verdict.WARNING:
                return strict
        return self.required or strict

    def as_json(self) -> dict[str, object]:
        """Return the check for `--json`."""
        return {
            "type": "check",
            "id": self.id,
            "description": self.description,
            "required": self.required,
            "verdict": str(self.verdict),
            "seconds": round(self.seconds, 3),
            "calls": self.calls,
            "message": self.message,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
            "means": self.means,
            "blocked_by": self.blocked_by,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks. `left` lists what could not be deleted from the server."""

    server: str
    results: tuple[Result, ...]
    exit_code: Exit
    strict: bool
    calls: int
    budget: int
    seconds: float
    left: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every check that counts passed."""
        return self.exit_code is Exit.OK

    @property
    def against(self) -> tuple[Result, ...]:
        """The results that make the run fail."""
        return tuple(result for result in self.results if result.counts(strict=self.strict))

    @property
    def counted(self) -> Mapping[Verdict, int]:
        """The number of checks by verdict."""
        return {verdict: sum(result.verdict is verdict for result in self.results) for verdict in Verdict}

    def as_json(self) -> dict[str, object]:
        """Return the last line of `--json`."""
        return {
            "type": "verdict",
            "server": self.server,
            "ok": self.ok,
            "exit_code": int(self.exit_code),
            "strict": self.strict,
            "against": [result.id for result in self.against],
            "counts": {str(verdict): count for verdict, count in self.counted.items()},
            "calls": self.calls,
            "budget": self.budget,
            "seconds": round(self.seconds, 3),
            "left": list(self.left),
        }


def exit_of(results: Iterable[Result], *, strict: bool, speaks: bool, refused: bool) -> Exit:
    """Return the exit code: 5 if all requests were refused (`refused`), 6 if no upload server answered."""
    against = [result for result in results if result.counts(strict=strict)]
    if not against:
        return Exit.OK
    if refused:
        return Exit.NOT_AUTHORISED
    if not speaks:
        return Exit.NO_SERVER
    return worst(map(_code, against))


def _code(result: Result) -> Exit:
    if result.corrupt:
        return Exit.INTEGRITY
    return Exit.FAILED_FOR_GOOD if result.verdict in (Verdict.FAIL, Verdict.WARNING) else Exit.RETRY_MAY_HELP

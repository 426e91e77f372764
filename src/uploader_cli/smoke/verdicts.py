"""What a check can come to, and what all of them come to, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uploader_cli.exit_status import Exit, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Verdict(StrEnum):
    """How a check ended.

    `fail` is a promise that the server broke, `error` a check that came to no end (no answer, 503), `skipped` one that
    would prove nothing (what it needs failed already, or no token was given), `not_run` one that there was no call left
    for. What a server does not offer is neither passed nor failed.
    """

    PASS = "pass"  # noqa: S105 - no password
    WARNING = "warning"
    FAIL = "fail"
    ERROR = "error"
    NOT_OFFERED = "not_offered"
    SKIPPED = "skipped"
    NOT_RUN = "not_run"

    @property
    def words(self) -> str:
        """As people read it."""
        return self.value.replace("_", " ")


class Violation(Exception):
    """The server broke a promise: `expected` and `got` are about `what`. `corrupt`: bytes are other than sent."""

    def __init__(self, what: str, *, expected: str, got: str, corrupt: bool = False) -> None:
        super().__init__(what)
        self.expected, self.got, self.corrupt = expected, got, corrupt


class Doubtful(Exception):
    """What is required holds, but something is not as it should be."""


class NotOffered(Exception):
    """The server does not have what the check is about; the words say how that shows."""


class Needless(Exception):
    """The check would prove nothing here; the words say why, and what would let it be made."""


class Prevented(Exception):
    """What the check needs does not work: no news where one of the checks `by` failed, else a failure of this one.

    Its cause may be the `Violation` that it is then.
    """

    def __init__(self, why: str, *by: str) -> None:
        super().__init__(why)
        self.by = by


class OutOfCalls(Exception):
    """No call may be made any more: the budget is spent, or the server's rate limit is."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check as it is reported. `seconds` is the time it took, `calls` are those that servers count."""

    id: str
    description: str
    required: bool
    verdict: Verdict
    message: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    """What to do next, where the check came to no end."""
    means: str = ""
    """What it means for those who upload; with a failure only."""
    seconds: float = 0.0
    calls: int = 0
    blocked_by: str = ""
    """The id of the failed check without which this one makes no sense."""
    corrupt: bool = False
    """Whether the server has other bytes than were sent."""

    def counts(self, *, strict: bool) -> bool:
        """True where this keeps the whole from being a success."""
        match self.verdict:
            case Verdict.PASS | Verdict.NOT_OFFERED | Verdict.SKIPPED:
                return False
            case Verdict.WARNING:
                return strict
        return self.required or strict

    def as_json(self) -> dict[str, object]:
        """The check as `--json` shows it."""
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
    """All checks and what they come to. `left` names what could not be removed from the server."""

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
        """True where every check that counts holds."""
        return self.exit_code is Exit.OK

    @property
    def against(self) -> tuple[Result, ...]:
        """The checks that keep it from being a success."""
        return tuple(result for result in self.results if result.counts(strict=self.strict))

    @property
    def counted(self) -> Mapping[Verdict, int]:
        """How many checks have each verdict."""
        return {verdict: sum(result.verdict is verdict for result in self.results) for verdict in Verdict}

    def as_json(self) -> dict[str, object]:
        """The last line of `--json`."""
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
    """The exit code: 5 where the server let us do nothing (`refused`), 6 where none spoke as an upload server does."""
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

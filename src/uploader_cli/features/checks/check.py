"""A check, what it finds, how it ends, its result, the report of a run; and the run of checks in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import ModuleType
from typing import Any

from uploader_cli.core.masking import mask
from uploader_cli.errors import UploaderError
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.target import CheckedServer


class Verdict(StrEnum):
    """How a check ended.

    `fail`: the expectation is not met. `error`: the check could not finish (no response, 503). `skipped`: it would
    prove nothing (a check that it needs failed, or there is no token). `not_run`: no requests were left.
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
        return self.value.replace("_", " ")


BROKEN = (Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `hint` says how to fix it, `exit` is the exit code if it counts."""

    verdict: Verdict
    message: str = ""
    hint: str = ""
    exit: Exit = Exit.OK
    expected: str = ""
    got: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def _constructor(verdict: Verdict, code: Exit = Exit.OK) -> Callable[..., Finding]:
    """Return a function that takes a message, a hint, an exit code, and details as keywords."""

    def make(message: str = "", hint: str = "", exit: Exit = code, **details: Any) -> Finding:  # noqa: A002
        return Finding(verdict, message, hint, exit, details=details)

    return make


passed, warning, skipped = _constructor(Verdict.PASS), _constructor(Verdict.WARNING), _constructor(Verdict.SKIPPED)
failed = _constructor(Verdict.FAIL, Exit.NO_SERVER)


def sentence(hint: str) -> str:
    hint = hint or "try again"
    return hint[0].upper() + hint[1:] + ("" if hint.endswith(("?", ".")) else ".")


class Ended(Exception):
    """Ends a check with `finding`."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class NotOffered(Ended):
    """The server does not offer the feature; `why` tells how that shows."""

    def __init__(self, why: str) -> None:
        super().__init__(Finding(Verdict.NOT_OFFERED, why))


class OutOfCalls(Ended):
    """No requests are left, by the budget or the server's rate limit."""

    def __init__(self, why: str) -> None:
        super().__init__(Finding(Verdict.NOT_RUN, why, exit=Exit.RETRY_MAY_HELP))


class Violation(Ended):
    """The server violates the protocol: `expected` and `got` are about `what`. `corrupt`: stored bytes differ."""

    def __init__(self, what: str, *, expected: str, got: str, corrupt: bool = False) -> None:
        code = Exit.INTEGRITY if corrupt else Exit.FAILED_FOR_GOOD
        super().__init__(Finding(Verdict.FAIL, what, exit=code, expected=expected, got=got))


class Prevented(Ended):
    """A precondition of the check failed: it is skipped if one of the checks `by` failed, else it fails itself."""

    def __init__(self, why: str, *by: str, violation: Violation | None = None) -> None:
        """`violation` is the failure to report then, instead of an error."""
        super().__init__(violation.finding if violation else Finding(Verdict.ERROR, why, exit=Exit.RETRY_MAY_HELP))
        self.by = by


@contextmanager
def precondition(by: str, what: str = "") -> Iterator[None]:
    """Raise `Prevented` for a failure in the block, which is the subject of the check `by`."""
    try:
        yield
    except Violation as violation:
        raise Prevented(str(violation), by, violation=violation) from violation
    except UploaderError as error:
        raise Prevented(f"{what}{error}", by) from error


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `look` gets the server and returns its finding; a text or None means that the check passed."""

    id: str
    description: str
    look: Callable[[Any], Finding | str | None]
    means: str = ""  # the consequence of a failure for users
    rests_on: str = ""  # the ID of a check without which this one is meaningless
    required: bool = True  # whether uploads need what is checked


def check(
    check_id: str, description: str, means: str = "", *, rests_on: str = "", required: bool = True
) -> Callable[[Callable[[Any], Finding | str | None]], Check]:
    return lambda look: Check(check_id, description, look, means, rests_on, required)


def checks_of(*modules: ModuleType) -> tuple[Check, ...]:
    """Return the checks of these modules in the order of their definition."""
    return tuple(each for module in modules for each in vars(module).values() if isinstance(each, Check))


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check: its finding, its duration, and its counted requests."""

    check: Check
    finding: Finding
    seconds: float = 0.0
    calls: int = 0
    blocked_by: str = ""  # the ID of the failed check that blocks this one

    @property
    def id(self) -> str:
        return self.check.id

    @property
    def verdict(self) -> Verdict:
        return self.finding.verdict

    @property
    def details(self) -> dict[str, str]:
        """What a failure is reported with; `means` is its consequence for users."""
        found, means = self.finding, self.check.means if self.verdict in BROKEN else ""
        return {"hint": found.hint, "expected": found.expected, "got": found.got, "means": means}


def counts(result: Checked, *, strict: bool) -> bool:
    """Return True if this result makes the run fail."""
    if result.verdict in (Verdict.PASS, Verdict.NOT_OFFERED, Verdict.SKIPPED):
        return False
    return strict or (result.check.required and result.verdict is not Verdict.WARNING)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All results, summarized by one verdict and one sentence. `calls` are counted requests.

    For `smoke`, `budget` is the maximum of calls, `left` lists what could not be deleted from the server, and `notes`
    has what the checks found out about it.
    """

    server: str
    results: tuple[Checked, ...]
    verdict: Verdict
    summary: str
    exit_code: Exit
    calls: int
    seconds: float
    strict: bool = False
    budget: int = 0
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that counts passed."""
        return self.exit_code is Exit.OK


class Stopped(BaseException):
    """A signal asked to stop; `code` is the exit code. Raised in the main thread."""

    def __init__(self, code: Exit) -> None:
        super().__init__()
        self.code = code


def run(
    target: CheckedServer,
    checks: Sequence[Check],
    make: Callable[[Check, Sequence[Checked]], Checked],
    *,
    clean_up: Callable[[], None],
    begin: Callable[[Check], None],
    tell: Callable[[Checked], None],
) -> tuple[list[Checked], Exit | None]:
    """Return the results, in which those of interrupted checks are missing, and the exit code of an interruption.

    `make` gets a check and the earlier results; `begin` is called before each check, `tell` after it. `Stopped` ends
    the checks, but not the clean-up; a second one ends that, too. Closes the target.
    """
    results: list[Checked] = []
    stopped: Exit | None = None
    try:
        for check in checks:
            begin(check)
            calls, began = target.calls, time.perf_counter()
            result = make(check, results)
            took = time.perf_counter() - began
            finding = _masked(result.finding)
            results.append(replace(result, finding=finding, seconds=took, calls=target.calls - calls))
            tell(results[-1])
    except Stopped as stop:
        stopped = stop.code
    finally:
        with closing(target):
            try:
                clean_up()
            except Stopped as stop:
                stopped = stop.code
    return results, stopped


def _masked(finding: Finding) -> Finding:
    """Mask secrets, since findings quote responses and URLs."""
    texts = {name: mask(getattr(finding, name)) for name in ("message", "hint", "expected", "got")}
    details = {key: mask(value) if isinstance(value, str) else value for key, value in finding.details.items()}
    return replace(finding, details=details, **texts)  # type: ignore[arg-type]

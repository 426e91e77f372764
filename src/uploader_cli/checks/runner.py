"""Run checks in order: time each, count its requests, and mask secrets in what it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from uploader_cli.checks.result import Check, Result
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.result import Finding
    from uploader_cli.checks.target import Target
    from uploader_cli.exit_status import Exit

Begin = Callable[[Check], None]
Tell = Callable[[Result], None]


class Stopped(BaseException):
    """A signal asked to stop; `code` is the exit code. Raised in the main thread."""

    def __init__(self, code: Exit) -> None:
        super().__init__()
        self.code = code


def run(
    target: Target,
    checks: Sequence[Check],
    make: Callable[[Check, Sequence[Result]], Result],
    *,
    clean_up: Callable[[], None],
    begin: Begin,
    tell: Tell,
) -> tuple[list[Result], Exit | None]:
    """Return the results, in which those of interrupted checks are missing, and the exit code of an interruption.

    `make` gets a check and the earlier results; `begin` is called before each check, `tell` after it. `Stopped` ends
    the checks, but not the clean-up; a second one ends that, too. Closes the target.
    """
    results: list[Result] = []
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

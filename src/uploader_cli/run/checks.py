"""The commands `doctor` and `smoke`: print each result as its check ends, or JSON."""

from __future__ import annotations

import secrets
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from uploader_cli import signals
from uploader_cli.checks.doctor import Context, examine
from uploader_cli.checks.doctor.findings import Status
from uploader_cli.checks.doctor.text_report import Page as DoctorPage
from uploader_cli.checks.smoke import CHECKS, Site, Stopped, chosen, run_checks
from uploader_cli.checks.smoke.junit import junit
from uploader_cli.checks.smoke.text_report import Page as SmokePage
from uploader_cli.core.names import json_line
from uploader_cli.exit_status import Exit
from uploader_cli.report import output_file
from uploader_cli.report.recorder import Notices
from uploader_cli.run.reports import settled
from uploader_cli.run.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uploader_cli.checks.doctor import Report as Examination
    from uploader_cli.checks.doctor import Result as Examined
    from uploader_cli.checks.smoke import Check, Report, Result
    from uploader_cli.settings import Settings


def doctor(settings: Settings, *, session: str | None = None, new_session: bool = False) -> int:
    """Diagnose the connection to the server; the exit code tells whether uploads will work."""
    context = Context(settings, session=session, new_session=new_session)
    if settings.json:
        report = examine(context)
        sys.stdout.write(json_line(report.as_json()))
        sys.stdout.flush()
        return report.exit_code
    screen = _DoctorScreen(settings)
    screen.begin(settings.server)
    report = examine(context, begin=screen.running, tell=screen.tell)
    screen.end(report)
    return report.exit_code


class _DoctorScreen:
    """Prints steps on stderr; on a terminal also the running step, until its result replaces it."""

    def __init__(self, settings: Settings) -> None:
        self._quiet = settings.quiet
        self._blocked: list[Examined] = []
        self._out = out = Terminal(quiet=settings.quiet)
        self._page = DoctorPage(width=out.width, color=out.color, glyphs=out.glyphs, verbose=bool(settings.verbose))

    def begin(self, server: str) -> None:
        """Print the heading."""
        if not self._quiet:
            self._out.write(self._page.heading(server))

    def running(self, title: str) -> None:
        """Show the running step, which may take seconds."""
        self._out.passing(f"  {title} …")

    def tell(self, result: Examined) -> None:
        """Print a finished step."""
        self._out.passing("")
        if result.blocked_by:
            self._blocked.append(result)
            return
        self._flush()
        if not self._quiet or result.status is Status.FAILED:
            self._out.write(self._page.step(result))

    def end(self, report: Examination) -> None:
        """Print the verdict."""
        self._flush()
        if not self._quiet or not report.ok:
            self._out.write(self._page.verdict(report))

    def _flush(self) -> None:
        if self._blocked and not self._quiet:
            self._out.write(self._page.blocked(self._blocked))
        self._blocked = []


def smoke_checks() -> tuple[str, ...]:
    """Return the IDs of all checks."""
    return tuple(check.id for check in CHECKS)


def smoke_list() -> None:
    """Print the IDs and descriptions of all checks, for `--only` and `--skip`."""
    longest = max(len(check.id) for check in CHECKS)
    for check in CHECKS:
        optional = "" if check.required else " (not required)"
        sys.stdout.write(f"{check.id:<{longest}}  {check.description}{optional}\n")


def smoke(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    file: Path | None = None,
    strict: bool = False,
    budget: int,
) -> int:
    """Run the checks; the exit code tells whether the server passed. Raises `UsageError` before the first request."""
    checks = chosen(only, skip)
    if file is not None:
        output_file.check(file, "--junit")
    site = Site(settings, budget=budget)
    view: _Lines | _SmokeScreen = _Lines() if settings.json else _SmokeScreen(settings)
    view.begin(settings.server)
    try:
        with _stoppable():
            report = run_checks(site, checks, strict=strict, begin=view.running, tell=view.tell)
    except Stopped as stop:  # a signal after the last check
        return stop.code
    view.end(report)
    return report.exit_code if file is None else settled(report.exit_code, [_save(file, report)])


def _save(file: Path, report: Report) -> Notices:
    """Write the JUnit file; record a failure in the result."""
    notices = Notices()
    try:
        output_file.write(file, junit(report, datetime.now(UTC)), secrets.token_hex(4))
    except OSError as error:
        notices.problems.append(f"--junit: {file} can't be written: {error.strerror}")
    return notices


@contextmanager
def _stoppable() -> Iterator[None]:
    """End the checks on a signal, but clean up; a second signal ends the clean-up, too."""

    def stop(number: int, _frame: Any) -> None:
        raise Stopped(Exit(signals.CODES[signal.Signals(number)]))

    before = {number: signal.signal(number, stop) for number in signals.CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lines:
    """Prints JSON lines on stdout: one per check and one for the verdict."""

    def begin(self, server: str) -> None:
        """Do nothing: the verdict names the server."""

    def running(self, check: Check) -> None:
        """Do nothing: the line is printed when the check ends."""

    def tell(self, result: Result) -> None:
        """Print a finished check."""
        self._write(result.as_json())

    def end(self, report: Report) -> None:
        """Print the verdict."""
        self._write(report.as_json())

    def _write(self, line: dict[str, object]) -> None:
        sys.stdout.write(json_line(line))
        sys.stdout.flush()


class _SmokeScreen:
    """Prints lines on stderr; on a terminal also the running check, until its result replaces it."""

    def __init__(self, settings: Settings) -> None:
        self._quiet = settings.quiet
        self._out = out = Terminal(quiet=settings.quiet)
        self._page = SmokePage(width=out.width, color=out.color, glyphs=out.glyphs, verbose=bool(settings.verbose))

    def begin(self, server: str) -> None:
        """Print the heading."""
        if not self._quiet:
            self._out.write(self._page.heading(server))

    def running(self, check: Check) -> None:
        """Show the running check, which may take seconds."""
        self._out.passing(self._page.running(check.id))

    def tell(self, result: Result) -> None:
        """Print a finished check."""
        self._out.passing("")
        if not self._quiet:
            self._out.write(self._page.row(result))

    def end(self, report: Report) -> None:
        """Print the failures, what was left on the server, and the verdict."""
        if self._quiet and report.ok:
            return
        page = self._page
        shown = report.against if self._quiet else report.results
        lines = [*page.failures(shown), *page.left(report), *page.verdict(report)]
        self._out.write(lines[1:] if self._quiet else lines)

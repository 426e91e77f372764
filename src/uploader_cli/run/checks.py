"""The commands `doctor` and `smoke`: print each result as its check ends, or JSON."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from uploader_cli.checks.check import Check, Checked, CheckReport, Stopped
from uploader_cli.checks.doctor import examine
from uploader_cli.checks.doctor.context import DoctorContext
from uploader_cli.checks.doctor.doctor_report import DoctorPage, as_json
from uploader_cli.checks.smoke import CHECKS, OF_ENDPOINTS, chosen, run_checks
from uploader_cli.checks.smoke.site import Site
from uploader_cli.checks.smoke.smoke_report import (
    SmokePage,
    annotation,
    check_json,
    counts,
    junit,
    markdown,
    report_json,
)
from uploader_cli.core.names import json_line
from uploader_cli.exit_status import Exit
from uploader_cli.named_files import check_output
from uploader_cli.render import columns, github, in_ci, use_color
from uploader_cli.report import output_file
from uploader_cli.report.recorder import Notices
from uploader_cli.report.run_files import STEP_SUMMARY, append_summary, settled
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.settings import Settings


def doctor(settings: Settings, *, session: str | None = None, new_session: bool = False) -> int:
    """Diagnose the connection to the server; the exit code says whether uploads will work."""
    context = DoctorContext(settings, session=session, new_session=new_session)
    if settings.json:
        report = examine(context)
        _write(as_json(report))
    else:
        screen = _Screen(settings, DoctorPage)
        report = examine(context, begin=screen.running, tell=screen.tell)
        screen.write(screen.page.end(report))
    return report.exit_code


def smoke_checks() -> tuple[str, ...]:
    """Return the IDs of all checks."""
    return tuple(check.id for check in CHECKS)


def smoke_list() -> int:
    """Print the IDs and descriptions of all checks, for `--only` and `--skip`."""
    longest = max(len(check.id) for check in CHECKS)
    for check in CHECKS:
        optional = "" if check.required else " (not required)"
        sys.stdout.write(f"{check.id:<{longest}}  {check.description}{optional}\n")
    return Exit.OK


def smoke(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    file: Path | None = None,
    strict: bool = False,
    budget: int,
) -> int:
    """Run the checks; the exit code says whether the server passed. Raises `UsageError` before the first request."""
    checks = chosen(only, skip, OF_ENDPOINTS if settings.tus_endpoint else CHECKS)
    if file is not None:
        check_output(file, "--junit")
    site = Site(settings, budget=budget)
    screen = None if settings.json else _Screen(settings, partial(SmokePage, strict=strict))
    annotations = github.MOST_ANNOTATIONS if github.wanted(os.environ) else 0

    def tell(result: Checked) -> None:
        """Print a result once: a failure as an annotation, if there is one; `--json` prints all on stdout."""
        nonlocal annotations
        if screen is None:
            _write(check_json(result))
        if annotations and counts(result, strict=strict):
            annotations -= 1
            sys.stderr.write(annotation(result))
            sys.stderr.flush()
        elif screen is not None:
            screen.tell(result)

    try:
        interrupts = Interrupts(error=Stopped)
        with interruptible(interrupts), interrupts.raising():
            begin = screen.running if screen is not None else lambda _check: None
            report = run_checks(site, checks, strict=strict, begin=begin, tell=tell)
            if screen is None:
                _write(report_json(report))
            else:
                screen.write(screen.page.end(report))
            return settled(report.exit_code, [_save(file, report)])
    except Stopped as stop:  # a signal after the last check
        return stop.code


def _save(file: Path | None, report: CheckReport) -> Notices:
    """Write the JUnit file and the summary of the step; record failures in the result."""
    notices = Notices()
    if file is not None:
        try:
            output_file.write(file, junit(report, datetime.now(UTC)), secrets.token_hex(4))
        except OSError as error:
            notices.problems.append(f"--junit: {file} can't be written: {error.strerror}")
    if os.environ.get(STEP_SUMMARY):
        note = append_summary(Path(os.environ[STEP_SUMMARY]), markdown(report))
        notices.notes += [note] if note else []
    return notices


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json_line(line))
    sys.stdout.flush()


class _Screen:
    """Prints a page on stderr; on a terminal also the running check, until its result replaces it."""

    def __init__(self, settings: Settings, kind: Callable[..., DoctorPage | SmokePage]) -> None:
        tty = sys.stderr.isatty()
        plain = settings.quiet or os.environ.get("TERM") == "dumb" or in_ci(os.environ) or github.wanted(os.environ)
        self._moves = tty and not plain
        self.page = kind(
            width=columns(80),
            color=use_color(os.environ, is_tty=tty),
            glyphs=(sys.stderr.encoding or "ascii").lower().replace("-", "") == "utf8",
            verbose=bool(settings.verbose),
            quiet=settings.quiet,
        )
        self.write(self.page.heading(settings.target_url))

    def running(self, check: Check) -> None:
        """Show the running check, which may take seconds."""
        self._replace(self.page.running(check))

    def tell(self, result: Checked) -> None:
        """Print a finished check."""
        self._replace("")
        self.write(self.page.row(result))

    def write(self, lines: Sequence[str]) -> None:
        """Print lines, if there are any."""
        if lines:
            sys.stderr.write("\n".join(lines) + "\n")
            sys.stderr.flush()

    def _replace(self, line: str) -> None:
        if self._moves:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

"""The `doctor` command: print each step as it ends, or one JSON object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from uploader_cli.core.names import json_line
from uploader_cli.doctor import Context, examine
from uploader_cli.doctor.findings import Status
from uploader_cli.doctor.text_report import Page
from uploader_cli.run.terminal import Terminal

if TYPE_CHECKING:
    from uploader_cli.doctor import Report, Result
    from uploader_cli.settings import Settings


def doctor(settings: Settings, *, session: str | None = None, new_session: bool = False) -> int:
    """Diagnose the connection to the server; the exit code tells whether uploads will work."""
    context = Context(settings, session=session, new_session=new_session)
    if settings.json:
        report = examine(context)
        sys.stdout.write(json_line(report.as_json()))
        sys.stdout.flush()
        return report.exit_code
    screen = _Screen(settings)
    screen.begin(settings.server)
    report = examine(context, begin=screen.running, tell=screen.tell)
    screen.end(report)
    return report.exit_code


class _Screen:
    """Prints steps on stderr; on a terminal also the running step, until its result replaces it."""

    def __init__(self, settings: Settings) -> None:
        self._quiet = settings.quiet
        self._blocked: list[Result] = []
        self._out = out = Terminal(quiet=settings.quiet)
        self._page = Page(width=out.width, color=out.color, glyphs=out.glyphs, verbose=bool(settings.verbose))

    def begin(self, server: str) -> None:
        """Print the heading."""
        if not self._quiet:
            self._out.write(self._page.heading(server))

    def running(self, title: str) -> None:
        """Show the running step, which may take seconds."""
        self._out.passing(f"  {title} …")

    def tell(self, result: Result) -> None:
        """Print a finished step."""
        self._out.passing("")
        if result.blocked_by:
            self._blocked.append(result)
            return
        self._flush()
        if not self._quiet or result.status is Status.FAILED:
            self._out.write(self._page.step(result))

    def end(self, report: Report) -> None:
        """Print the verdict."""
        self._flush()
        if not self._quiet or not report.ok:
            self._out.write(self._page.verdict(report))

    def _flush(self) -> None:
        if self._blocked and not self._quiet:
            self._out.write(self._page.blocked(self._blocked))
        self._blocked = []

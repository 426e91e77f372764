"""`doctor` as a person or a script runs it: steps as they are taken, or one JSON object."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from uploader_cli.doctor import Visit, examine
from uploader_cli.doctor.findings import Status
from uploader_cli.doctor.shown import Page
from uploader_cli.render import in_ci, use_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.doctor import Report, Result
    from uploader_cli.settings import Settings


def doctor(settings: Settings, *, session: str | None = None, new_session: bool = False) -> int:
    """Examine the way to the server; the exit code says whether uploads will work."""
    visit = Visit(settings, session=session, new_session=new_session)
    if settings.json:
        report = examine(visit)
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return report.exit_code
    screen = _Screen(settings)
    screen.begin(settings.server)
    report = examine(visit, begin=screen.looking, tell=screen.tell)
    screen.end(report)
    return report.exit_code


class _Screen:
    """Lines on stderr; on a terminal also the step under way, which its result then replaces."""

    def __init__(self, settings: Settings) -> None:
        tty = sys.stderr.isatty()
        encoding = (sys.stderr.encoding or "ascii").lower().replace("-", "")
        self._quiet = settings.quiet
        self._blocked: list[Result] = []
        self._moves = tty and not settings.quiet and os.environ.get("TERM") != "dumb" and not in_ci(os.environ)
        self._page = Page(
            width=_width(),
            color=use_color(os.environ, is_tty=tty),
            glyphs=encoding == "utf8",
            verbose=bool(settings.verbose),
        )

    def begin(self, server: str) -> None:
        """Say what is examined."""
        if not self._quiet:
            self._write(self._page.heading(server))

    def looking(self, title: str) -> None:
        """A step begins: it may take seconds."""
        if self._moves:
            sys.stderr.write(f"\r\x1b[K  {title} …")
            sys.stderr.flush()

    def tell(self, result: Result) -> None:
        """A step has ended."""
        if self._moves:
            sys.stderr.write("\r\x1b[K")
        if result.blocked_by:
            self._blocked.append(result)
            return
        self._flush()
        if not self._quiet or result.status is Status.FAILED:
            self._write(self._page.step(result))

    def end(self, report: Report) -> None:
        """The verdict."""
        self._flush()
        if not self._quiet or not report.ok:
            self._write(self._page.verdict(report))

    def _flush(self) -> None:
        if self._blocked and not self._quiet:
            self._write(self._page.blocked(self._blocked))
        self._blocked = []

    def _write(self, lines: Sequence[str]) -> None:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def _width() -> int:
    """Columns of the terminal; 80 where there is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80

"""What a command shows: the views, log file and summary of a run, and notes about settings."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uploader_cli.core.masking import mask
from uploader_cli.core.plan import is_secret_url
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.feature import job_page
from uploader_cli.named_files import naming
from uploader_cli.render import choose, columns, use_color, use_links
from uploader_cli.render.words import safe
from uploader_cli.settings import OPTIONS, Layer, Settings

if TYPE_CHECKING:
    from uploader_cli.render.logfile import LogFile


def observers(
    settings: Settings,
    run_id: str,
    keys: Mapping[str, Callable[[], str]] | None = None,
    *,
    resume_hint: str = "",
    lasting: bool = True,
) -> list[Observer]:
    """Return the observers of a run, in closing order: the view is closed before the summary is printed.

    `keys` is `Interrupts.keys`; `resume_hint` is the command that resumes the run, if it can be resumed.
    `lasting=False`: the server ends with the run, so that no URL is shown.
    """
    out: list[Observer] = []
    tty = sys.stderr.isatty()
    kind = choose(
        settings.progress,
        stderr_is_tty=tty,
        env=os.environ,
        quiet=settings.quiet,
        json_on_tty=settings.json and tty and sys.stdout.isatty(),
    )
    color = use_color(os.environ, is_tty=tty)
    if settings.json:
        from uploader_cli.render.ndjson import NdjsonView

        out.append(NdjsonView(sys.stdout, run_id))
    page = job_page(os.environ)
    annotated = page.most if page is not None else 0
    if page is not None and annotated:
        out.append(page.observer(sys.stderr))
    if kind == "live":
        from uploader_cli.render.live import LiveView

        run, messages = run_id if resume_hint else "", settings.verbose > 0
        out.append(LiveView(sys.stderr, color=color, run=run, messages=messages, keys=keys))
    elif kind == "plain":
        from uploader_cli.render.plain import PlainView

        out.append(PlainView(sys.stderr, verbose=settings.verbose, quiet=settings.quiet, annotated=annotated))
    log = open_log(settings, run_id)
    if log is not None:
        out.append(log)  # it may print a warning after the view is closed
    summary = _Summary(
        quiet=settings.quiet or (settings.json and kind == "none"),
        color=color,
        resume_hint=resume_hint,
        failed_to=str(settings.failed_to or ""),
        verbose=settings.verbose > 0,
        listed=kind == "plain",
        urls="none" if not lasting else "links" if use_links(os.environ, is_tty=tty) else "text",
    )
    out.append(summary)
    return out


def resume_hint(settings: Settings, paths: Sequence[str]) -> str:
    """Return what continues a run: its command, and `resume` where the journal has all that it needs."""
    if any(is_secret_url(path) for path in paths):
        return "run the same command again"
    return f"{resume_line(settings)}, or the same command again"


def resume_line(settings: Settings, run_id: str = "") -> str:
    """Return the command that resumes a run, by default the newest, whose journal these settings name.

    It has the flags that no run stores and that its server may be out of reach without.
    """
    source = settings.source("state_dir")
    command = f"uploader resume {run_id}".rstrip()
    if source.layer is Layer.FLAG:
        command += f" --state-dir {shlex.quote(str(settings.state_dir))}"
    elif source.layer is Layer.USER_PROFILE:
        command += f" --profile {shlex.quote(settings.profile or '')}"
    for name in ("ca_bundle", "client_cert", "proxy"):
        value = str(getattr(settings, name))
        if settings.source(name).layer is Layer.FLAG and mask(value) == value:
            command += f" {OPTIONS[name].flag} {shlex.quote(value)}"
    return command


class _Summary(Observer):
    """Prints the summary on stderr after the run; with `quiet` only if something went wrong."""

    def __init__(self, *, quiet: bool, **options: Any) -> None:
        """`options` are those of `render.summary.summary`."""
        self._quiet, self._options = quiet, options

    def close(self, state: ProgressState, _now: float) -> None:
        outcome = state.outcome
        if outcome is None or (self._quiet and outcome.ok):
            return
        from uploader_cli.render.summary import summary

        lines = summary(state, outcome, width=columns(), **self._options)
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def open_log(settings: Settings, run_id: str) -> LogFile | None:
    """Open the log of this run; None without `--log-file`. Raise `UsageError` if the file can't be written.

    A new file is private: the URL of an upload, which the log contains, is enough to write to it on some servers.
    """
    if settings.log_file is None:
        return None
    from uploader_cli.render.logfile import LogFile, LogLines

    def lost(why: str) -> None:
        sys.stderr.write(f"warning: the log file is not complete: {why}\n")

    with naming(settings.source("log_file"), settings.log_file, "written", hint="use a writable file"):
        stream = LogLines(settings.log_file)
    return LogFile(stream, run_id, time.time, level=settings.log_level, mask=mask, lost=lost)


def print_notes(settings: Settings) -> None:
    """Print the notes about ignored settings, unless `--quiet`."""
    for note in () if settings.quiet else settings.notes:
        sys.stderr.write(f"note: {safe(note)}\n")

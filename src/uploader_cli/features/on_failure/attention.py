"""`--on-failure`: run the user's command once when a run needs attention."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uploader_cli.core.events import Event, FileEnded, Phase
from uploader_cli.core.incidents import needs_person
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.report.document import RunFacts, report_head, row_of, shown
from uploader_cli.settings import Settings

LIMIT = 60.0
"""Maximum seconds for the command."""
MOST_FAILURES = 1000
"""Maximum failed files in the command's input; the rest is counted."""
_LOOK = 0.1
"""Seconds between two checks for an interrupt."""


def observer(settings: Settings, facts: RunFacts, interrupted: Callable[[], int]) -> OnFailure:
    """Return what runs the command of these settings."""
    return OnFailure(settings.on_failure, facts, interrupted)


class OnFailure(Observer):
    """An observer that collects failed files and at the end passes the report to the command if needed.

    It must be closed last. A failure of the command is only a warning.
    """

    def __init__(self, command: str, facts: RunFacts, interrupted: Callable[[], int], *, limit: float = LIMIT) -> None:
        """`interrupted` counts interrupts: another one stops the command. `limit` is in seconds."""
        self._command, self._facts, self._interrupted, self._limit = command, facts, interrupted, limit
        self._failed: list[FileEnded] = []

    def handle(self, event: Event, _state: ProgressState, _now: float) -> None:
        if isinstance(event, FileEnded) and event.outcome is Phase.FAILED and len(self._failed) < MOST_FAILURES:
            self._failed.append(event)

    def close(self, state: ProgressState, _now: float) -> None:
        if not needs_person(state.outcome):
            return
        files = [shown(row_of(end, self._facts.dest)) for end in self._failed]
        document = {**report_head(state, self._facts, time.time()), "files": files}
        document["files_left_out"] = state.failed - len(self._failed)
        problem = self._run(json.dumps(document).encode())
        if problem:
            sys.stderr.write(f"warning: --on-failure: {problem}\n")
            sys.stderr.flush()

    def _run(self, report: bytes) -> str:
        """Run the command; return what went wrong. The command itself is not shown: it may contain a secret."""
        before, until = self._interrupted(), time.monotonic() + self._limit
        try:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S602 - the user's command; an untrusted directory can't set it
                self._command,
                shell=True,
                stdin=subprocess.PIPE,
                stdout=2,  # stdout is for --json
                start_new_session=True,  # to stop its children, too
            )
        except OSError as error:
            return f"the command could not be started: {error.strerror}"
        given: Any = report
        while True:
            try:
                process.communicate(given, timeout=_LOOK)
            except subprocess.TimeoutExpired:
                given = None  # Popen remembers the rest
            else:
                return f"the command failed with exit code {process.returncode}" if process.returncode else ""
            if self._interrupted() > before:
                _stop(process)
                return "the command was stopped"
            if time.monotonic() > until:
                _stop(process)
                return f"the command was stopped after {self._limit:.0f} s"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and its children."""
    with suppress(ProcessLookupError, PermissionError):  # it has just ended
        os.killpg(process.pid, signal.SIGKILL)  # it leads its own group
    process.wait()
    if process.stdin is not None:
        process.stdin.close()

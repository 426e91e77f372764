"""Annotations of GitHub Actions: `::error …::message` lines, which a job's page shows beside its steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from uploader_cli.core import events as ev
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.render.words import safe

MOST_ANNOTATIONS = 10  # GitHub shows ten errors of a step
ENDS = (ev.WarningCode.RUN_ENDED, ev.WarningCode.DEADLINE)  # warnings that are annotated: they end the run


def wanted(env: Mapping[str, str]) -> bool:
    return env.get("GITHUB_ACTIONS") == "true"


def error(message: str, **properties: str) -> str:
    """Return the line of an error; `file` and `title` are properties."""
    shown = ",".join(f"{name}={_property(text)}" for name, text in properties.items())
    return f"::error{' ' if shown else ''}{shown}::{_data(message)}\n"


def _data(text: str) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return safe(text)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


class Annotations(Observer):
    """Write the first failures of an upload. Files below the workspace are named as in the repository."""

    def __init__(self, stream: TextIO, env: Mapping[str, str]) -> None:
        self._stream, self._workspace = stream, env.get("GITHUB_WORKSPACE", "")

    def handle(self, event: ev.Event, state: ProgressState, _now: float) -> None:
        """Write a line for a failed file, and for what ends the run."""
        match event:
            case ev.FileFailed() if state.failed <= MOST_ANNOTATIONS:
                self._write(error(f"{event.path}: {event.message[:500]}", file=self._named(event.path)))
            case ev.RunWarning() if event.code in ENDS:
                self._write(error(event.text[:500]))

    def _named(self, path: str) -> str:
        where = os.path.relpath(path, self._workspace) if self._workspace else path
        return path if where.startswith(os.pardir) else where

    def _write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

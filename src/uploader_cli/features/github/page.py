"""Annotations, which are `::error …::message` lines, and the summary of the step, which is a file of Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from uploader_cli.core import events as ev
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.named_files import Pipe
from uploader_cli.render.words import safe
from uploader_cli.report import output_file

if TYPE_CHECKING:
    from uploader_cli.report.recorder import Output, Spool

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
MOST_ANNOTATIONS = 10  # GitHub shows ten errors of a step
ENDS = (ev.WarningCode.RUN_ENDED, ev.WarningCode.DEADLINE)  # warnings that are annotated: they end the run


class GithubPage:
    """The page of a job of GitHub Actions."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.most = MOST_ANNOTATIONS if env.get("GITHUB_ACTIONS") == "true" else 0
        self._workspace = env.get("GITHUB_WORKSPACE", "")
        self._summary = Path(env[STEP_SUMMARY]) if env.get(STEP_SUMMARY) else None

    def observer(self, stream: TextIO) -> Observer:
        return Annotations(stream, self._workspace)

    def error(self, message: str, **properties: str) -> str:
        return error(message, **properties)

    def outputs(self) -> list[Output]:
        return [self._summarize_run] if self._summary else []

    def summarize(self, text: Iterable[str]) -> str:
        if self._summary is None:
            return ""
        try:
            append(self._summary, text)
        except OSError as problem:
            return f"{STEP_SUMMARY}: {self._summary} can't be written: {problem.strerror}"
        return ""

    def _summarize_run(self, head: dict[str, Any], spool: Spool) -> str:
        from uploader_cli.features.reports.markdown import as_markdown

        return self.summarize(as_markdown(head, spool))


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

    def __init__(self, stream: TextIO, workspace: str) -> None:
        self._stream, self._workspace = stream, workspace

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


def append(path: Path, text: Iterable[str]) -> None:
    """Append all of the text to the file, or nothing. Raises OSError."""
    left = memoryview("".join(text).encode("utf-8", "surrogateescape"))
    if output_file.is_special(path):
        with BufferedWriter(Pipe(path, os.O_WRONLY)) as pipe:
            pipe.write(left)
        return
    with path.open("ab", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            while left:  # a write may take only a part
                left = left[stream.write(left) :]
        except OSError:
            stream.truncate(size)
            raise

"""Analyse the uploaded files after an upload, while the view is still shown, and save the results in one file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import SkipReason
from uploader_cli.core.protocol import JsonObject, text
from uploader_cli.exit_status import Exit
from uploader_cli.features.analysis.events import ANALYSIS_FAILED, AnalysisEnded, AnalysisSaved, AnalysisStarted
from uploader_cli.features.analysis.stages import Kind
from uploader_cli.named_files import check_output, naming
from uploader_cli.report import output_file
from uploader_cli.run.connections import Connections
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.loop import Loop
from uploader_cli.run.phase import Phase
from uploader_cli.selection.selection import Selection
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from uploader_cli.features.analysis.analyst import Analyst

PAIR = 2
"""Number of files of a fusion (docs/protocol.md section 4)."""
_PLAN = ("fusionPlan", "plan")
"""Keys of the plan in a fusion's response; without them the whole response is the plan."""


class Analyses(Phase):
    """The analyses of one run: they collect the stored files from its events, and run after the upload."""

    @classmethod
    def check(cls, settings: Settings, found: Selection) -> None:
        """Raise `UsageError` if the selection can't be analysed, or the result can't be saved."""
        if settings.session_category is None:
            raise errors.UsageError("--analyze: a tus endpoint has no analysis", hint="use --server, or omit --analyze")
        count = len(found.files)
        if settings.analyze != "content" and (count != PAIR or not found.complete):
            selected = f"{count} {'is' if count == 1 else 'are'}" if found.complete else "many more are"
            words = f"--analyze {settings.analyze} needs exactly two files, and {selected} selected"
            raise errors.UsageError(words, hint="nothing was sent")
        option = settings.given_as("analysis_to")
        with naming(option, settings.analysis_to, "written"):
            file = _result_file(settings, "")
        check_output(file, option)

    def __init__(self, settings: Settings, loop: Loop, connections: Connections) -> None:
        super().__init__(settings, loop, connections)
        self._subjects: dict[int, dict[str, str]] = {}
        """The files on the server, by number: `path` as selected, `location` on the server."""
        self._without_location: list[str] = []
        """The paths of the files whose location the server did not report."""
        self._codes: list[Exit] = []
        self._is_interrupted = False
        self._is_hopeless = False
        """The following analyses would fail in the same way."""
        self._ended: list[dict[str, Any]] = []  # as they are saved

    def listen(self, events: Sequence[ev.Event]) -> None:
        """Record the paths of files that ended."""
        for event in events:
            match event:
                case ev.FileCompleted():
                    location = event.file_path or event.location
                case ev.FileSkipped(reason=SkipReason.PRESENT | SkipReason.RECEIPT):
                    location = event.location
                case _:
                    continue
            if location:
                self._subjects[event.file] = {"path": event.path, "location": location}
            else:
                self._without_location.append(event.path)

    @cached_property
    def _analyst(self) -> Analyst:
        from uploader_cli.features.analysis.analyst import Analyst  # few runs need it

        connections = self._connections
        return Analyst(connections.api.another, self._emit, connections.stop, connections.channel)

    def run(self, interrupts: Interrupts, run_id: str) -> list[Exit]:
        """Run the analyses in a thread while turning the loop; return the exit codes of those that failed.

        An interrupt ends the wait at once: the upload is complete in any case.
        """
        loop, connections = self._loop, self._connections
        analyst = self._analyst
        bugs: list[BaseException] = []

        def work() -> None:
            try:
                self._analyse_all(Kind(self._settings.analyze))
                self._save(run_id)
            except BaseException as bug:  # noqa: BLE001 - raised below
                bugs.append(bug)

        thread = threading.Thread(target=work, name="uploader-analysis", daemon=True)
        thread.start()
        while thread.is_alive():
            loop.turn()
            connections.tend(loop.state)
            if interrupts.pending() and not connections.stop.is_set():
                interrupts.stop(connections.stop, loop.emit)
                analyst.shut()
        thread.join()
        loop.flush()
        if bugs:
            raise bugs[0]
        return [interrupts.code] if interrupts.count and self._is_interrupted else self._codes

    def _analyse_all(self, kind: Kind) -> None:
        subjects = [subject for _, subject in sorted(self._subjects.items())]
        for path in self._without_location:
            self._refuse(kind, path, "the server did not report the path of the file")
        if kind is Kind.CONTENT:
            for number, subject in enumerate(subjects, 1):
                if self._is_hopeless:
                    self._refuse(kind, subject["path"], "not started after the previous failure")
                    continue
                asked = {"videoPath": subject["location"], "category": self._settings.category}
                self._analyse(kind, [subject], asked, number, len(subjects))
        elif len(subjects) == PAIR:
            of = 2 if kind is Kind.MUSIC else 1
            asked = {"video1Path": subjects[0]["location"], "video2Path": subjects[1]["location"]}
            fused = self._analyse(Kind.FUSION, subjects, asked, 1, of)
            if fused is not None and kind is Kind.MUSIC:
                plan = next((fused[name] for name in _PLAN if fused.get(name)), fused)
                self._analyse(kind, subjects, {"fusionPlan": plan}, 2, of)
        elif not self._without_location:
            self._refuse(kind, "two files", "the server does not have both files")

    def _analyse(
        self, kind: Kind, subjects: Sequence[dict[str, str]], asked: Mapping[str, object], number: int, of: int
    ) -> JsonObject | None:
        self._emit(AnalysisStarted(kind, " + ".join(subject["path"] for subject in subjects), number, of))
        began = time.monotonic()
        data: JsonObject | None = None
        words = ""
        try:
            data = self._analyst.analyse(kind, asked)
            self._emit(AnalysisEnded(summary=in_a_sentence(data)))
        except errors.UploaderError as error:
            words = str(error)
            self._failed(error)
        self._ended.append(
            {
                "kind": str(kind),
                "files": subjects,
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "seconds": round(time.monotonic() - began, 3),
                "error": words or None,
                "result": data,
            }
        )
        return data

    def _failed(self, error: errors.UploaderError) -> None:
        no_such_call = isinstance(error, errors.NotFound) and error.error != "FILE_NOT_FOUND"
        self._is_hopeless = no_such_call or isinstance(error, errors.Interrupted | errors.Unauthorized)
        words = str(error)
        if isinstance(error, errors.Interrupted):
            self._is_interrupted, words = True, "interrupted; the upload is complete"
        elif isinstance(error, errors.Unauthorized):
            self._codes.append(Exit.NOT_AUTHORISED)
            words += f" – {error.hint}" if error.hint else ""
        else:
            self._codes.append(Exit.RETRY_MAY_HELP if error.retryable else Exit.FAILED_FOR_GOOD)
        self._emit(AnalysisEnded(error=words, retryable=error.retryable))

    def _refuse(self, kind: Kind, path: str, why: str) -> None:
        self._emit(AnalysisStarted(kind, path))
        self._emit(AnalysisEnded(error=why))
        self._codes.append(Exit.FAILED_FOR_GOOD)

    def _save(self, run_id: str) -> None:
        """Write the results, if there are any."""
        if not any(item["result"] is not None for item in self._ended):
            return
        file = _result_file(self._settings, run_id)
        content = {"v": 1, "run": run_id, "server": self._settings.server, "analyses": self._ended}
        text = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        try:
            output_file.write(file, [text, "\n"], run_id)
            self._emit(AnalysisSaved(str(file.absolute())))
        except OSError as error:
            why = f"the result could not be saved in {file}: {error.strerror or error}"
            self._emit(ev.RunWarning(ANALYSIS_FAILED, why))
            self._codes.append(Exit.FAILED_FOR_GOOD)


def _result_file(settings: Settings, run_id: str) -> Path:
    """Return the file for the results: --analysis-to, or a new one in that directory or the working directory."""
    where = settings.analysis_to or Path()
    return where / f"uploader-analysis-{run_id}.json" if where.is_dir() else where


def in_a_sentence(data: JsonObject) -> str:
    """Summarize the result in one line: the first line of its report that is no heading, or its summary."""
    report = data.get("finalReport")
    if isinstance(report, dict):
        report = next((value for key in ("summary", "title", "overview") if (value := text(report.get(key)))), None)
    words = text(report) or text(data.get("summary")) or ""
    lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), lines[0].lstrip("# ") if lines else "")[:200]

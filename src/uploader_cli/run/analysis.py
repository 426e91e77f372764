"""Analyse the uploaded files after an upload, while the view is still shown."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import SkipReason
from uploader_cli.core.protocol import JsonObject, text
from uploader_cli.core.stages import Kind
from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_cli.run.analysis_file import AnalysisFile
    from uploader_cli.run.analyst import Analyst
    from uploader_cli.run.connections import Connections
    from uploader_cli.run.loop import Loop
    from uploader_cli.run.upload import Interrupts
    from uploader_cli.selection.selection import Selection
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal import RunHandle

PAIR = 2
"""Number of files of a fusion (docs/protocol.md section 4)."""
_PLAN = ("fusionPlan", "plan")
"""Keys of the plan in a fusion's response; without them the whole response is the plan."""


def check(settings: Settings, found: Selection) -> None:
    """Raise `UsageError` for a selection that can't be analysed, before anything is sent."""
    if settings.analyze == "none":
        return
    from uploader_cli.run.analysis_file import AnalysisFile

    if settings.tus_endpoint:
        raise errors.UsageError("--analyze: a tus endpoint has no analysis", hint="use --server, or omit --analyze")
    count = len(found.files)
    if settings.analyze != "content" and (count != PAIR or not found.complete):
        selected = f"{count} are" if found.complete else "many more are"
        raise errors.UsageError(
            f"--analyze {settings.analyze} needs exactly two files, and {selected} selected", hint="nothing was sent"
        )
    AnalysisFile.check(settings.analysis_to)


@dataclass(frozen=True, slots=True)
class Subject:
    """A file on the server: `path` as selected, `place` its path on the server."""

    path: str
    place: str


@dataclass(slots=True)
class Places:
    """The server's path of each file: as it reported, else the one below /uploads.

    For a file that was present, the journal has the path from an earlier run. `listen` gets the loop's events.
    """

    run: RunHandle
    subjects: dict[int, Subject] = field(default_factory=dict)
    nowhere: list[str] = field(default_factory=list)
    """Files on the server whose path there is unknown."""

    def listen(self, events: Sequence[ev.Event]) -> None:
        """Record the paths of files that ended."""
        for event in events:
            match event:
                case ev.FileCompleted():
                    self._note(event.file, event.path, event.file_path or event.location)
                case ev.FileSkipped(reason=SkipReason.PRESENT | SkipReason.RECEIPT) if event.local is not None:
                    (receipt,) = self.run.receipts([event.local])
                    self._note(event.file, event.path, receipt.location if receipt else None)

    def _note(self, number: int, path: str, place: str | None) -> None:
        if place:
            self.subjects[number] = Subject(path, place)
        else:
            self.nowhere.append(path)


def analyse(
    settings: Settings, loop: Loop, connections: Connections, interrupts: Interrupts, places: Places, run_id: str
) -> list[Exit]:
    """Run the analyses while turning the loop; return the resulting exit codes.

    An interrupt ends the wait at once: the upload is complete in any case.
    """
    from uploader_cli.run.analysis_file import AnalysisFile
    from uploader_cli.run.analyst import Analyst

    analyst = Analyst(connections.another_api, loop.emit, connections.stop, connections)
    connections.on_analysis = analyst.hear
    saved = AnalysisFile(settings.analysis_to, run_id, settings.server)
    work = _Work(Kind(settings.analyze), places, settings.category, analyst, saved, loop.emit)
    thread = threading.Thread(target=work.run, name="uploader-analysis", daemon=True)
    thread.start()
    while thread.is_alive():
        loop.turn()
        connections.tend()
        if interrupts.pending() and not connections.stop:
            connections.stop.set()
            analyst.shut()
    thread.join()
    loop.flush()
    if work.bug is not None:
        raise work.bug
    return [interrupts.code] if interrupts.count and work.interrupted else work.codes


@dataclass(slots=True)
class _Work:
    """The thread that runs the analyses one after the other."""

    kind: Kind
    places: Places
    category: str
    analyst: Analyst
    saved: AnalysisFile
    emit: Callable[[ev.Event], None]
    codes: list[Exit] = field(default_factory=list)
    interrupted: bool = False
    bug: BaseException | None = None

    def run(self) -> None:
        """Run all analyses; failures are emitted and recorded in `codes`."""
        try:
            self._all()
            self._save()
        except BaseException as bug:  # noqa: BLE001 - raised again by the main thread
            self.bug = bug

    def _all(self) -> None:
        subjects = [subject for _, subject in sorted(self.places.subjects.items())]
        for path in self.places.nowhere:
            self._refuse(path, "the server did not report the path of the file")
        if self.kind is Kind.CONTENT:
            for number, subject in enumerate(subjects, 1):
                asked = {"videoPath": subject.place, "category": self.category}
                if self._one(Kind.CONTENT, [subject], asked, number, len(subjects)) is None and self._is_hopeless:
                    for left in subjects[number:]:
                        self._refuse(left.path, "not started after the previous failure")
                    return
        elif len(subjects) == PAIR:
            self._pair(subjects)
        elif not self.places.nowhere:
            self._refuse("two files", "the server does not have both files")

    _is_hopeless: bool = False
    """The following analyses would fail in the same way."""

    def _pair(self, subjects: Sequence[Subject]) -> None:
        of = 2 if self.kind is Kind.MUSIC else 1
        asked = {"video1Path": subjects[0].place, "video2Path": subjects[1].place}
        fused = self._one(Kind.FUSION, subjects, asked, 1, of)
        if fused is not None and self.kind is Kind.MUSIC:
            plan = next((fused[name] for name in _PLAN if fused.get(name)), fused)
            self._one(Kind.MUSIC, subjects, {"fusionPlan": plan}, 2, of)

    def _one(
        self, kind: Kind, subjects: Sequence[Subject], asked: Mapping[str, object], number: int, of: int
    ) -> JsonObject | None:
        name = " + ".join(subject.path for subject in subjects)
        self.emit(ev.AnalysisStarted(kind, name, number, of))
        began = time.monotonic()
        data: JsonObject | None = None
        error: errors.UploaderError | None = None
        try:
            data = self.analyst.analyse(kind, asked)
        except errors.UploaderError as failure:
            error = failure
        self.saved.add(kind, subjects, time.monotonic() - began, data, str(error) if error else "")
        if error is not None:
            self._failed(error)
        else:
            self.emit(ev.AnalysisEnded(summary=in_a_sentence(data or {})))
        return data

    def _failed(self, error: errors.UploaderError) -> None:
        no_such_call = isinstance(error, errors.NotFound) and error.error != "FILE_NOT_FOUND"
        self._is_hopeless = no_such_call or isinstance(error, errors.Interrupted | errors.Unauthorized)
        words = str(error)
        if isinstance(error, errors.Interrupted):
            self.interrupted, words = True, "interrupted; the upload is complete"
        elif isinstance(error, errors.Unauthorized):
            self.codes.append(Exit.NOT_AUTHORISED)
            words += f" – {error.hint}" if error.hint else ""
        else:
            self.codes.append(Exit.RETRY_MAY_HELP if error.retryable else Exit.FAILED_FOR_GOOD)
        self.emit(ev.AnalysisEnded(error=words, retryable=error.retryable))

    def _refuse(self, path: str, why: str) -> None:
        self.emit(ev.AnalysisStarted(self.kind, path))
        self.emit(ev.AnalysisEnded(error=why))
        self.codes.append(Exit.FAILED_FOR_GOOD)

    def _save(self) -> None:
        try:
            path = self.saved.write()
        except OSError as error:
            text_ = f"the result could not be saved in {self.saved.path}: {error.strerror or error}"
            self.emit(ev.RunWarning(ev.WarningCode.ANALYSIS_FAILED, text_))
            self.codes.append(Exit.FAILED_FOR_GOOD)
            return
        if path is not None:
            self.emit(ev.AnalysisSaved(str(path)))


def in_a_sentence(data: JsonObject) -> str:
    """Summarize the result in one line: the first line of its report that is no heading, or its summary."""
    report = data.get("finalReport")
    if isinstance(report, dict):
        report = next((value for key in ("summary", "title", "overview") if (value := text(report.get(key)))), None)
    words = text(report) or text(data.get("summary")) or ""
    lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), lines[0].lstrip("# ") if lines else "")[:200]

"""The plan of a dry run as text: a row per session, skipped and failing files with reasons, and a summary line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TextIO

from uploader_cli.core import events as ev
from uploader_cli.feature import counted, words_of
from uploader_cli.features.plan.events import LimitsOrigin, PlanFile, PlanFinished, PlanSession, PlanStarted
from uploader_cli.render.words import cells, clip, elide, pad, plural, safe, size, wrap

ROWS = 30  # maximum sessions with a row and failing files listed, unless verbose
NAMES = 3  # maximum file names listed per reason
WIDE_TABLE = 60  # minimum columns for the full table


class PlanView:
    """Writes each row as soon as it is known; stores only counts."""

    def __init__(self, stream: TextIO, *, width: int, verbose: bool = False) -> None:
        """`width`: maximum cells per line. `verbose` lists every file."""
        self._stream, self._width, self._verbose = stream, width, verbose
        self._category: str | None = None  # of the session whose files follow
        self._hidden: Counter[str] = Counter()  # totals of the sessions without a row
        self._skipped: Counter[str] = Counter()
        self._named: dict[str, list[str]] = defaultdict(list)  # the first skipped files by reason
        self._failed: list[str] = []
        self._failures: Counter[str] = Counter()
        self._counted: dict[str, Counter[Any]] = defaultdict(Counter)  # by the field of a feature, files by its values

    def tell(self, event: ev.Event) -> None:
        if isinstance(event, PlanFile) or (isinstance(event, ev.FileSkipped) and not event.gone):
            self._count(event)
        match event:
            case PlanStarted():
                self._wrapped(_head(event))
            case PlanSession():
                self._category = event.category
                self._session(event)
            case PlanFile() if self._verbose:
                place = f"{self._category}/" if self._category else ""
                name = f"{safe(event.path)} → {place}{safe(event.name)}{_added(event)}"
                self._row(f"  {size(event.size):>9}  ", name)
            case ev.FileSkipped() if self._verbose:
                self._row("- ", f"{safe(event.path)}: {event.reason}{_added(event)}")
            case ev.FileSkipped():
                self._skipped[event.reason] += 1
                if len(self._named[event.reason]) < NAMES:
                    self._named[event.reason].append(safe(event.path))
            case ev.FileFailed():
                self._failures[event.code] += 1
                if self._verbose or len(self._failed) < ROWS:
                    self._failed.append(f"{safe(event.path)}: {safe(event.message[:500])}")
            case PlanFinished():
                self._end(event)

    def _count(self, event: PlanFile | ev.FileSkipped) -> None:
        for feature in counted():
            if (value := getattr(event, feature.counts)) is not None:
                self._counted[feature.counts][value] += 1

    def _session(self, event: PlanSession) -> None:
        if event.session_number == 1:
            self._say("")
            self._row(self._columns("session", "files", "size", "type"), "destinations")
        if event.session_number > ROWS and not self._verbose:
            self._hidden.update(sessions=1, files=event.files, bytes=event.bytes)
            return
        kinds = (event.kinds[0] or "none") if len(event.kinds) == 1 else "mixed"
        names = f"{event.category}: " if event.category else ""
        names += ", ".join(map(safe, event.first)) + (", …" if event.files > len(event.first) else "")
        row = f"{event.session_number:,}", f"{event.files:,}", size(event.bytes), safe(kinds)
        self._row(self._columns(*row), names, clip)

    def _columns(self, number: str, files: str, bytes_: str, kinds: str) -> str:
        if self._width < WIDE_TABLE:
            return f"{number.removeprefix('session') or '#':>3} {files:>5} {bytes_:>9}  "
        return f"{number:>7}  {files:>6}  {bytes_:>9}  {pad(kinds, 5)}  "

    def _end(self, event: PlanFinished) -> None:
        if hidden := self._hidden:
            more = f"{plural(hidden['sessions'], 'more session')}: {plural(hidden['files'], 'file')}"
            self._wrapped(f"… and {more}, {size(hidden['bytes'])} (-v lists all)")
        if self._skipped or event.failed:
            self._say("")
        for reason, count in self._skipped.items():
            more = f", and {count - NAMES:,} more" if count > NAMES else ""
            self._wrapped(f"- {count:,} skipped ({reason}): {', '.join(self._named[reason])}{more}")
        for line in self._failed:
            self._wrapped(f"✗ {line}")
        if event.failed > len(self._failed):
            codes = ", ".join(f"{count:,} {code}" for code, count in sorted(self._failures.items()))
            self._wrapped(f"✗ {event.failed:,} files can't be sent ({codes})")
        for feature in counted():
            for value, count in self._counted[feature.counts].items():
                self._say("")
                self._wrapped(feature.load(feature.words).planned_total(value, count))
        sessions = f" in {plural(event.sessions, 'session')}" if event.sessions else ""
        last = f"{plural(event.files, 'file')}, {size(event.bytes)}{sessions}; "
        if event.failed:
            last += f"{plural(event.failed, 'file')} would fail (exit code {event.exit_code}); "
        self._say("")
        self._wrapped(f"{last}no file was sent")

    def _row(self, before: str, names: str, cut: Callable[[str, int], str] = elide) -> None:
        self._say((before + cut(names, self._width - cells(before))).rstrip())

    def _wrapped(self, line: str) -> None:
        self._say("\n".join(wrap(line, self._width, rest="  ")))

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")


def _added(event: PlanFile | ev.FileSkipped) -> str:
    """Return what features say of a file, as the end of a row."""
    return "".join(words.planned(event) for words in words_of(event))


def _head(event: PlanStarted) -> str:
    most = "any number of files" if event.max_files is None else plural(event.max_files, "file")
    large = "any size" if event.max_file_size is None else f"at most {size(event.max_file_size)} each"
    kinds = "any type" if "*" in event.types else ", ".join(map(safe, event.types))
    where = f"{safe(event.server) or 'any server'} ({event.protocol})"
    if event.limits is LimitsOrigin.UNKNOWN:
        return f"plan for {where}; limits unknown"
    seen = "as last reported" if event.limits is LimitsOrigin.SEEN else "assumed (the server has reported none)"
    return f"plan for {where}; limits {seen}: {most} a session, {large}, {kinds}"

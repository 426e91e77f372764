"""`--from-file`: a list of files, checked as a whole before anything is sent, then read again as the files are taken.

Read line by line each time: a million of them need no more memory than one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import UsageError
from uploader_cli.selection.dedup import SeenNames
from uploader_cli.selection.manifest_lines import BadLine, Entry, Format, parse
from uploader_cli.selection.walk import HIDDEN_CONTENT, Skipped, Unusable, has_hidden_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli.selection.walk import Step

NAMED = 20
"""Bad lines that are told one by one; the rest is a number."""
SHOWN = 200
"""Characters of a path in a message."""
_SUFFIXES = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


def format_of(name: str) -> Format:
    """How a manifest of this name is written, by its suffix: paths line by line, unless it says CSV or JSONL."""
    return _SUFFIXES.get(os.path.splitext(name)[1].lower(), Format.PLAIN)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A list of files in `file`, called `shown` in messages.

    Not `strict` (`--lenient`), unknown columns are ignored. `category` is the run's own; None (a tus endpoint) where no
    line may have one.
    """

    file: Path
    shown: str
    kind: Format
    category: str | None
    strict: bool = True

    def lines(self) -> Iterator[Entry | BadLine]:
        """What each line says; nothing of it was looked at on disk. Raises `UsageError`, naming the manifest."""
        try:
            with self.file.open("rb") as stream:
                for item in parse(stream, self.kind, strict=self.strict):
                    yield self._without_category(item)
        except OSError as error:
            raise UsageError(f"--from-file: {self.shown} can't be read: {error.strerror}") from error
        except UsageError as error:
            raise UsageError(f"{self.shown}, {error}", hint=error.hint) from error

    def check(self, wants: Callable[[str], bool]) -> None:
        """Raise `UsageError` where the list can't be used: strict, for any bad line, of which the first ones are named.

        `wants` is as in `files`; a file that is not wanted may be missing.
        """
        bad: list[BadLine] = []
        total = wrong = 0
        for item in self.lines():
            total += 1
            problem = item if isinstance(item, BadLine) or not wants(item.name) else look(item)
            if isinstance(problem, BadLine):
                wrong += 1
                if len(bad) < NAMED:
                    bad.append(problem)
            if not self.strict:
                return  # it has a header, or needs none: what is wrong with a line is told of that line
        if not wrong:
            return
        unit = self.kind.unit
        raise UsageError(
            f"{self.shown}: {wrong:,} of {total:,} {unit}s can't be used, and nothing was sent",
            hint=self._guess(bad[0]) or f"mend {'them' if wrong > 1 else 'it'}, or send the rest with --lenient",
            details=[f"{unit} {item.line}: {_said(item)}" for item in bad]
            + ([f"… and {wrong - len(bad):,} more"] if wrong > len(bad) else []),
        )

    def files(self, wants: Callable[[str], bool]) -> Iterator[Step]:
        """The files in their order, numbered from 0, and None for each that is not wanted.

        `wants` is asked by the name that the file is to have there. A file that is listed twice for the same place is
        selected once.
        """
        numbers, seen = count(), SeenNames()
        for item in self.lines():
            if isinstance(item, BadLine):
                yield self._unusable(next(numbers), item)
                continue
            if not wants(item.name):
                yield None
                continue
            number, info = next(numbers), look(item)
            file = _file(number, item, info)
            if isinstance(info, BadLine):
                yield self._unusable(number, info, file)
            elif seen.add(f"{file.destination}\0{os.path.abspath(item.path)}"):
                yield file
            else:
                yield Skipped(number, item.path, SkipReason.DUPLICATE, item.name)

    def _unusable(self, number: int, bad: BadLine, file: LocalFile | None = None) -> Unusable:
        where = f"{self.kind.unit} {bad.line} of {self.shown}"
        # For shards: what is the same on every machine, wherever the list lies.
        name = file.relative_path if file is not None else bad.path or f"{self.kind.unit} {bad.line}"
        message = f"{bad.message} ({where})" if bad.path else bad.message
        return Unusable(number, bad.path or where, bad.code, message, local=file, relative_path=name)

    def _without_category(self, item: Entry | BadLine) -> Entry | BadLine:
        if isinstance(item, BadLine) or item.category is None:
            return item
        if self.category is None:
            return BadLine(item.line, "it has a category, and a tus server knows none", item.path)
        return replace(item, category=None) if item.category == self.category else item

    def _guess(self, first: BadLine) -> str:
        """The likely cause where the first line is no path at all."""
        if first.line > 1 or self.kind not in (Format.PLAIN, Format.NUL):
            return ""
        if "\n" in first.path:
            return "if the paths are not separated by NUL characters, leave -0 out"
        if first.path.lstrip().startswith("{"):
            return "this looks like JSONL: say --from-format jsonl"
        if "path" in first.path.split(","):
            return "this looks like CSV: say --from-format csv"
        return ""


def look(entry: Entry) -> os.stat_result | BadLine:
    """What the system says of the file that a line names, or why it can't be sent. A link that is listed is meant."""
    try:
        info = os.stat(entry.path)
    except (FileNotFoundError, NotADirectoryError):
        return BadLine(entry.line, "no such file", entry.path, FailureCode.VANISHED)
    except OSError as error:
        return BadLine(entry.line, f"it can't be read ({error.strerror})", entry.path, FailureCode.UNREADABLE)
    if stat.S_ISDIR(info.st_mode):
        words = "it is a directory: name it as PATH instead, or list the files in it"
        return BadLine(entry.line, words, entry.path, FailureCode.UNREADABLE)
    if not stat.S_ISREG(info.st_mode):
        return BadLine(entry.line, "it is no regular file", entry.path, FailureCode.UNREADABLE)
    if not info.st_size and has_hidden_content(entry.path):
        return BadLine(entry.line, HIDDEN_CONTENT, entry.path, FailureCode.UNREADABLE)
    return info


def _file(number: int, entry: Entry, info: os.stat_result | BadLine) -> LocalFile:
    size, mtime_ns = (0, 0) if isinstance(info, BadLine) else (info.st_size, info.st_mtime_ns)
    return LocalFile(
        number,
        entry.path,
        entry.name,
        size,
        mtime_ns,
        named=True,
        category=entry.category,
        sha256=entry.sha256,
        destination=_destination(entry),
    )


def _destination(entry: Entry) -> str:
    """Empty where the file goes under its own name to the run's category."""
    path = os.path.abspath(entry.path).replace(os.sep, "/")
    name = "" if path.endswith(f"/{entry.name}") else f"/{entry.name}"
    return f"{entry.category or ''}{name}"


def _said(bad: BadLine) -> str:
    """Path and problem, for a person."""
    path = bad.path if len(bad.path) <= SHOWN else bad.path[: SHOWN - 1] + "…"
    return f"{path}: {bad.message}" if path else bad.message

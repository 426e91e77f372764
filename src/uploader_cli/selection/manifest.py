"""`--from-file`: a list of files, checked completely before anything is sent, then read again during the upload.

It is read line by line, so that memory is bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from msgspec.structs import replace as replaced

from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped, SkipReason
from uploader_cli.core.plan import LocalFile, concealed, is_url, of_upload
from uploader_cli.errors import UsageError
from uploader_cli.named_files import naming
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.manifest_lines import BadLine, Entry, Format, parse
from uploader_cli.selection.walk import HIDDEN_CONTENT, SeenNames, Selected, Step, has_hidden_content, restore
from uploader_cli.sources.directories import real_directory
from uploader_cli.sources.files import Status, absolute, identity_of, status

BAD_LINES_NAMED = 20  # maximum bad lines reported one by one
LONGEST_PATH = 200  # maximum characters of a path in a message
_SUFFIXES = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


def format_of(name: str) -> Format:
    """Return the format for a manifest's suffix: CSV, JSONL, else paths line by line."""
    return _SUFFIXES.get(os.path.splitext(name)[1].lower(), Format.PLAIN)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A list of files in `file`, shown as `shown` in messages.

    `strict=False` (`--lenient`) ignores unknown columns; `follow_links` is the option. `category` is the run's; None (a
    tus endpoint) where lines must not have one. Lines may have values for the metadata `keys`, and must where that is
    True.
    """

    file: Path
    shown: str
    kind: Format
    category: str | None
    strict: bool = True
    follow_links: bool = False
    keys: Mapping[str, bool] = field(default_factory=dict)

    def lines(self) -> Iterator[Entry | BadLine]:
        """Yield the parsed lines, without checking the files. Raises `UsageError`, naming the manifest."""
        with naming("--from-file", self.shown), self.file.open("rb") as stream:
            try:
                for item in parse(stream, self.kind, strict=self.strict, keys=self.keys):
                    yield self._fitting(item)
            except UsageError as error:
                raise UsageError(f"{self.shown}, {error}", hint=error.hint) from error

    def check(self, wants: Callable[[str], bool], is_stored: Callable[[LocalFile], bool] = lambda _: False) -> None:
        """Raise `UsageError` for an unusable list: if strict, for any bad line, listing the first ones.

        `wants` gets the name on the server; an unwanted file may be missing, and one that `is_stored`.
        """
        bad: list[BadLine] = []
        total = wrong = 0
        for item in self.lines():
            if not self.strict:
                return  # the header is valid: bad lines fail one by one
            total += 1
            problem = item if isinstance(item, BadLine) or not wants(item.name) else self._look(item)
            if isinstance(problem, BadLine) and not self._is_consumed(item, problem, is_stored):
                wrong += 1
                if len(bad) < BAD_LINES_NAMED:
                    bad.append(problem)
        if not wrong:
            return
        unit = self.kind.unit
        raise UsageError(
            f"{self.shown}: {wrong:,} of {total:,} {unit}s are invalid; nothing was sent",
            hint=self._guess(bad[0]) or f"fix {'them' if wrong > 1 else 'it'}, or send the rest with --lenient",
            details=[f"{unit} {item.line}: {_described(item)}" for item in bad]
            + ([f"… and {wrong - len(bad):,} more"] if wrong > len(bad) else []),
        )

    def _is_consumed(self, item: Entry | BadLine, problem: BadLine, is_stored: Callable[[LocalFile], bool]) -> bool:
        if isinstance(item, BadLine) or problem.code is not FailureCode.VANISHED:
            return False
        return is_stored(self.local(item))

    def files(self, filters: Filters) -> Iterator[Step]:
        """Yield the files in order, numbered from 0, and None for each unwanted one.

        Patterns match the name on the server. A file listed twice for the same destination is selected once.
        """
        numbers, seen = count(), SeenNames()
        for item in self.lines():
            if isinstance(item, BadLine):
                yield self._failed(next(numbers), item)
                continue
            info = self._look(item) if filters.wants(item.name) else None
            if info is None or not (isinstance(info, BadLine) or filters.fits(info)):
                yield None
            else:
                yield self._selected(next(numbers), item, info, seen)

    def local(self, item: Entry, number: int = 0, size: int = 0, mtime_ns: int = 0) -> LocalFile:
        """Return the file of a line."""
        renamed = not absolute(item.path).replace(os.sep, "/").endswith(f"/{item.name}")
        return LocalFile(
            number,
            concealed(item.path),
            item.name,
            size,
            mtime_ns,
            named=True,
            category=item.category,
            sha256=item.sha256,
            destination=f"{item.category or ''}{f'/{item.name}' if renamed else ''}{_written(item.metadata)}"
            + of_upload(item.upload_url),
            metadata=item.metadata,
            upload_url=item.upload_url,
            signed=item.path if concealed(item.path) != item.path else "",
        )

    def _selected(self, number: int, item: Entry, info: Status | BadLine, seen: SeenNames) -> Selected:
        size, mtime_ns = (0, 0) if isinstance(info, BadLine) else (info.st_size, info.st_mtime_ns)
        file = self.local(item, number, size, mtime_ns)
        if isinstance(info, os.stat_result):
            file = replaced(file, identity=identity_of(info), directory=real_directory(item.path))
        if isinstance(info, BadLine):
            return self._failed(number, info, file)
        if not seen.add(f"{file.destination}\0{absolute(item.path)}"):
            return FileSkipped(number, file.path, SkipReason.DUPLICATE, relative_path=item.name)
        return file

    def _look(self, item: Entry) -> Status | BadLine:
        return look(item, follow_links=self.follow_links)

    def _failed(self, number: int, bad: BadLine, file: LocalFile | None = None) -> FileFailed:
        where = f"{self.kind.unit} {bad.line} of {self.shown}"
        # For parts of it: a name that is the same on every machine, wherever the list is.
        name = file.relative_path if file is not None else bad.path or f"{self.kind.unit} {bad.line}"
        message = f"{bad.message} ({where})" if bad.path else bad.message
        return FileFailed(number, bad.path or where, bad.code, message, retryable=False, local=file, relative_path=name)

    def _fitting(self, item: Entry | BadLine) -> Entry | BadLine:
        """Return the line for this kind of server: an upload that exists needs one of tus, which has no categories."""
        if not isinstance(item, BadLine) and item.upload_url and self.category is not None:
            return BadLine(
                item.line, "upload_url needs a tus server: name it with --tus-endpoint", concealed(item.path)
            )
        if isinstance(item, BadLine) or item.category is None:
            return item
        if self.category is None:
            return BadLine(item.line, "a tus server has no categories", concealed(item.path))
        return replace(item, category=None) if item.category == self.category else item

    def _guess(self, first: BadLine) -> str:
        """Return the likely cause if the first line is not a path."""
        if first.line > 1 or self.kind not in (Format.PLAIN, Format.NUL):
            return ""
        if "\n" in first.path:
            return "omit -0 unless the paths are separated by NUL characters"
        if first.path.lstrip().startswith("{"):
            return "this looks like JSONL: use --from-format jsonl"
        if "path" in first.path.split(","):
            return "this looks like CSV: use --from-format csv"
        return ""


def look(entry: Entry, *, follow_links: bool = False) -> Status | BadLine:
    """Return the status of a listed file, or why it can't be sent.

    A link is followed only where `follow_links` says so: it may have taken the place of the file that was listed, as by
    `--failed-to`. Links in the directories of the path are followed.
    """
    code = FailureCode.UNREADABLE
    if not is_url(entry.path) and not os.path.lexists(entry.path):
        restore(os.path.dirname(entry.path))
    try:
        info = status(entry.path) if follow_links or is_url(entry.path) else os.lstat(entry.path)
        if stat.S_ISLNK(info.st_mode):
            os.stat(entry.path)  # raises where it leads nowhere
    except (FileNotFoundError, NotADirectoryError):
        problem, code = "no such file", FailureCode.VANISHED
    except OSError as error:
        problem = f"can't be read ({error.strerror})"
    else:
        if stat.S_ISLNK(info.st_mode):
            problem = "a symbolic link: list what it leads to, or give --follow-links"
        elif stat.S_ISDIR(info.st_mode):
            problem = "is a directory: give it as PATH, or list its files"
        elif not stat.S_ISREG(info.st_mode):
            problem = "not a regular file"
        elif not info.st_size and not is_url(entry.path) and has_hidden_content(entry.path):
            problem = HIDDEN_CONTENT
        else:
            return info
    return BadLine(entry.line, problem, concealed(entry.path), code)


def _written(metadata: tuple[tuple[str, str], ...]) -> str:
    return "".join(f" {key}={value}" for key, value in metadata)


def _described(bad: BadLine) -> str:
    """Format path and problem."""
    path = bad.path if len(bad.path) <= LONGEST_PATH else bad.path[: LONGEST_PATH - 1] + "…"
    return f"{path}: {bad.message}" if path else bad.message

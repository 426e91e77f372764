"""Short words for the journal's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.transfer.journal.journal import Journal
    from uploader_cli.transfer.journal.reading import Claim
    from uploader_cli.transfer.journal.run_handle import RunHandle

HERE = RunTarget("http://here:1", "personal")
DAY = 86_400.0


class Clock:
    """A time that tests set."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def a_file(path: str = "/data/a.bin", *, file: int = 1, size: int = 10, mtime_ns: int = 5) -> LocalFile:
    """A selected file; nothing need be there."""
    return LocalFile(file, path, path.rsplit("/", 1)[-1], size, mtime_ns)


def begin(journal: Journal, *paths: str, fresh: bool = False) -> RunHandle:
    """The run of `uploader upload PATHS` to HERE."""
    return journal.begin(HERE, {"paths": list(paths)}, fresh=fresh)


def claimed(run: RunHandle, file: LocalFile) -> Claim:
    return run.claim([file])[0]


def complete(run: RunHandle, file: LocalFile, **fields) -> None:
    run.completed([Stored(file, **fields)])


def receipt(run: RunHandle, file: LocalFile) -> Stored | None:
    return run.receipts([file])[0]


def open_sessions(run: RunHandle) -> tuple[str, ...]:
    return tuple(session for session, known in run.sessions().items() if known.open)


def names(directory: Path) -> set[str]:
    """The files of a state directory that stay when nobody uses it."""
    return {path.name for path in directory.iterdir()} - {"journal.lock"}

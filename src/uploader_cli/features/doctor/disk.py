"""Check the directory of the journal: whether it is writable, its speed, and whether the journal is readable."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Finding, check, failed, passed, warning
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.render.words import rate
from uploader_cli.settings.places import user_state_directory
from uploader_cli.transfer.journal.locking import is_busy
from uploader_cli.transfer.journal.schema import NAME, VERSION

PIECES, PIECE_SIZE = 8, 512 * 1024  # pieces written and synced, and their size in bytes
WRITING = 2.0  # seconds after which no further piece is written
SLOW_RATE = 4e6  # bytes/s below which the disk may limit the upload
SLOW_SYNC = 0.3  # seconds to sync one piece
LOCAL_DISK = "use a directory on a local disk with --state-dir."


@check("disk", "state dir", required=False)
def disk(context: DoctorContext) -> Finding:
    """Write, sync and delete a file in the state directory (or its nearest parent), and read the journal."""
    directory = context.settings.state_dir or user_state_directory()
    if directory is None:
        cause = "interrupted uploads can't be resumed: this user has no home directory"
        return warning(cause, f"Set HOME, or {LOCAL_DISK}")
    try:
        speed, slowest = _written(_existing(directory), context)
    except OSError as error:
        cause = f"the state directory {directory} can't be written: {error.strerror or error}"
        hint = f"Check its free space and permissions, or {LOCAL_DISK}"
        if context.settings.state_dir is None:  # uploads use a temporary one instead
            return warning(f"interrupted uploads can't be resumed: {cause}", hint, directory=str(directory))
        return failed(cause, hint, exit=Exit.USAGE, directory=str(directory))
    where, sync = str(directory), round(slowest * 1000, 1)
    details = {"directory": where, "bytes_per_second": round(speed), "slowest_sync_ms": sync}
    trouble = _journal(directory)
    if trouble:
        hint = "The next upload replaces it by a new one; interrupted uploads are restarted."
        return warning(f"the journal in {directory} {trouble}", hint, **details)
    if speed < SLOW_RATE or slowest > SLOW_SYNC:
        cause = f"slow disk here: {rate(speed)} in {directory}, up to {slowest * 1000:,.0f} ms to sync a write"
        return warning(cause, f"Check what else writes to that disk, or {LOCAL_DISK}", **details)
    return passed(f"{rate(speed)} in {directory}", **details)


def _existing(directory: Path) -> Path:
    """Return the directory, or its nearest parent that exists. Raise `OSError` if this user may not find out."""
    for place in (directory, *directory.parents):
        with contextlib.suppress(FileNotFoundError):
            os.stat(place)
            return place
    return directory


def _written(directory: Path, context: DoctorContext) -> tuple[float, float]:
    """Return bytes per second, and the seconds of the slowest sync."""
    data = os.urandom(PIECE_SIZE)
    slowest, count = 0.0, 0
    handle, name = tempfile.mkstemp(prefix=".uploader-doctor-", dir=directory)
    began = time.perf_counter()
    try:
        while count < PIECES and time.perf_counter() - began < WRITING:
            started = time.perf_counter()
            os.write(handle, data)
            context.fsync(handle)
            slowest = max(slowest, time.perf_counter() - started)
            count += 1
        return count * PIECE_SIZE / max(1e-9, time.perf_counter() - began), slowest
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(name)


def _journal(directory: Path) -> str:
    """Return what is wrong with the journal, else an empty string. It is opened read-only."""
    path = directory / NAME
    if not os.path.exists(path):
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as db:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            db.execute("SELECT count(*) FROM run").fetchone()
    except sqlite3.Error as error:
        return "" if is_busy(error) else f"can't be read ({error})"
    return f"was written by a newer version ({found})" if found > VERSION else ""

"""Move or delete a local file that is still the one that was read.

Each step names the file by its directory, which is opened once: nobody can put another directory, or a link to one,
into its place meanwhile. No link is followed, and no file is overwritten.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import Identity, LocalFile
from uploader_cli.errors import FileFailure
from uploader_cli.features.then import FEATURE
from uploader_cli.sources.files import identity_of

KEPT = FailureCode("kept")
GRANULARITY = 0.05
"""Seconds within which two writes may get the same time from a file system."""
LOOKS = 4
"""At a file that is being written; then it has no identity."""
ASIDE = FEATURE.directory
"""The directory in which a file is while the server is asked whether it is its own."""
ROOT_MARK = ".uploader"
"""The bundled server's own directory in its root."""
OTHER_RUN = 1.0
"""Seconds that a run waits for another one which has set a file of the same directory aside."""
BLOCK = 1 << 20  # bytes that are copied at a time
_NOT_LINKED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems that give a file no second name, or none in another file system."""
_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def identified(file: LocalFile, sleep: Callable[[float], None] = time.sleep) -> LocalFile:
    """Return the file with its identity, before anything of it is read; without one for what is no regular file.

    A file that was written just now, or by its time in the future, is looked at again after `GRANULARITY`: if it is the
    same, any later write changes its identity. One that is still written has none.
    """
    before = None
    with suppress(OSError):
        for _ in range(LOOKS):
            found = _status(file.path)
            if found is None or found == before or time.time() - found.ctime_ns / 1e9 >= GRANULARITY:
                is_same = found is not None and (found.size, found.mtime_ns) == (file.size, file.mtime_ns)
                return replace(file, identity=found if is_same else None)
            before = found
            sleep(GRANULARITY)
    return replace(file, identity=None)


def delete(file: LocalFile) -> None:
    """Delete a file that is unchanged. Raise `OSError`, or `FileFailure` for one that has changed."""
    with _opened(os.path.dirname(file.path) or ".", getattr(os, "O_PATH", 0)) as directory:
        name = os.path.basename(file.path)
        _check_unchanged(file, directory, name)
        os.unlink(name, dir_fd=directory)


def move(file: LocalFile, place: str, sha256: str, checkpoint: Callable[[], None]) -> str:
    """Move a file that is unchanged to `place`, or to `name (2).ext` and so on beside it; return its new path.

    A file at the place that has the same bytes is what an interrupted move has left. Raise as `delete`. `checkpoint`
    raises to stop a copy.
    """
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with (
        _opened(os.path.dirname(file.path) or ".", getattr(os, "O_PATH", 0)) as source,
        _opened(os.path.dirname(place)) as target,
    ):
        name = os.path.basename(file.path)
        if os.path.samestat(os.fstat(source), os.fstat(target)):
            raise FileFailure(f"{os.path.dirname(place)} is its own directory", code=KEPT)
        identity, linked = _check_unchanged(file, source, name), True
        there = _Place(target, os.path.basename(place), identity, sha256, checkpoint)
        try:
            new, made = there.link(source, name)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
            (new, made), linked = there.copy(source, name), False
        try:
            _check_unchanged(file, source, name, linked=linked and made)
        except (OSError, FileFailure):
            if made:
                os.unlink(new, dir_fd=target)
            raise
        _persist(target)
        os.unlink(name, dir_fd=source)
    return os.path.join(os.path.dirname(place), new)


def is_in_root(directory: str) -> bool:
    """Return whether a directory is the root of a bundled server, or below one: its files are the stored ones."""
    above = os.path.realpath(directory)
    while not os.path.lexists(os.path.join(above, ROOT_MARK)):
        if above == (above := os.path.dirname(above)):
            return False
    return True


@contextmanager
def set_aside(file: LocalFile) -> Iterator[None]:
    """Keep an unchanged file in the directory `ASIDE` beside it for a while: what else has its path has it no more.

    A process that is killed meanwhile leaves it there, and `restore` puts it back. Raise as `delete`.
    """
    with _opened(os.path.dirname(file.path) or ".", getattr(os, "O_PATH", 0)) as directory:
        name = os.path.basename(file.path)
        with _aside(directory, makes=True) as aside:
            _check_unchanged(file, directory, name)
            if _exists(name, aside):
                raise FileFailure(f"another file of its name is in {ASIDE}", code=KEPT)
            os.rename(name, name, src_dir_fd=directory, dst_dir_fd=aside)
            try:
                yield
            finally:
                _put_back(name, aside, directory)


def restore(path: str) -> dict[str, FileFailure]:
    """Put back what an interrupted `set_aside` has left in a directory; return the paths that stay there, and why.

    They are named because no walk looks there: another run has set the file aside now (`in_use`), another file has
    taken its place, or the directory can't be read.
    """
    place, left = os.path.join(path, ASIDE), dict[str, FileFailure]()
    if not os.path.lexists(place):
        return left
    try:
        with _opened(path or ".", getattr(os, "O_PATH", 0)) as directory, _aside(directory) as aside:
            for name in os.listdir(aside):
                try:
                    _put_back(name, aside, directory)
                except FileNotFoundError:  # a program has taken it away
                    pass
                except (OSError, FileFailure) as error:
                    left[os.path.join(place, name)] = _unrestored(error)
    except FileNotFoundError:  # another run has put its file back
        return left
    except (OSError, FileFailure) as error:
        failure = _unrestored(error)
        with suppress(OSError):
            return {os.path.join(place, name): failure for name in os.listdir(place)}
        left[place] = failure
    return left


def _unrestored(error: OSError | FileFailure) -> FileFailure:
    """Return why something stays in `ASIDE`."""
    is_busy = isinstance(error, FileFailure) and error.retryable
    why = error.strerror or error if isinstance(error, OSError) else error
    code = FailureCode.IN_USE if is_busy else FailureCode.UNREADABLE
    return FileFailure(f"it is not put back into the directory above: {why}", code=code, retryable=is_busy)


@contextmanager
def _aside(directory: int, *, makes: bool = False) -> Iterator[int]:
    """Open `ASIDE` in a directory, for this run alone; remove it in the end if it is empty. With `makes` it may be new.

    Wait for another run that has a file there; raise `FileFailure` after `OTHER_RUN`.
    """
    until = time.monotonic() + OTHER_RUN
    while (aside := _locked(directory, makes=makes)) is None:
        if time.monotonic() >= until:
            raise FileFailure("a run has set a file of its directory aside", code=KEPT, retryable=True)
        time.sleep(GRANULARITY)
    try:
        yield aside
    finally:
        with suppress(OSError):
            os.rmdir(ASIDE, dir_fd=directory)
        os.close(aside)


def _locked(directory: int, *, makes: bool) -> int | None:
    """Open `ASIDE` in a directory and lock it; return None while another run has it, or has just removed it."""
    if makes:
        with suppress(FileExistsError):
            os.mkdir(ASIDE, 0o700, dir_fd=directory)
    try:
        aside = os.open(ASIDE, os.O_RDONLY | os.O_NOFOLLOW | _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if makes:
            return None
        raise
    try:
        if os.fstat(aside).st_uid != os.geteuid():
            raise FileFailure(f"{ASIDE} belongs to another user", code=KEPT)
        fcntl.flock(aside, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(aside), _lstat(ASIDE, directory)):
            return aside
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(aside)
        raise
    os.close(aside)
    return None


def _put_back(name: str, aside: int, directory: int) -> None:
    """Give a file of `ASIDE` its place again. Raise `FileFailure` where another file has taken it."""
    try:
        os.link(name, name, src_dir_fd=aside, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(_lstat(name, aside), _lstat(name, directory)):  # else it was killed before `unlink`
            words = f"another file has taken its place, and it is in {ASIDE} beside that"
            raise FileFailure(words, code=KEPT) from None
    except OSError as error:
        if error.errno not in _NOT_LINKED or _exists(name, directory):
            raise
        os.rename(name, name, src_dir_fd=aside, dst_dir_fd=directory)
        return
    os.unlink(name, dir_fd=aside)


def _lstat(name: str, directory: int) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _exists(name: str, directory: int) -> bool:
    try:
        _lstat(name, directory)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _opened(directory: str, flags: int = 0) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | _DIRECTORY | flags)
    try:
        yield handle
    finally:
        os.close(handle)


def _status(name: str, directory: int | None = None) -> Identity | None:
    """Return the identity of a regular file, None for anything else. Raise `OSError`."""
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return identity_of(info) if stat.S_ISREG(info.st_mode) else None


def _check_unchanged(file: LocalFile, directory: int, name: str, *, linked: bool = False) -> Identity:
    """Return the identity of an unchanged file; `linked`: a new link of ours has changed its ctime."""
    found, read = _status(name, directory), file.identity
    if found is None or read is None or found != (replace(read, ctime_ns=found.ctime_ns) if linked else read):
        is_alike = (
            found is not None and read is not None and (found.size, found.mtime_ns) == (read.size, read.mtime_ns)
        )  # perhaps in the content, too
        code = KEPT if is_alike else FailureCode.CHANGED
        raise FileFailure("it has changed since it was read", code=code, retryable=True)
    return found


def _names(name: str) -> Iterator[str]:
    """Yield `name.ext`, `name (2).ext`, `name (3).ext` …, as servers name files."""
    stem, suffix = os.path.splitext(name)
    yield name
    yield from (f"{stem} ({number}){suffix}" for number in count(2))


class _Place(NamedTuple):
    """Where a file is moved to: a name in an open directory, or one beside it.

    `identity` and `sha256` are those of the file; `checkpoint` raises to stop a copy.
    """

    directory: int
    name: str
    identity: Identity
    sha256: str
    checkpoint: Callable[[], None]

    def link(self, source: int, old: str) -> tuple[str, bool]:
        """Give the file `old` in `source` a free name here; return it, and False for an equal file that is there."""
        for new in _names(self.name):
            try:
                os.link(old, new, src_dir_fd=source, dst_dir_fd=self.directory, follow_symlinks=False)
            except FileExistsError:
                if self._is_copy(new):
                    return new, False
            else:
                return new, True
        raise AssertionError

    def copy(self, source: int, old: str) -> tuple[str, bool]:
        """Copy the file `old` in `source` to a free name here; return what `link` does. The copy is read again."""
        copy = f".uploader-{self.identity.device:x}-{self.identity.inode:x}.part"
        with suppress(FileNotFoundError):  # of a move that was interrupted
            os.unlink(copy, dir_fd=self.directory)
        try:
            with (
                open(os.open(old, os.O_RDONLY | _FILE, dir_fd=source), "rb", buffering=0) as read,
                open(
                    os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self.directory), "wb"
                ) as made,
            ):
                info = os.fstat(read.fileno())
                while block := read.read(BLOCK):
                    self.checkpoint()
                    made.write(block)
                made.flush()
                os.fchmod(made.fileno(), stat.S_IMODE(info.st_mode))
                os.utime(made.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
                os.fsync(made.fileno())
            if not self._has_bytes(copy):
                raise FileFailure(f"its copy at {self.name} differs from what was sent", code=KEPT)
            try:
                return self.link(self.directory, copy)
            except OSError as error:
                if error.errno not in _NOT_LINKED:
                    raise
            return self._rename(copy), True
        finally:
            with suppress(FileNotFoundError):
                os.unlink(copy, dir_fd=self.directory)

    def _rename(self, old: str) -> str:
        """Rename a file here to a free name, where there are no links: an empty file reserves the name."""
        for new in _names(self.name):
            with suppress(FileExistsError):
                os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self.directory))
                os.rename(old, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)
                return new
        raise AssertionError

    def _is_copy(self, name: str) -> bool:
        """Return whether a file is what an interrupted move has left: only one of the same size and mtime is read."""
        found = _status(name, self.directory)
        mine = self.identity
        is_alike = found is not None and (found.size, found.mtime_ns) == (mine.size, mine.mtime_ns)
        return is_alike and self._has_bytes(name)

    def _has_bytes(self, name: str) -> bool:
        """Return whether the regular file of this name has the SHA-256."""
        digest = hashlib.sha256(usedforsecurity=False)
        try:
            handle = os.open(name, os.O_RDONLY | _FILE, dir_fd=self.directory)
        except OSError:  # a link, or unreadable
            return False
        with open(handle, "rb", buffering=0) as source:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return False
            while block := source.read(BLOCK):
                self.checkpoint()
                digest.update(block)
        return digest.hexdigest() == self.sha256


def _persist(directory: int) -> None:
    """Write the names in a directory to the disk."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such call
            raise

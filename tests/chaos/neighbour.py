"""Another user of the machine, who writes to a directory that the client shares with him."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from chaos.processes import Find

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.processes import Ended, Secrets

NOBODY = 65534


WITNESS = "ran"
PROGRAM = f"""import os
with open(os.path.join(os.path.dirname(__file__), {WITNESS!r}), "w") as file:
    file.write(os.environ.get("UPLOADER_TOKEN", ""))
"""
"""A module in the place of Dask's, which shows that it was imported, and with what rights."""


def act(directory: Path, deed: Callable[[int], None]) -> None:
    """Do something in a directory, given as a descriptor, as another user, who can't reach its path.

    Only root can act so: else this user does it.
    """
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.umask(0)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            deed(place)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    os.close(place)
    assert not status


def shared_directory(directory: Path, mode: int = 0o1777) -> Path:
    """Make a directory for all to write, by default a sticky one as `/tmp`."""
    directory.mkdir()
    directory.chmod(mode)
    return directory


class Scratch:
    """The directory in which Dask looks for its own modules, made by another user in the one for temporary files."""

    def __init__(self, directory: Path) -> None:
        self.directory = shared_directory(directory)
        act(self.directory, self._prepare)
        self._his = self.directory / "dask-scratch-space"

    @staticmethod
    def _prepare(place: int) -> None:
        os.mkdir("dask-scratch-space", 0o777, dir_fd=place)
        module = os.open("dask-scratch-space/distributed.py", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=place)
        os.write(module, PROGRAM.encode())
        os.close(module)

    def check(self, ended: Ended) -> None:
        """Raise `Find` if the client has run his program, has used his directory, or left anything."""
        if (self._his / WITNESS).exists():
            raise Find("a program of another user ran as this one")
        if sorted(path.name for path in self._his.iterdir()) != ["distributed.py"]:
            raise Find("Dask has used the directory of another user")
        if left := [path.name for path in self.directory.iterdir() if path != self._his]:
            raise Find(f"the import left {left} in the directory for temporary files")
        if ended.code in (1, 2):
            raise Find(f"exit code {ended.code} of an import with the directory of another user")


class Neighbour:
    """Puts one file into a sticky state directory before the client comes, for all to read and write.

    Without a name there is no file, and the directory is not sticky. Only root can act as another user: else the file
    is a link out of the directory, as he could make one.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self._name = shared_directory(directory, 0o1777 if name else 0o777), name
        self._target = directory.with_name("read by the neighbour")
        if name and os.geteuid() == 0:
            act(directory, self._plant)
        elif name:
            (directory / name).symlink_to(self._target)

    def _plant(self, place: int) -> None:
        os.close(os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=place))

    def check(self, ended: Ended, secrets: Secrets) -> None:
        """Raise `Find` unless the client has refused the directory, and left nothing there that he could read."""
        if ended.code != 2 or "is not private" not in ended.err:
            raise Find(f"exit code {ended.code} with {self._name} of another user in the state directory")
        if self._target.exists():
            raise Find(f"the link {self._name} of another user was followed")
        for path in self.directory.iterdir():
            known = path.lstat()
            his = path.name == self._name
            if his and stat.S_ISREG(known.st_mode) and known.st_size:
                raise Find(f"the client has written to {self._name} of another user")
            if not his and known.st_mode & 0o077:
                raise Find(f"another user may read {path.name}")
            if not his and any(word in path.read_bytes() for word in secrets.words):
                raise Find(f"{path.name} contains a secret")

"""Another user of the machine, who writes to a directory that the client shares with him."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from chaos.processes import Find

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.processes import Ended, Secrets

NOBODY = 65534


class Neighbour:
    """Puts one file into a sticky state directory before the client comes, for all to read and write.

    Only root can act as another user: else the file is a link out of the directory, as he could make one.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self._name = directory, name
        directory.mkdir()
        directory.chmod(0o1777)
        self._target = directory.with_name("read by the neighbour")
        if os.geteuid() == 0:
            self._plant()
        else:
            (directory / name).symlink_to(self._target)

    def _plant(self) -> None:
        """Make the file in a child process with the rights of another user, who can't reach the directory's path."""
        place = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        child = os.fork()
        if not child:
            try:
                os.umask(0)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.close(os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=place))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(place)

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

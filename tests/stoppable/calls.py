"""Counts the calls that change files or the database, and kills, fails or delays the process at a planned one.

The calls are wrapped when this module is imported, which must be before the server is imported. Without a plan they
are only counted.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import signal
import sqlite3
import stat
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_OS = (
    *("copy_file_range", "fdatasync", "fsync", "ftruncate", "link", "mkdir", "pwrite", "pwritev", "remove", "rename"),
    *("replace", "rmdir", "sendfile", "symlink", "truncate", "unlink", "utime", "write", "writev"),
)
"""Functions of `os` that change files. `open` counts only if it may create a file."""
_LIBRARY = ("renameat2", "syncfs")
"""Functions of the C library that change files and that `os` lacks."""
_CHANGED = {"open": 0, "os.truncate": 0, "os.rename": 1}
"""Audit events of changed files, and which argument is the path."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Plan:
    """What happens at which call."""

    at: int
    """The number of the call, from 1."""
    action: str
    """`kill` (SIGKILL), `stop` (SIGTERM), `fail` or `sleep`, each before the call is made."""
    names: list[str] = field(default_factory=list)
    """The calls that are counted; all if there are none."""
    number: int = 0
    """The error of `fail`."""
    onwards: bool = False
    """Whether all later calls fail, too."""
    seconds: float = 0.0
    """The duration of `sleep`; of `stop`, the time that the call takes meanwhile."""


class Calls:
    """The calls of this process; the test arms it through a socket and is told when the planned call is reached."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._control: socket.socket | None = None
        self.plan: Plan | None = None
        self._calls = 0
        self.no_links = 0
        """The error of every link, as on a file system without hard links; 0 if they work."""

    def serve(self, control: socket.socket) -> None:
        """Take plans from the test, in a thread, and tell it of calls that may change a stored file."""
        self._control = control
        sys.addaudithook(self._audit)
        threading.Thread(target=self._listen, args=(control,), daemon=True).start()

    def _listen(self, control: socket.socket) -> None:
        while message := control.recv(1 << 16):
            plan = json.loads(message)
            with self._guard:
                calls, self._calls = self._calls, 0
                self.plan = None if plan is None else Plan(**plan)
            control.send(json.dumps({"calls": calls}).encode())

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Tell of a file that has its final name and is opened for writing, cut or replaced."""
        at = _CHANGED.get(event)
        if at is None or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC)):
            return
        path = arguments[at]
        if _is_stored(path, by_name=event == "os.rename"):
            self._tell("changed", f"{event} of {_shown(path)}, which has its final name")

    def linked(self, source: Any) -> None:
        """Tell of a file that was linked to a second final name."""
        if os.stat(source).st_nlink > 2:
            self._tell("changed", f"second link of {_shown(source)}")

    def _tell(self, key: str, what: str) -> None:
        if self._control is not None:
            self._control.send(json.dumps({key: what}).encode())

    def reach(self, name: str, *arguments: object) -> None:
        """Count a call; if it is the planned one, kill the process, wait, or raise the planned error (OSError)."""
        with self._guard:
            plan = self.plan
            if plan is None or (plan.names and name not in plan.names):
                return
            self._calls += 1
            number = self._calls
            if number != plan.at and not (plan.onwards and number > plan.at):
                return
            if number == plan.at:
                self._tell("hit", f"{name}({', '.join(map(_shown, arguments))})")
            if plan.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        if plan.action == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if plan.action == "fail":
            raise OSError(plan.number, os.strerror(plan.number))
        time.sleep(plan.seconds)


CALLS = Calls()


def _is_stored(path: int | str | bytes | os.PathLike[str], *, by_name: bool) -> bool:
    """Return whether there is a file with this name in a category or, unless only the name counts, a second name."""
    try:
        found = os.stat(path)
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and ("/personal/" in name or (found.st_nlink > 1 and not by_name))


def _shown(argument: object) -> str:
    if isinstance(argument, int):
        return str(argument)
    return "/".join(os.fspath(argument).rsplit("/", 3)[-3:]) if isinstance(argument, str | os.PathLike) else "…"


def _counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def reached(*arguments: Any, **named: Any) -> Any:
        CALLS.reach(name, *arguments)
        if name == "link" and CALLS.no_links:
            raise OSError(CALLS.no_links, os.strerror(CALLS.no_links))
        result = call(*arguments, **named)
        if name == "link":
            CALLS.linked(arguments[0])
        return result

    return reached


def _opened(call: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(call)
    def reached(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            CALLS.reach("open", path)
        return call(path, flags, *arguments, **named)

    return reached


class _Connection(sqlite3.Connection):
    """A connection whose commits are counted."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.lstrip().upper().startswith(("COMMIT", "END")):
            self._reach()
        return super().execute(statement, *values)

    def commit(self) -> None:
        self._reach()
        super().commit()

    @staticmethod
    def _reach() -> None:
        try:
            CALLS.reach("commit")
        except OSError as error:
            full = error.errno in _FULL
            raised = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
            raised.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
            raised.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_IOERR"
            raise raised from error


class _Function:
    """A function of the C library that is counted."""

    _name: str
    _call: Any

    def __init__(self, name: str, call: Any) -> None:
        self.__dict__.update(_name=name, _call=call)

    def __call__(self, *arguments: Any) -> Any:
        try:
            CALLS.reach(self._name, *arguments)
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._call, name, value)


class _Library(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        function: Any = super().__getattr__(name)
        if name in _LIBRARY:
            function = _Function(name, function)
            setattr(self, name, function)
        return function


for _name in _OS:
    if hasattr(os, _name):
        setattr(os, _name, _counted(_name, getattr(os, _name)))
os.open = _opened(os.open)
sqlite3.connect = functools.partial(sqlite3.connect, factory=_Connection)  # type: ignore[assignment]
ctypes.CDLL = _Library  # type: ignore[misc]

"""The data that a power loss would destroy, by the system calls that strace shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CALLS = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,sendto,sendmsg,fsync,fdatasync,syncfs,"
    "link,linkat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,truncate,ftruncate"
)
_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_OF_FD = re.compile(r"\d+<([^>]*)>")
_NAMED = re.compile(r'"([^"]*)"')
_AT = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"')  # a directory and a name
_AT_CALLS = ("at", "at2")
_NOT_ASCII = re.compile(r"(?:\\[23][0-7]{2})+")
_ANSWER = re.compile(r'"HTTP/1\.1 (2\d\d)')
_NO_CONTENT = ("server.sqlite3", "server.sqlite3-shm", "lock")
"""Files of which nothing needs to be flushed: the database reads what is committed from its log."""


def strace_works() -> bool:
    """Whether there is a strace that may trace."""
    found = shutil.which("strace")
    return found is not None and subprocess.run([found, "-o", "/dev/null", "true"], check=False).returncode == 0


def _decoded(found: re.Match[str]) -> str:
    """Return what strace prints as octal numbers: the bytes of names that are not ASCII."""
    return bytes(int(code, 8) for code in found[0].split("\\")[1:]).decode(errors="replace")


@dataclass
class PowerCut:
    """Reads a trace; `lost` has, for each success, what a power loss at that moment would destroy."""

    root: Path
    lost: list[tuple[str, list[str]]] = field(default_factory=list)
    _inodes: dict[str, int] = field(default_factory=dict)
    _written: dict[int, int] = field(default_factory=dict)
    """When bytes of an inode were written that are not flushed."""
    _entered: dict[str, int] = field(default_factory=dict)
    """When names were made whose directories are not flushed."""
    _now: int = 0

    def read(self, trace: str) -> None:
        """Process every call: writes count from its start, flushes from its end."""
        pending: dict[str, tuple[str, int]] = {}
        for line in _NOT_ASCII.sub(_decoded, trace).splitlines():
            found = _LINE.match(line)
            if found is None:
                continue
            self._now += 1
            thread, text, began = found["thread"], found["rest"], self._now
            if text.endswith("<unfinished ...>"):
                text = text.removesuffix("<unfinished ...>").rstrip()
                pending[thread] = (text, began)
                self._begin(text)
                continue
            resumed = _RESUMED.match(text)
            if resumed is not None and thread in pending:
                text, began = pending.pop(thread)
                text += resumed["rest"]
            else:
                self._begin(text)
            call = _CALL.match(text)
            if call is not None and int(call["result"]) >= 0:
                self._end(call["name"], call["arguments"], began)

    def _begin(self, text: str) -> None:
        name, _, arguments = text.partition("(")
        answer = _ANSWER.search(arguments)
        if answer is not None and "socket:" in arguments:
            self.lost.append((answer[1], sorted(self._loss())))
        elif name in {"write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate"}:
            self._touch(_OF_FD.match(arguments))
        elif name == "copy_file_range":
            self._touch(_OF_FD.search(arguments.partition(",")[2].partition(",")[2]))
        elif name == "truncate":
            self._touch(_NAMED.search(arguments))

    def _touch(self, found: re.Match[str] | None) -> None:
        if found is not None and found[1].startswith(f"{self.root}/"):
            self._written[self._inode(found[1])] = self._now

    def _inode(self, path: str) -> int:
        return self._inodes.setdefault(path, len(self._inodes) + self._now * 1000)

    def _end(self, name: str, arguments: str, began: int) -> None:
        placed = [os.path.join(*found) for found in _AT.findall(arguments)] if name.endswith(_AT_CALLS) else []
        named = [path for path in placed or _NAMED.findall(arguments) if path.startswith(f"{self.root}/")]
        if name in {"fsync", "fdatasync"}:
            path = _OF_FD.match(arguments)
            if path is not None:
                self._flush(path[1], began)
        elif name == "syncfs":
            self._written = {key: at for key, at in self._written.items() if at > began}
            self._entered = {key: at for key, at in self._entered.items() if at > began}
        elif name == "openat" and "O_CREAT" in arguments and named and named[0] not in self._inodes:
            self._inode(named[0])
            self._entered[named[0]] = self._now
        elif name in {"mkdir", "mkdirat"} and named:
            self._entered[named[0]] = self._now
        elif name in {"link", "linkat"} and len(named) == 2:
            self._inodes[named[1]] = self._inode(named[0])
            self._entered[named[1]] = self._now
        elif name in {"unlink", "unlinkat"} and named:
            self._inodes.pop(named[0], None)
            self._entered.pop(named[0], None)
        elif name.startswith("rename") and len(named) == 2:
            self._inodes[named[1]] = self._inode(named[0])
            self._entered[named[1]] = self._now
            self._inodes.pop(named[0])
            self._entered.pop(named[0], None)

    def _flush(self, path: str, began: int) -> None:
        inode = self._inodes.get(path)
        if inode is not None and self._written.get(inode, began + 1) < began:
            del self._written[inode]
        for name, at in list(self._entered.items()):
            if name.rpartition("/")[0] == path and at < began:
                del self._entered[name]

    def _loss(self) -> set[str]:
        bytes_of = {path for path, inode in self._inodes.items() if inode in self._written}
        return {
            path.removeprefix(f"{self.root}/")
            for path in bytes_of | set(self._entered)
            if path.rpartition("/")[2] not in _NO_CONTENT
        }
